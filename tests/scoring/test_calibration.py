from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import chain, permutations

import numpy as np
import pytest
from rich.console import Console
from scipy.special import softmax
from scipy.stats import beta

from cello1.cells.build import build
from cello1.errors import InputError, PuzzleError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BuildSettings
from cello1.scoring.calibration import (
    TEMPERATURES,
    accuracy_coverage,
    aurc,
    batch_confidence,
    brier,
    calibrate,
    confidence,
    ece,
    ece_noise,
    fit_temperature,
    positions,
    reliability,
)
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.classical.centroids import Centroids
from cello1.terminal.tables import calibration_table


def one_to_one(scores):
    return probabilities(scores)[0]


def alone(scores):
    return softmax(scores, axis=1)


def weights(scores):
    """Every assignment with its share of the weight, by enumeration."""
    n, m = scores.shape
    found = list(permutations(range(m), n))
    total = np.array([scores[np.arange(n), list(a)].sum() for a in found])
    return found, softmax(total)


def simulated(n, power=1.0, seed=0):
    """Confidences that say too much (power < 1) or too little; calibrated at 1."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p, rng.random(n) < p**power


def puzzle(n=3, m=3, donor="d", mark="g"):
    names = [f"type {j}" for j in range(m)]
    cells = [[f"{mark}{i}"] for i in range(n)]
    return Puzzle("Blood.", cells, names, names[:n], {"donor_id": donor})


@pytest.mark.parametrize(("n", "m"), [(4, 5), (4, 4), (1, 3), (2, 5)])
def test_batch_confidence_is_the_share_of_all_assignments(n, m):
    scores = np.random.default_rng(n * m).normal(size=(n, m)) * 3
    found, share = weights(scores)
    total = 0.0
    for assignment, wanted in zip(found, share, strict=True):
        got = batch_confidence(scores, assignment, one_to_one)
        assert got == pytest.approx(wanted, rel=1e-9)
        again = batch_confidence(scores, assignment, one_to_one, probabilities=one_to_one(scores))
        assert again == got
        total += got
    assert total == pytest.approx(1.0)


def test_a_batch_with_a_repeated_or_foreign_label_is_certainly_wrong():
    scores = np.eye(3)
    assert batch_confidence(scores, [0, 0, 1], one_to_one) == 0.0
    assert batch_confidence(scores, [0, -1, 1], one_to_one) == 0.0


def test_huge_scores_end_in_certainty_and_not_in_nan():
    scores = np.diag([1e6, 2e6, 3e6]) - 1e9
    right, wrong = [0, 1, 2], [1, 0, 2]
    assert batch_confidence(scores, right, one_to_one) == pytest.approx(1.0)
    assert batch_confidence(scores, wrong, one_to_one) == 0.0
    assert TEMPERATURES[0] <= fit_temperature([scores], [wrong], one_to_one) <= TEMPERATURES[1]


def test_confidence_reads_the_label_given_and_knows_nothing_of_others():
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    np.testing.assert_array_equal(confidence(shares, [1, 2]), [0.2, 0.8])
    np.testing.assert_array_equal(confidence(shares, [0, -1]), [0.7, np.nan])
    for bad in ([0], [0, 3]):
        with pytest.raises(InputError, match=r"do not fit \d labels"):
            confidence(shares, bad)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5)])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (3.0, 1e7), (0.25, -40.0)])
def test_the_temperature_undoes_a_scale(n, m, scale, offset):
    rng = np.random.default_rng(3)
    scores, gold = [], []
    for _ in range(1500):
        s = rng.normal(size=(n, m)) * 2
        found, share = weights(s)
        gold.append(found[rng.choice(len(found), p=share)])
        scores.append(s * scale + offset)
    fitted = fit_temperature(scores, gold, one_to_one)
    assert fitted == pytest.approx(scale, rel=0.08)
    tempered = [s / fitted for s in scores]
    chosen = [assign_jointly(s) for s in tempered]
    cells = np.concatenate(
        [confidence(one_to_one(s), c) for s, c in zip(tempered, chosen, strict=True)]
    )
    right = np.concatenate([c == np.array(g) for c, g in zip(chosen, gold, strict=True)])
    assert ece(cells, right) < 2 * ece_noise(cells) + 0.005
    whole = [batch_confidence(s, c, one_to_one) for s, c in zip(tempered, chosen, strict=True)]
    exact = [bool((c == np.array(g)).all()) for c, g in zip(chosen, gold, strict=True)]
    assert ece(whole, exact) < 2.5 * ece_noise(whole)


def test_the_same_scores_give_the_same_temperature():
    rng = np.random.default_rng(4)
    scores = [rng.normal(size=(4, 4)) for _ in range(100)]
    gold = [rng.permutation(4) for _ in range(100)]
    found = {fit_temperature(scores, gold, one_to_one) for _ in range(3)}
    assert len(found) == 1


def test_the_temperature_is_where_the_surprise_is_least():
    rng = np.random.default_rng(8)
    scores = [rng.normal(size=(4, 4)) * 5 for _ in range(60)]
    gold = [rng.permutation(4) if rng.random() < 0.4 else assign_jointly(s) for s in scores]

    def surprise(t):
        rows = [one_to_one(s / t)[range(4), g] for s, g in zip(scores, gold, strict=True)]
        return -np.log(np.concatenate(rows)).mean()

    slow = min(np.geomspace(*TEMPERATURES, 2000), key=surprise)
    assert fit_temperature(scores, gold, one_to_one) == pytest.approx(slow, rel=0.01)


def test_a_temperature_without_limit_stays_within_bounds():
    sure = [np.eye(3)]
    assert fit_temperature(sure, [[0, 1, 2]], one_to_one) == pytest.approx(TEMPERATURES[0])
    assert fit_temperature(sure, [[1, 2, 0]], one_to_one) == pytest.approx(TEMPERATURES[1])


def test_no_or_endless_scores_have_no_temperature():
    for scores in ([], [np.array([[0.0, -np.inf], [0.0, 0.0]])]):
        with pytest.raises(InputError, match="finite scores"):
            fit_temperature(scores, [[0, 1]] * len(scores), one_to_one)


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("adaptive", [False, True])
def test_bins_are_those_of_a_slow_loop(bins, adaptive):
    p, r = simulated(700, power=2.0)
    p = np.round(p, 2)  # ties, and values on the bounds of bins
    found, gap, low = reliability(p, r, bins, adaptive=adaptive), 0.0, -1.0
    for b in found:
        inside = [(x, y) for x, y in zip(p, r, strict=True) if low < x <= b.high]
        assert b.n == len(inside)
        assert b.confidence == pytest.approx(sum(x for x, _ in inside) / b.n)
        assert b.accuracy == pytest.approx(sum(y for _, y in inside) / b.n)
        k = round(b.accuracy * b.n)
        assert b.accuracy_low == pytest.approx(beta.ppf(0.025, k, b.n - k + 1) if k else 0.0)
        assert b.accuracy_high == pytest.approx(beta.ppf(0.975, k + 1, b.n - k) if k < b.n else 1.0)
        gap, low = gap + b.n / len(p) * abs(b.accuracy - b.confidence), b.high
    assert sum(b.n for b in found) == len(p)
    assert ece(p, r, bins, adaptive=adaptive) == pytest.approx(gap)
    if adaptive and bins > 1:
        assert max(b.n for b in found) < 1.4 * len(p) / bins


def test_calibrated_answers_have_no_error_but_chance():
    p, r = simulated(200_000)
    assert ece(p, r) < 0.005
    assert ece(p, r, adaptive=True) < 0.005
    by_chance = [ece(p[:500], np.random.default_rng(s).random(500) < p[:500]) for s in range(300)]
    assert ece_noise(p[:500]) == pytest.approx(np.mean(by_chance), rel=0.05)


def test_the_error_of_confidences_that_say_too_much_is_known():
    p, r = simulated(400_000, power=2.0)  # P(right) = p^2: the mean gap is 1/2 - 1/3
    assert ece(p, r, 100) == pytest.approx(1 / 6, abs=0.003)
    assert ece(np.ones(10), [True] * 7 + [False] * 3) == pytest.approx(0.3)
    assert ece(np.ones(10), [True] * 7 + [False] * 3, adaptive=True) == pytest.approx(0.3)


def test_brier_is_reliability_minus_resolution_plus_uncertainty():
    p = np.array([0.2] * 10 + [0.5] * 4 + [0.9] * 10)
    r = np.array([1] * 3 + [0] * 7 + [1, 1, 1, 0] + [1] * 8 + [0] * 2)
    groups = [(10, 0.2, 0.3), (4, 0.5, 0.75), (10, 0.9, 0.8)]
    base = 14 / 24
    decomposed = sum(n * ((q - a) ** 2 - (a - base) ** 2) for n, q, a in groups) / 24
    assert brier(p, r) == pytest.approx(decomposed + base * (1 - base))


def test_coverage_takes_the_surest_first_and_ties_together():
    p, r = [0.9, 0.5, 0.9, 0.1, 0.7], [1, 0, 0, 0, 1]
    coverage, accuracy = accuracy_coverage(p, r)
    np.testing.assert_allclose(coverage, [0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(accuracy, [1 / 2, 2 / 3, 2 / 4, 2 / 5])
    order = np.random.default_rng(0).permutation(5)
    shuffled = accuracy_coverage(np.array(p)[order], np.array(r)[order])
    np.testing.assert_array_equal(shuffled, (coverage, accuracy))


def test_coverage_of_perfect_and_of_empty_confidence():
    right = np.array([1] * 6 + [0] * 4)
    perfect = np.linspace(1, 0, 10)
    _, accuracy = accuracy_coverage(perfect, right)
    assert np.all(np.diff(accuracy) <= 0)
    risks = [0] * 6 + [k / (6 + k) for k in range(1, 5)]
    assert aurc(perfect, right) == pytest.approx(np.mean(risks))
    assert aurc(perfect[::-1], right) > aurc([0.5] * 10, right) > aurc(perfect, right)
    assert aurc([0.5] * 10, right) == pytest.approx(0.4)  # knows nothing: the error rate


@pytest.mark.parametrize(
    ("p", "r", "said"),
    [([], [], "not empty"), ([0.5], [1, 0], "one length"), ([1.2], [1], "0, 1"),
     ([np.nan], [1], "leave out")],
)  # fmt: skip
def test_unusable_confidences_are_refused(p, r, said):
    for measure in (ece, brier, aurc, reliability):
        with pytest.raises(InputError, match=said):
            measure(p, r)


def test_calibrate_counts_what_it_leaves_out():
    puzzles = [puzzle(mark=mark, m=4) for mark in "abcde"]
    names = puzzles[0].candidates
    shares = np.full((3, 4), 0.1) + np.eye(3, 4) * 0.6
    labels = [
        names[:3],  # right
        (names[0].upper(), names[2], names[1]),  # two wrong
        (names[0], "neuron", names[2]),  # one not on offer
        (),  # unreadable
        names[:3],  # no probabilities
    ]
    given = [shares, shares, shares, shares, None]
    found = calibrate(puzzles, labels, given)
    cell, batch = found["cell"], found["batch"]
    assert (cell.n, cell.without_label, cell.without_probabilities) == (8, 4, 1)
    assert (batch.n, batch.without_label, batch.without_probabilities) == (2, 2, 1)
    assert cell.accuracy == pytest.approx(6 / 8)
    assert cell.mean_confidence == pytest.approx((6 * 0.7 + 2 * 0.1) / 8)
    assert cell.brier == pytest.approx((6 * 0.3**2 + 2 * 0.1**2) / 8)
    assert batch.mean_confidence == pytest.approx((0.7**3 + 0.7 * 0.1 * 0.1) / 2)
    assert cell.coverage[0] == (0.05, 1.0)
    assert cell.coverage[-1] == (1.0, pytest.approx(6 / 8))
    assert len(cell.coverage) == 20
    assert cell.temperature is None
    json.dumps({k: asdict(v) for k, v in found.items()}, allow_nan=False)


def test_without_batch_confidence_a_repeated_label_makes_a_batch_impossible():
    one, names = puzzle(), puzzle().candidates
    shares = np.full((3, 3), 1 / 3)
    found = calibrate([one], [(names[0], names[0], names[2])], [shares])
    assert found["batch"].mean_confidence == 0.0
    assert found["cell"].accuracy == pytest.approx(2 / 3)  # of each cell, whatever the others got
    given = calibrate([one], [names], [shares], batches=[1 / 6], temperature=2.0)["batch"]
    assert (given.mean_confidence, given.accuracy, given.temperature) == (1 / 6, 1.0, 2.0)


def test_a_level_with_nothing_to_judge_is_left_out_or_an_error():
    one, shares = puzzle(), np.full((3, 3), 1 / 3)
    assert set(calibrate([one], [("type 0", "?", "type 1")], [shares])) == {"cell"}
    for puzzles, labels, given in [([], [], []), ([one], [()], [shares]), ([one], [()], [None])]:
        with pytest.raises(InputError, match="no cell has both"):
            calibrate(puzzles, labels, given)
    with pytest.raises(InputError, match=r"shape \(3, 4\)"):
        calibrate([one], [one.answer], [np.ones((3, 4))])
    with pytest.raises(PuzzleError, match="no answer"):
        calibrate([replace(one, answer=None)], [one.answer], [shares])


def many_puzzles(donors, per_donor, rng):
    """Donors differ in how far their confidences go wrong."""
    puzzles, labels, shares = [], [], []
    for d in range(donors):
        shift = rng.uniform(-0.3, 0.3)
        for k in range(per_donor):
            one = puzzle(donor=f"d{d}", mark=f"{d}-{k}-")
            p = rng.uniform(0.35, 0.65, 3)
            right = rng.random(3) < p + shift
            labels.append([one.candidates[i if ok else (i + 1) % 3] for i, ok in enumerate(right)])
            rows = np.array([np.roll([q, 1 - q, 0], i) for i, q in enumerate(p)])
            rows[~right] = np.roll(rows[~right], 1, axis=1)
            puzzles.append(one)
            shares.append(rows)
    return puzzles, labels, shares


def test_the_interval_resamples_donors_and_is_that_of_a_slow_loop():
    rng = np.random.default_rng(1)
    puzzles, labels, shares = many_puzzles(12, 8, rng)
    found = calibrate(puzzles, labels, shares)["cell"].ece
    assert (found.n, found.clusters, found.unit) == (288, 12, "donor")
    cells = {}
    for one, given, p in zip(puzzles, labels, shares, strict=True):
        chosen = positions(one, given)
        pairs = zip(confidence(p, chosen), chosen == positions(one, one.answer), strict=True)
        cells.setdefault(one.meta["donor_id"], []).extend(pairs)
    assert found.estimate == pytest.approx(ece(*zip(*chain(*cells.values()), strict=True)))
    drawn = []
    for _ in range(2000):
        resample = chain(*[cells[f"d{d}"] for d in rng.integers(0, 12, 12)])
        drawn.append(ece(*zip(*resample, strict=True)))
    low, high = np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn) + found.estimate
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))
    assert calibrate(puzzles, labels, shares)["cell"].ece == found

    unnamed = [replace(p, meta={}) for p in puzzles]
    assert calibrate(unnamed, labels, shares)["cell"].ece.clusters == 96
    single = calibrate(puzzles[:1], labels[:1], shares[:1])["cell"].ece
    assert (single.low, single.high, single.clusters) == (0.0, 1.0, 1)


def test_the_table_shows_every_run_and_what_was_left_out():
    rng = np.random.default_rng(2)
    puzzles, labels, shares = many_puzzles(3, 4, rng)
    runs = {
        "a[b]": calibrate(puzzles, labels, [None, *shares[1:]], temperature=2.5),
        "no batch": calibrate(puzzles[:1], [[labels[0][0], "?", "?"]], shares[:1]),
    }
    console = Console(width=250)
    with console.capture() as capture:
        console.print(calibration_table(runs))
    text = capture.get()
    e = runs["a[b]"]["cell"].ece
    for piece in (
        "a[b]", "2.5", f"{e.estimate:.3f} [{e.low:.3f}, {e.high:.3f}]", "as is", "none",
        "a[b]: left out 1 puzzles without probabilities",
        "no batch: left out 2 cells without a label on offer", "3 donors",
    ):  # fmt: skip
        assert piece in text


def test_real_donors_a_temperature_of_others_mends_confidence(cells_dir, tmp_path):
    settings = BuildSettings(
        n_min=2, per_n=30, test_donors=("1016", "1488"), validation_donors=("1039", "107")
    )
    build([cells_dir / "kang2018_ifnb2800.h5ad"], tmp_path, settings)
    train, validation, test = (
        read_puzzles(tmp_path / f"{name}.parquet") for name in ("train", "validation", "test")
    )
    errors = {}
    for expert in (Centroids(train, validation), Centroids(train)):
        gold = [positions(p, p.answer) for p in validation]
        fitted = fit_temperature([expert.scores(p) for p in validation], gold, one_to_one)
        raw = [expert.scores(p) for p in test]
        labels = [
            [p.candidates[j] for j in assign_jointly(s)] for p, s in zip(test, raw, strict=True)
        ]
        for temperature in (1.0, fitted):
            shares = [one_to_one(s / temperature) for s in raw]
            batches = [
                batch_confidence(s / temperature, positions(p, given), one_to_one, probabilities=q)
                for p, s, given, q in zip(test, raw, labels, shares, strict=True)
            ]
            found = calibrate(test, labels, shares, batches=batches, temperature=temperature)
            errors.setdefault(expert.model.kind, []).append(found["cell"].ece.estimate)
            assert found["batch"].n == len(test)
            # A batch is never surer than its least sure cell.
            for p, given, q, b in zip(test, labels, shares, batches, strict=True):
                assert b <= confidence(q, positions(p, given)).min() + 1e-9
    print(f"cell ECE before and after: {errors}")
    before, after = errors["logistic regression"]
    assert after <= before + 0.02
    before, after = errors["naive Bayes"]  # counts every gene as news, so it is far too sure
    assert before > 0.1
    assert after < before / 2
