"""Intervals and tests that respect donors.

Puzzles of one donor share cells of the same person, so they are not independent; the donor is
the unit that is resampled. With a single donor that is impossible: the functions here then fall
back to puzzles, and their results say so.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
# With fewer clusters a percentile bootstrap is known to be too narrow; users are told.
FEW_CLUSTERS = 10
_BLOCK = 500


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval and how it was made.

    Attributes
    ----------
    estimate, low, high
        Same unit as the values.
    n
        Number of values (puzzles).
    clusters
        Number of units resampled.
    unit
        ``donor`` or ``puzzle``: what was resampled; ``exact`` when all values are alike, where a
        bootstrap would pretend to certainty and a binomial bound over puzzles is given instead.
    """

    estimate: float
    low: float
    high: float
    n: int
    clusters: int
    unit: str


def clustered_interval(
    values: npt.ArrayLike,
    clusters: Sequence[Hashable] | None,
    *,
    weights: npt.ArrayLike | None = None,
    proportion: bool = True,
    seed: int = 0,
) -> Interval:
    """Bootstrap the (weighted) mean of `values` over whole clusters.

    Parameters
    ----------
    values
        One number per puzzle.
    clusters
        The donor of each puzzle, or None when donors are not known.
    weights
        What each value counts for; with the number of cells as weights the result is the
        pooled (micro) mean.
    proportion
        Values lie in [0, 1]. If they are all 0 or all 1, no resample differs from another; the
        interval is then the exact binomial one (Clopper-Pearson) over puzzles.
    seed
        Seed of the resampling.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0, "puzzle")
    codes, unit = cluster_codes(clusters, x.size)
    estimate = float((x * w).sum() / w.sum())
    n_clusters = int(codes.max()) + 1
    if proportion and (np.all(x == 0.0) or np.all(x == 1.0)):
        exact = binomtest(round(estimate * x.size), x.size).proportion_ci(LEVEL)
        return Interval(estimate, float(exact.low), float(exact.high), x.size, n_clusters, "exact")
    low, high = percentiles(resampled_means(x, codes, w, seed=seed))
    return Interval(estimate, low, high, x.size, n_clusters, unit)


@dataclass(frozen=True, slots=True)
class Paired:
    """Run A minus run B over the same puzzles.

    Attributes
    ----------
    difference
        Of the means, with its clustered interval.
    only_a, only_b
        Puzzles that just one of the two got exactly right.
    mcnemar_p
        Two-sided exact McNemar test on those (binomial with p = 1/2); it treats puzzles as
        independent, so read it beside the interval.
    """

    difference: Interval
    only_a: int
    only_b: int
    mcnemar_p: float


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    exact_a: Sequence[bool],
    exact_b: Sequence[bool],
    clusters: Sequence[Hashable] | None,
    *,
    seed: int = 0,
) -> Paired:
    """Compare two runs puzzle by puzzle; all sequences are in the same order of puzzles."""
    delta = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    only_a = sum(x and not y for x, y in zip(exact_a, exact_b, strict=True))
    only_b = sum(y and not x for x, y in zip(exact_a, exact_b, strict=True))
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    interval = clustered_interval(delta, clusters, proportion=False, seed=seed)
    return Paired(interval, only_a, only_b, p)


def cluster_codes(
    clusters: Sequence[Hashable] | None, size: int
) -> tuple[npt.NDArray[np.intp], str]:
    """Give clusters numbers in order of first appearance; fall back to one per puzzle.

    Returns
    -------
    codes
        The cluster of every value, shape (n,).
    unit
        ``donor``, or ``puzzle`` when fewer than two clusters are known.
    """
    if clusters is not None:
        numbers: dict[Hashable, int] = {}
        codes = np.array([numbers.setdefault(c, len(numbers)) for c in clusters], dtype=np.intp)
        if len(numbers) > 1:
            return codes, "donor"
    return np.arange(size), "puzzle"


def resampled_means(
    x: Floats, codes: npt.NDArray[np.intp], w: Floats | None = None, *, seed: int = 0
) -> Floats:
    """Draw clusters with replacement and return the mean of each draw, shape (resamples,).

    With one seed, values of the same clusters get the same draws: their means can be compared.

    Parameters
    ----------
    x
        One number per puzzle.
    codes
        The cluster of each, from :func:`cluster_codes`.
    w
        What each value counts for.
    seed
        Seed of the draws.
    """
    w = np.ones_like(x) if w is None else w
    # In blocks, which bounds memory.
    sums, totals = np.bincount(codes, x * w), np.bincount(codes, w)
    k = len(sums)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(0, RESAMPLES, _BLOCK):
        counts = rng.multinomial(k, np.full(k, 1.0 / k), size=_BLOCK)
        means.append((counts @ sums) / (counts @ totals))
    return np.concatenate(means)


def percentiles(means: Floats) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of resampled figures."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
