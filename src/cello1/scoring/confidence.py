"""From scores to confidence: the probability of a label, of a whole batch, and the temperature.

Solvers hand over log-scores and the map `to_probabilities` that makes one-to-one probabilities of
them, so no solver is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle, label_key

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]
ToProbabilities = Callable[[Floats], Floats]

# Where a temperature is looked for.
TEMPERATURES = (0.05, 100.0)
_GRID, _LOG_TOLERANCE = 9, 2e-3


def positions(puzzle: Puzzle, labels: Sequence[str]) -> Positions:
    """Return the candidate each label names, shape (N,); -1 where it is not on offer.

    A wrong number of labels gives -1 for every cell, because places then mean nothing.
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
        Probability of every cell and candidate, shape (N, M).
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
        ``to_probabilities(scores)``, where it is known already: saves half of the time.
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
    """Find the temperature at which validation puzzles are least surprising.

    It minimises the mean negative log probability of the true label of a cell. Labels that
    follow from `scores` do not change, only how sure they are. Some 20 evaluations of every
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
        Within `TEMPERATURES`; at a bound when nothing stops it, as when every label is right.

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
