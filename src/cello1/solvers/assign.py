"""From a score matrix to an assignment, and to probabilities that respect one-to-one.

Scores are log-weights: the weight of an assignment is the product of exp(score) over its cells,
and the probability that cell i has type j is the share of that weight in which it has.
"""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

Floats = npt.NDArray[np.float64]

# The exact sum visits every subset of the candidates: 2^16 subsets take some milliseconds.
EXACT_MAX_CANDIDATES = 16
_SWEEPS, _TOLERANCE = 2_000, 1e-10


def assign_jointly(scores: Floats) -> npt.NDArray[np.intp]:
    """Return the one-to-one assignment of highest total score, shape (N,)."""
    _, columns = linear_sum_assignment(scores, maximize=True)
    return np.asarray(columns).astype(np.intp)


def assign_alone(scores: Floats) -> npt.NDArray[np.intp]:
    """Give every cell its own best type, as if there were no other cells, shape (N,)."""
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
        return _exact(np.ascontiguousarray(scores, dtype=np.float64)), "exact"
    return _sinkhorn(scores), "sinkhorn"


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _exact(scores: Any) -> Any:
    """Sum over assignments, forward and backward over subsets of used candidates, in logs."""
    n, m = scores.shape
    size = 1 << m
    forward = np.full(size, -np.inf)
    backward = np.full(size, -np.inf)
    bits = np.zeros(size, dtype=np.int64)
    for used in range(1, size):
        bits[used] = bits[used >> 1] + (used & 1)
    forward[0] = 0.0
    for used in range(size):
        row = bits[used]
        if row >= n:
            if row == n:
                backward[used] = 0.0
            continue
        if forward[used] == -np.inf:
            continue
        for j in range(m):
            bit = 1 << j
            if not used & bit:
                forward[used | bit] = np.logaddexp(
                    forward[used | bit], forward[used] + scores[row, j]
                )
    shares = np.full((n, m), -np.inf)
    for used in range(size - 1, -1, -1):
        row = bits[used]
        if row >= n:
            continue
        for j in range(m):
            bit = 1 << j
            if not used & bit:
                rest = scores[row, j] + backward[used | bit]
                backward[used] = np.logaddexp(backward[used], rest)
                shares[row, j] = np.logaddexp(shares[row, j], forward[used] + rest)
    return np.exp(shares - backward[0])


def _sinkhorn(scores: Floats) -> Floats:
    """Scale rows and columns in turn; M - N rows without preference take what is left over."""
    n, m = scores.shape
    logs = np.vstack([scores, np.zeros((m - n, m))])
    for _ in range(_SWEEPS):
        logs = logs - logsumexp(logs, axis=0, keepdims=True)
        rows = logsumexp(logs, axis=1, keepdims=True)
        logs = logs - rows
        if np.abs(rows).max() < _TOLERANCE:
            break
    return np.asarray(np.exp(logs[:n]))
