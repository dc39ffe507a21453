"""Simulate the evidence of an atlas for practice puzzles.

A real atlas is of no use here: it knows the very profiles that practice draws its cells from. So
the evidence is made up from the right types, as good or bad as a draw decides: every cell gets a
noisy likeness to each candidate, and the probabilities follow from it by Bayes' rule. They are
calibrated by construction, as those of the atlas are on new studies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cello1.puzzles.prompt import KNOWN_HOW
from cello1.solvers.assign import probabilities
from cello1.solvers.evidence import named
from cello1.training.base.practice import Draft
from cello1.training.base.sources import Floats32

_NOISE = (0.03, 0.5)  # of a puzzle, as a share of the likeness of a type to itself
_UNKNOWN = 0.3  # share of the puzzles in which the atlas has no data on some candidates
_NOISIER = 2.0  # noise of those candidates


class Simulated(NamedTuple):
    """Evidence for a draft.

    Attributes
    ----------
    cells
        For each cell the positions of the likely candidates and their percentages.
    known
        How the atlas knows candidates without data: positions of candidates.
    """

    cells: list[list[tuple[int, int]]]
    known: dict[str, list[int]]


def simulate(draft: Draft, alike: Floats32, rng: np.random.Generator) -> Simulated:
    """Make up the evidence for a draft.

    Parameters
    ----------
    draft
        The puzzle.
    alike
        Likeness of all types, shape (types, types), 1 on the diagonal.
    rng
        The random generator.
    """
    logs, known = unclear(draft, alike, rng)
    shares, _ = probabilities(logs)
    return Simulated([named(row) for row in shares.tolist()], known)


def unclear(
    draft: Draft, alike: Floats32, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], dict[str, list[int]]]:
    """Rate a draft's cells by their right types, as well or badly as a draw decides.

    Parameters
    ----------
    draft, alike, rng
        As for :func:`simulate`.

    Returns
    -------
    logs
        Log-likelihoods, shape (N, M).
    known
        As in :class:`Simulated`.
    """
    own, hows = alike[np.ix_(draft.types, draft.types)].astype(np.float64), tuple(KNOWN_HOW)
    noise = np.full(len(draft.types), rng.uniform(*_NOISE))
    known: dict[str, list[int]] = {}
    if rng.random() < _UNKNOWN:
        for j in np.flatnonzero(rng.random(len(noise)) < 0.2).tolist():
            known.setdefault(hows[int(rng.integers(len(hows)))], []).append(j)
            noise[j] *= _NOISIER
    seen = own[draft.gold] + rng.normal(size=(len(draft.gold), len(noise))) * noise
    apart = (seen[:, None] - own[None]) / noise
    logs: npt.NDArray[np.float64] = -0.5 * np.square(apart).sum(axis=2)
    return logs, known


def likeness(telling: Floats32) -> Floats32:
    """Return how much alike types are: the cosine of their log ratios, shape (types, types)."""
    norm = np.linalg.norm(telling, axis=1, keepdims=True)
    unit = telling / np.maximum(norm, 1e-6)
    cosine: Floats32 = (unit @ unit.T).astype(np.float32)
    np.fill_diagonal(cosine, 1.0)
    return cosine
