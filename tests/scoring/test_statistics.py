from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from cello1.scoring import statistics
from cello1.scoring.statistics import clustered_interval, paired_difference


def width(interval):
    return interval.high - interval.low


def donors_with_puzzles(rng, n_donors=30, per_donor=10):
    """Donors differ in how easy they are; the mean over all donors is 1/2."""
    ease = rng.beta(2, 2, n_donors)
    sizes = rng.integers(per_donor // 2, per_donor * 2, n_donors)
    values = [float(rng.random() < p) for p, n in zip(ease, sizes, strict=True) for _ in range(n)]
    return values, [f"d{i}" for i, n in enumerate(sizes) for _ in range(n)]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_interval_is_that_of_a_slow_loop_over_donors(weighted):
    rng = np.random.default_rng(5)
    values, donors = donors_with_puzzles(rng, n_donors=15)
    weights = [20 if weighted and d < "d2" else 1 for d in donors]
    of_donor = {
        name: [(v, w) for v, w, d in zip(values, weights, donors, strict=True) if d == name]
        for name in donors
    }
    names, means = list(of_donor), []
    for _ in range(4000):
        drawn = [pair for i in rng.integers(0, 15, 15) for pair in of_donor[names[i]]]
        means.append(sum(v * w for v, w in drawn) / sum(w for _, w in drawn))
    low, high = np.quantile(means, [0.025, 0.975])

    found = clustered_interval(values, donors, weights=weights if weighted else None)
    assert found.estimate == pytest.approx(np.average(values, weights=weights))
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))
    assert (found.n, found.clusters, found.unit) == (len(values), 15, "donor")


def test_copies_within_a_donor_add_no_certainty():
    values = np.random.default_rng(0).random(40)
    copies, donors = np.repeat(values, 9), np.repeat(np.arange(40), 9).tolist()
    once = clustered_interval(values, list(range(40)))
    by_donor, as_if_independent = (
        clustered_interval(copies, donors),
        clustered_interval(copies, None),
    )
    assert width(by_donor) == pytest.approx(width(once))
    assert width(by_donor) / width(as_if_independent) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("donors", [None, ["one"] * 50])
def test_without_two_donors_puzzles_are_resampled_and_it_is_said(donors):
    values = np.random.default_rng(0).random(50)
    found = clustered_interval(values, donors)
    assert (found.unit, found.clusters) == ("puzzle", 50)
    spread = 2 * 1.96 * values.std() / np.sqrt(50)
    assert width(found) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("n", [1, 3, 40])
def test_when_all_values_are_alike_the_interval_is_clopper_pearson(n):
    donors = [i % 2 for i in range(n)]
    none, every = clustered_interval([0] * n, donors), clustered_interval([1] * n, donors)
    bound = beta.ppf(0.975, 1, n)
    assert (none.estimate, none.low, none.unit) == (0.0, 0.0, "exact")
    assert none.high == pytest.approx(bound)
    assert (every.estimate, every.high, every.unit) == (1.0, 1.0, "exact")
    assert every.low == pytest.approx(1 - bound)


def test_macro_counts_puzzles_and_micro_counts_cells():
    values, donors, cells = [1.0, 0.5, 0.0], ["a", "b", "c"], [2, 4, 10]
    assert clustered_interval(values, donors).estimate == pytest.approx(1 / 2)
    assert clustered_interval(values, donors, weights=cells).estimate == pytest.approx(4 / 16)


def test_the_seed_decides_and_the_names_of_donors_do_not():
    values, donors = donors_with_puzzles(np.random.default_rng(1))
    first = clustered_interval(values, donors, seed=7)
    assert clustered_interval(values, donors, seed=7) == first
    assert clustered_interval(values, [f"other {d}" for d in donors], seed=7) == first
    assert clustered_interval(values, donors, seed=8) != first


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=12))
def test_an_interval_of_shares_stays_between_0_and_1(pairs):
    values, donors = [v for v, _ in pairs], [d for _, d in pairs]
    found = clustered_interval(values, donors)
    assert -1e-12 <= found.low <= found.high <= 1 + 1e-12


def test_no_values_give_no_number():
    found = clustered_interval([], [])
    assert found.n == 0
    assert np.isnan([found.estimate, found.low, found.high]).all()


def test_the_interval_covers_the_truth_and_ignoring_donors_does_not(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(11)
    by_donor = by_puzzle = 0
    for _ in range(200):
        values, donors = donors_with_puzzles(rng)
        found, naive = clustered_interval(values, donors), clustered_interval(values, None)
        by_donor += found.low <= 0.5 <= found.high
        by_puzzle += naive.low <= 0.5 <= naive.high
    assert 0.88 <= by_donor / 200 <= 0.99
    assert by_puzzle / 200 < 0.85


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 7, 18 / 256), (7, 1, 18 / 256), (0, 6, 2 / 64), (3, 3, 1.0), (0, 1, 1.0)],
)
def test_mcnemar_is_the_exact_test_on_the_discordant_puzzles(only_a, only_b, p):
    a = [True] * only_a + [False] * only_b + [True] * 5 + [False] * 4
    b = [False] * only_a + [True] * only_b + [True] * 5 + [False] * 4
    found = paired_difference(a, b, a, b, None)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.mcnemar_p == pytest.approx(p)
    assert found.difference.estimate == pytest.approx((only_a - only_b) / len(a))


def test_a_run_does_not_differ_from_itself():
    values, donors = donors_with_puzzles(np.random.default_rng(2))
    exact = [v == 1 for v in values]
    found = paired_difference(values, values, exact, exact, donors)
    assert (found.difference.estimate, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.only_a, found.only_b, found.mcnemar_p) == (0, 0, 1.0)


def test_pairing_makes_a_steady_gain_certain():
    values, donors = donors_with_puzzles(np.random.default_rng(3))
    better = [v + 0.1 for v in values]
    exact = [v == 1 for v in values]
    found = paired_difference(better, values, exact, exact, donors).difference
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
