"""How far the confidences of a run can be trusted, by cell and by batch.

From log-scores to the probability of a label, of a whole batch, and the temperature that makes
them honest; the measures of confidence against outcome (reliability bins, calibration error, Brier
score, risk and coverage); and both for a run. Solvers pass log-scores and the map
`to_probabilities` that turns them into one-to-one probabilities, so no solver is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from cello1.errors import InputError, PuzzleError
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.scoring.evaluate import donors_of
from cello1.scoring.statistics import LEVEL, Interval, cluster_codes, percentiles

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]
ToProbabilities = Callable[[Floats], Floats]

# Search range of the temperature.
TEMPERATURES = (0.05, 100.0)
_GRID, _LOG_TOLERANCE = 9, 2e-3
BINS = 15
RESAMPLES = 1_000
_COVERAGES = np.arange(1, 21) / 20


def positions(puzzle: Puzzle, labels: Sequence[str]) -> Positions:
    """Return the candidate each label names, shape (N,); -1 where it is not on offer.

    A wrong number of labels gives -1 for every cell, because positions then mean nothing.
    """
    if len(labels) != len(puzzle.cells):
        return np.full(len(puzzle.cells), -1, dtype=np.intp)
    index = puzzle.candidate_index
    return np.array([index.get(label_key(label), -1) for label in labels], dtype=np.intp)


def confidence(probabilities: Floats, chosen: npt.ArrayLike) -> Floats:
    """Return the probability of the label given to each cell.

    Parameters
    ----------
    probabilities
        Probability of every candidate for every cell, shape (N, M).
    chosen
        The candidate given to each cell, shape (N,); -1 for none of them.

    Returns
    -------
    confidence
        Within [0, 1], shape (N,); NaN where no candidate was given.
    """
    p, j = np.asarray(probabilities, dtype=np.float64), np.asarray(chosen, dtype=np.intp)
    if p.ndim != 2 or j.shape != p.shape[:1] or np.any(j >= p.shape[1]) or not np.isfinite(p).all():
        raise InputError(
            f"probabilities of shape {p.shape} do not fit {j.size} labels, or are not finite; "
            "expected one row per cell and one column per candidate"
        )
    given = p[np.arange(len(j)), np.maximum(j, 0)]
    return np.where(j < 0, np.nan, np.clip(given, 0.0, 1.0))


def batch_confidence(
    scores: Floats,
    chosen: npt.ArrayLike,
    to_probabilities: ToProbabilities,
    *,
    probabilities: Floats | None = None,
) -> float:
    """Return the probability that a whole one-to-one assignment is right.

    It is the weight of the assignment, exp(sum of its scores), over that of all assignments,
    written as a chain: P(cell 1 has its type) P(cell 2 has its | cell 1 has), and so on. What is
    known takes its row and column out of the matrix. Exact where `to_probabilities` is.

    Parameters
    ----------
    scores
        Log-scores, already divided by the temperature, shape (N, M) with N <= M.
    chosen
        The candidate given to each cell, shape (N,). A repeated or missing one gives 0.
    to_probabilities
        From log-scores (n, m) to one-to-one probabilities (n, m).
    probabilities
        ``to_probabilities(scores)``, if already known: saves half of the time.
    """
    columns = np.asarray(chosen, dtype=np.intp)
    if columns.min() < 0 or len(np.unique(columns)) < len(columns):
        return 0.0
    free, product = np.arange(scores.shape[1]), 1.0
    shares = to_probabilities(scores) if probabilities is None else probabilities
    for i, column in enumerate(columns):
        if i:
            shares = to_probabilities(scores[i:, free])
        product *= min(1.0, float(shares[0, np.searchsorted(free, column)]))
        free = free[free != column]
    return product


def fit_temperature(
    scores: Sequence[Floats], gold: Sequence[npt.ArrayLike], to_probabilities: ToProbabilities
) -> float:
    """Fit the temperature on validation puzzles.

    It minimises the mean negative log probability of the true label of a cell. It changes
    how sure labels are, not the labels themselves. Some 20 evaluations of every
    puzzle: a second for 500 puzzles of 8 cells, minutes for 15 cells.

    Parameters
    ----------
    scores
        Log-scores of each puzzle, finite, shape (N, M).
    gold
        The true candidate of each cell, shape (N,).
    to_probabilities
        From log-scores to probabilities, both (N, M).

    Returns
    -------
    temperature
        Within `TEMPERATURES`; at a bound if the optimum lies beyond, as when every label is right.

    Raises
    ------
    InputError
        When there is no puzzle, or scores are not finite.
    """
    if not scores or not all(np.isfinite(s).all() for s in scores):
        raise InputError("a temperature needs validation puzzles with finite scores; found none")
    truth = [np.asarray(g, dtype=np.intp) for g in gold]
    least = np.finfo(np.float64).tiny

    def surprise(log_t: float) -> float:
        t = np.exp(log_t)
        given = [
            to_probabilities(s / t)[np.arange(len(g)), g]
            for s, g in zip(scores, truth, strict=True)
        ]
        return float(-np.log(np.maximum(np.concatenate(given), least)).mean())

    # Marginals are not convex in T, so a coarse grid first finds the valley.
    low, high = np.log(TEMPERATURES)
    grid = np.linspace(low, high, _GRID)
    losses = [surprise(x) for x in grid]
    best = int(np.argmin(losses))
    bounds = (grid[max(0, best - 1)], grid[min(_GRID - 1, best + 1)])
    found = minimize_scalar(
        surprise, bounds=bounds, method="bounded", options={"xatol": _LOG_TOLERANCE}
    )
    log_t = found.x if found.fun < losses[best] else grid[best]
    return float(np.clip(np.exp(log_t), *TEMPERATURES))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: the confidences in (low, high].

    Attributes
    ----------
    low, high
        Bounds of the bin; the lowest bin includes its lower bound.
    n
        Answers in it, never 0.
    confidence, accuracy
        Mean confidence, and fraction that is right.
    accuracy_low, accuracy_high
        95 % binomial interval of the accuracy (Clopper-Pearson). It assumes
        independent answers, which those of one puzzle or donor are not: the true interval is wider.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def reliability(
    confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS, *, adaptive: bool = False
) -> list[Bin]:
    """Group answers by confidence; empty bins are left out.

    Parameters
    ----------
    confidence, right
        How sure each answer is, in [0, 1], and whether it is right, shape (n,).
    bins
        Maximum number of bins.
    adaptive
        Equal mass instead of equal width; equal confidences stay together.
    """
    p, r = _checked(confidence, right)
    inner = inner_edges(p, bins, adaptive)
    edges = [p.min(), *inner, p.max()] if adaptive else [0.0, *inner, 1.0]
    found, of = [], np.searchsorted(inner, p)
    for b in np.unique(of):
        n, k = int((of == b).sum()), int(r[of == b].sum())
        bound = binomtest(k, n).proportion_ci(LEVEL)
        bar = (p[of == b].mean(), k / n, bound.low, bound.high)
        found.append(Bin(float(edges[b]), float(edges[b + 1]), n, *map(float, bar)))
    return found


def ece(
    confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS, *, adaptive: bool = False
) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over bins.

    Parameters are those of :func:`reliability`; bins are weighted by their number of answers.
    """
    p, r = _checked(confidence, right)
    of = np.searchsorted(inner_edges(p, bins, adaptive), p)
    return float(np.abs(np.bincount(of, p - r)).sum() / len(p))


def ece_noise(confidence: npt.ArrayLike, bins: int = BINS) -> float:
    """Return the approximate `ece` that perfect confidences would show by chance.

    The gap of a bin is then roughly normal, with variance sum p (1 - p), and the mean absolute
    value of a normal variable is sqrt(2 / pi) standard deviations. Answers are assumed
    independent. Shape of `confidence`: (n,).
    """
    p = np.asarray(confidence, dtype=np.float64)
    spread = np.bincount(np.searchsorted(inner_edges(p, bins), p), p * (1 - p))
    return float(np.sqrt(2 / np.pi * spread).sum() / len(p))


def brier(confidence: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the mean squared gap of confidence and being right (1 or 0), both of shape (n,)."""
    p, r = _checked(confidence, right)
    return float(np.mean((p - r) ** 2))


def accuracy_coverage(confidence: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the accuracy of the most confident answers, for every coverage.

    Returns
    -------
    coverage, accuracy
        One step per distinct confidence, from the most confident to all answers, shape (steps,).
    """
    p, r = _checked(confidence, right)
    order = np.argsort(-p, kind="stable")
    # Answers of equal confidence cannot be told apart, so they come in together.
    count = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1) + 1
    return count / len(p), np.cumsum(r[order])[count - 1] / count


def aurc(confidence: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the area under the risk-coverage curve: mean error rate over all coverages.

    Lower is better; uninformative confidences score the overall error rate.
    """
    coverage, accuracy = accuracy_coverage(confidence, right)
    return float(np.sum(np.diff(coverage, prepend=0.0) * (1 - accuracy)))


def inner_edges(p: Floats, bins: int, adaptive: bool = False) -> Floats:
    """Return the bounds between bins, shape (bins - 1,); fewer where equal mass has ties."""
    inner = np.arange(1, bins) / bins
    return np.unique(np.quantile(p, inner, method="inverted_cdf")) if adaptive else inner


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well the confidences of one run are calibrated, on one level.

    Attributes
    ----------
    level
        ``cell`` or ``batch``.
    n
        Cells or batches counted.
    without_probabilities
        Puzzles left out because the solver gave no probabilities.
    without_label
        Cells left out because the response could not be read or their label is not on offer
        (they are wrong, but not with any confidence); batches left out because of such cells.
    accuracy, mean_confidence
        Fraction right, and what the solver expected it to be.
    ece, ece_adaptive
        Expected calibration error over bins of equal width, with its interval, and of equal mass.
    ece_noise
        Approximate `ece` that perfect confidences would show by chance over so few answers.
    brier, aurc
        See :func:`brier` and :func:`aurc`.
    bins
        The bins of `ece`.
    coverage
        (coverage, accuracy) of the most confident 5 %, 10 %, ... 100 % of answers.
    temperature
        What the scores were divided by; None when the solver's probabilities were taken as is.
    """

    level: Literal["cell", "batch"]
    n: int
    without_probabilities: int
    without_label: int
    accuracy: float
    mean_confidence: float
    ece: Interval
    ece_adaptive: float
    ece_noise: float
    brier: float
    aurc: float
    bins: tuple[Bin, ...]
    coverage: tuple[tuple[float, float], ...]
    temperature: float | None


def calibrate(
    puzzles: Sequence[Puzzle],
    labels: Sequence[Sequence[str]],
    probabilities: Sequence[Floats | None],
    *,
    batches: Sequence[float | None] | None = None,
    temperature: float | None = None,
    bins: int = BINS,
    seed: int = 0,
) -> dict[str, Calibration]:
    """Compare the confidences of a run with its outcomes; sequences are by puzzle, in one order.

    A cell is right when its label is the true one, also where a label was given twice: its
    confidence speaks of that cell alone.

    Parameters
    ----------
    puzzles
        With answers.
    labels
        Those given to the cells; any other number of them when the response could not be read.
    probabilities
        Shape (N, M) each, or None for a puzzle to be left out.
    batches
        The confidence in each batch. Where it is None it is the product over the cells, as for
        cells decided independently, or 0 when a label was given twice.
    temperature
        Temperature behind `probabilities` and `batches`, for the record.
    bins, seed
        Number of bins of the calibration error, and seed of its bootstrap.

    Returns
    -------
    dict
        ``cell`` and, unless every batch has a cell without label, ``batch``.

    Raises
    ------
    InputError
        When no cell has both a label and probabilities, or shapes do not fit.
    """
    cells: list[tuple[int, float, bool]] = []
    whole: list[tuple[int, float, bool]] = []
    counted = unlabelled = 0
    given_batches = [None] * len(puzzles) if batches is None else batches
    columns = zip(puzzles, labels, probabilities, given_batches, strict=True)
    for k, (puzzle, given, p, batch) in enumerate(columns):
        if puzzle.answer is None:
            raise PuzzleError(f"puzzle {puzzle.id} has no answer, so confidence cannot be counted")
        if p is None:
            continue
        if np.shape(p) != (len(puzzle.cells), len(puzzle.candidates)):
            raise InputError(
                f"puzzle {puzzle.id} has probabilities of shape {np.shape(p)}; expected "
                f"({len(puzzle.cells)}, {len(puzzle.candidates)})"
            )
        chosen = positions(puzzle, given)
        sure, right = confidence(p, chosen), chosen == positions(puzzle, puzzle.answer)
        known, counted = chosen >= 0, counted + 1
        unlabelled += int((~known).sum())
        cells += [(k, float(sure[i]), bool(right[i])) for i in np.flatnonzero(known)]
        if known.all():
            if batch is None:
                batch = float(sure.prod()) if len(np.unique(chosen)) == len(chosen) else 0.0
            whole.append((k, batch, bool(right.all())))
    if not cells:
        raise InputError("no cell has both a label on offer and probabilities to check")

    def summarize(
        level: Literal["cell", "batch"], answers: list[tuple[int, float, bool]], left_out: int
    ) -> Calibration:
        owner, p, r = (np.array(column) for column in zip(*answers, strict=True))
        coverage, accuracy = accuracy_coverage(p, r)
        at = np.searchsorted(coverage, _COVERAGES - 1e-9)
        return Calibration(
            level=level,
            n=len(p),
            without_probabilities=len(puzzles) - counted,
            without_label=left_out,
            accuracy=float(r.mean()),
            mean_confidence=float(p.mean()),
            ece=_ece_interval(p, r, owner, puzzles, bins, seed),
            ece_adaptive=ece(p, r, bins, adaptive=True),
            ece_noise=ece_noise(p, bins),
            brier=brier(p, r),
            aurc=aurc(p, r),
            bins=tuple(reliability(p, r, bins)),
            coverage=tuple(zip(_COVERAGES.tolist(), accuracy[at].tolist(), strict=True)),
            temperature=temperature,
        )

    found = {"cell": summarize("cell", cells, unlabelled)}
    return found | ({"batch": summarize("batch", whole, counted - len(whole))} if whole else {})


def _checked(confidence: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats]:
    p, r = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if p.ndim != 1 or p.shape != r.shape or not p.size:
        raise InputError(
            f"confidences of shape {p.shape} for answers of shape {r.shape}; expected two lists "
            "of one length, not empty"
        )
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("confidences must lie in [0, 1]; leave out answers without one")
    return p, r


def _ece_interval(
    p: Floats,
    r: npt.NDArray[np.bool_],
    owner: npt.NDArray[np.intp],
    puzzles: Sequence[Puzzle],
    bins: int,
    seed: int,
) -> Interval:
    """Bootstrap the calibration error over donors, or over puzzles where those are not known.

    Chance gaps in the bins only ever add to the error, and resampling adds as many again; the
    resamples are therefore shifted to have the estimate as their mean.
    """
    estimate = ece(p, r, bins)
    kept, number = np.unique(owner, return_inverse=True)
    codes, unit = cluster_codes(donors_of([puzzles[k] for k in kept]), len(kept))
    k, cluster = int(codes.max()) + 1, codes[number]
    if k == 1:  # a single puzzle says nothing of others
        return Interval(estimate, 0.0, 1.0, len(p), 1, unit)
    of = np.searchsorted(inner_edges(p, bins), p)
    gaps = np.bincount(cluster * bins + of, p - r, minlength=k * bins).reshape(k, bins)
    counts = np.random.default_rng(seed).multinomial(k, np.full(k, 1.0 / k), size=RESAMPLES)
    drawn = np.abs(counts @ gaps).sum(axis=1) / (counts @ np.bincount(cluster))
    low, high = percentiles(drawn - drawn.mean() + estimate)
    return Interval(estimate, max(0.0, low), min(1.0, high), len(p), k, unit)
