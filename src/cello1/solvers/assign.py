"""Turn a score matrix into an assignment, and into probabilities under one-to-one.

Scores are log-weights: the weight of an assignment is the product of exp(score) over its cells,
and the probability that cell i has type j is the share of the total weight of the assignments in
which it has.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

Floats = npt.NDArray[np.float64]

# The exact sum visits every subset of the candidates: 2^16 subsets take some milliseconds.
EXACT_MAX_CANDIDATES = 16
_SMALLEST_LOG = -600.0
_SWEEPS, _TOLERANCE = 2_000, 1e-10


def assign_jointly(scores: Floats) -> npt.NDArray[np.intp]:
    """Return the one-to-one assignment of highest total score, shape (N,)."""
    _, columns = linear_sum_assignment(scores, maximize=True)
    return np.asarray(columns).astype(np.intp)


def assign_alone(scores: Floats) -> npt.NDArray[np.intp]:
    """Return the best type of every cell, independently of other cells, shape (N,)."""
    return np.asarray(np.argmax(scores, axis=1), dtype=np.intp)


def probabilities(scores: Floats) -> tuple[Floats, Literal["exact", "sinkhorn"]]:
    """Return the probability of every cell and candidate under one-to-one.

    Parameters
    ----------
    scores
        Log-scores, finite, shape (N, M) with N <= M.

    Returns
    -------
    probabilities
        Rows sum to 1, columns to at most 1, shape (N, M).
    method
        ``exact``: summed over all assignments (up to 16 candidates). ``sinkhorn``: for more, the
        matrix of largest entropy with such sums. Single entries can be off by a tenth.
    """
    if scores.shape[1] <= EXACT_MAX_CANDIDATES:
        return _exact(np.asarray(scores, dtype=np.float64)), "exact"
    return _sinkhorn(scores), "sinkhorn"


class _Level(NamedTuple):
    """The subsets of k candidates, and how they are reached from k - 1 and lead to k + 1."""

    size: int
    before: npt.NDArray[np.intp]  # subsets without one of their candidates, (size, k)
    taken: npt.NDArray[np.intp]  # that candidate
    after: npt.NDArray[np.intp]  # subsets with one more, (size, m - k)
    added: npt.NDArray[np.intp]  # that candidate


@cache
def _levels(m: int) -> list[_Level]:
    """Return the subsets of m candidates, numbered within those of equal size."""
    bits = np.arange(m)
    holds = (np.arange(1 << m)[:, None] >> bits) & 1
    count = holds.sum(axis=1)
    place = np.zeros(1 << m, dtype=np.intp)
    levels = []
    for k in range(m + 1):
        place[count == k] = np.arange((count == k).sum())
    for k in range(m + 1):
        subsets = np.flatnonzero(count == k)
        taken = np.nonzero(holds[subsets])[1].reshape(len(subsets), k)
        added = np.nonzero(1 - holds[subsets])[1].reshape(len(subsets), m - k)
        before = place[subsets[:, None] ^ (1 << taken)]
        after = place[subsets[:, None] | (1 << added)]
        levels.append(_Level(len(subsets), before, taken, after, added))
    return levels


def _exact(scores: Floats) -> Floats:
    """Sum over assignments, forward and backward over subsets of used candidates, cell by cell."""
    below = scores - scores.max(axis=1, keepdims=True)
    # A lower bound on the products of one weight per cell, which must not underflow.
    if below.min(axis=1).sum() < _SMALLEST_LOG:
        return _exact_in_logs(below)
    (n, m), levels, weights = scores.shape, _levels(scores.shape[1]), np.exp(below)
    forward = [np.ones(1)]
    for i in range(n - 1):
        to = levels[i + 1]
        sums = (forward[-1][to.before] * weights[i][to.taken]).sum(axis=1)
        forward.append(sums / sums.max())
    backward, shares = np.ones(levels[n].size), np.empty((n, m))
    for i in reversed(range(n)):
        at = levels[i]
        products = backward[at.after] * weights[i][at.added]
        backward = products.sum(axis=1)
        backward /= backward.max()
        products *= forward[i][:, None]
        shares[i] = np.bincount(at.added.ravel(), products.ravel(), m)
        shares[i] /= shares[i].sum()
    return shares


def _exact_in_logs(scores: Floats) -> Floats:
    """Compute the same in logs, where products of weights would underflow."""
    (n, m), levels = scores.shape, _levels(scores.shape[1])
    forward = [np.zeros(1)]
    for i in range(n - 1):
        to = levels[i + 1]
        forward.append(logsumexp(forward[-1][to.before] + scores[i][to.taken], axis=1))
    backward, shares = np.zeros(levels[n].size), np.empty((n, m))
    for i in reversed(range(n)):
        at = levels[i]
        sums = backward[at.after] + scores[i][at.added]
        backward = logsumexp(sums, axis=1)
        sums += forward[i][:, None]
        shares[i] = np.bincount(at.added.ravel(), np.exp(sums - sums.max()).ravel(), m)
        shares[i] /= shares[i].sum()
    return shares


def _sinkhorn(scores: Floats) -> Floats:
    """Scale rows and columns in turn; M - N uniform rows take the remaining candidates."""
    n, m = scores.shape
    logs = np.vstack([scores, np.zeros((m - n, m))])
    for _ in range(_SWEEPS):
        logs = logs - logsumexp(logs, axis=0, keepdims=True)
        rows = logsumexp(logs, axis=1, keepdims=True)
        logs = logs - rows
        if np.abs(rows).max() < _TOLERANCE:
            break
    return np.asarray(np.exp(logs[:n]))
