"""Measures of confidence against outcome: reliability bins, calibration error, Brier, coverage.

Plain arrays in, numbers out: for each answer a `confidence` in [0, 1] and whether it is `right`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from cello1.errors import InputError
from cello1.scoring.statistics import LEVEL

Floats = npt.NDArray[np.float64]

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: the confidences in (low, high].

    Attributes
    ----------
    low, high
        Bounds of the bin; the lowest bin holds its lower bound as well.
    n
        Answers in it, never 0.
    confidence, accuracy
        Their mean confidence and the share that is right.
    accuracy_low, accuracy_high
        95 % binomial interval of the accuracy (Clopper-Pearson). It takes answers as independent,
        which those of one puzzle or donor are not: the true interval is wider.
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
    """Group answers by confidence; bins without answers are left out.

    Parameters
    ----------
    confidence, right
        How sure each answer is, in [0, 1], and whether it is right, shape (n,).
    bins
        Their number at most.
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
    """Return the expected calibration error: mean gap of confidence and accuracy over the bins.

    Parameters are those of :func:`reliability`; every bin counts with its number of answers.
    """
    p, r = _checked(confidence, right)
    of = np.searchsorted(inner_edges(p, bins, adaptive), p)
    return float(np.abs(np.bincount(of, p - r)).sum() / len(p))


def ece_noise(confidence: npt.ArrayLike, bins: int = BINS) -> float:
    """Return about the `ece` that flawless confidences would show by chance.

    The gap of a bin is then about normal, with variance sum p (1 - p), and the mean absolute
    value of a normal variable is sqrt(2 / pi) standard deviations. Answers are taken as
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
    """Return how accurate the surest answers are, for every share of them.

    Returns
    -------
    coverage, accuracy
        One step per different confidence, from the surest to all answers, shape (steps,).
    """
    p, r = _checked(confidence, right)
    order = np.argsort(-p, kind="stable")
    # Answers of equal confidence cannot be told apart, so they come in together.
    count = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1) + 1
    return count / len(p), np.cumsum(r[order])[count - 1] / count


def aurc(confidence: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the area under the risk-coverage curve: mean error rate over all coverages.

    Low is good; confidences that tell nothing score the overall error rate.
    """
    coverage, accuracy = accuracy_coverage(confidence, right)
    return float(np.sum(np.diff(coverage, prepend=0.0) * (1 - accuracy)))


def inner_edges(p: Floats, bins: int, adaptive: bool = False) -> Floats:
    """Return the bounds between bins, shape (bins - 1,); fewer where equal mass has ties."""
    inner = np.arange(1, bins) / bins
    return np.unique(np.quantile(p, inner, method="inverted_cdf")) if adaptive else inner


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
