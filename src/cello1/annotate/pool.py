"""Pool the answers to many batches into votes for each cluster (or cell)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from cello1.annotate.batches import Batch
from cello1.annotate.levels import broad_type
from cello1.errors import InputError
from cello1.puzzles.answer import Malformed, parse_tolerantly
from cello1.puzzles.puzzle import label_key
from cello1.scoring.calibration import positions
from cello1.solvers.base import Floats

# With fewer cells in a batch, their median carries little information.
_COMPARED = 4
_PRIOR = 0.5  # prior votes of every unit, shared among the candidates
LEVEL = 0.05


@dataclass(frozen=True)
class Votes:
    """The votes on K units (clusters or cells) for M candidates.

    Attributes
    ----------
    shares
        Summed one-to-one probabilities, or counts of votes where a solver only writes text, (K, M).
    chosen
        How often the solver gave the unit the candidate, shape (K, M).
    ahead, compared
        Number of batches in which the unit fitted the candidate better than most others did,
        (K, M), and in which it could be compared (with scores, and at least four cells), (K,).
    counts
        Number of readable answers, shape (K,).
    unread
        Number of unreadable answers, shape (K,).
    tolerated
        Responses that are readable only tolerantly, with faults of format, and all readable ones.
    """

    shares: Floats
    chosen: Floats
    ahead: Floats
    compared: npt.NDArray[np.intp]
    counts: npt.NDArray[np.intp]
    unread: npt.NDArray[np.intp]
    tolerated: tuple[int, int] = (0, 0)

    @property
    def logits(self) -> Floats:
        """Log-shares of votes, with a small prior, shape (K, M)."""
        m = self.shares.shape[1]
        share = (self.shares + _PRIOR / m) / (self.counts[:, None] + _PRIOR)
        return np.asarray(np.log(share))


def count_votes(
    batches: Sequence[Batch],
    units: Sequence[Sequence[int]],
    n_units: int,
    candidates: Sequence[str],
    records: Mapping[str, Mapping[str, Any]],
) -> Votes:
    """Count the votes of the answers.

    Parameters
    ----------
    batches
        The batches that were asked.
    units
        The unit behind each cell of each batch.
    n_units
        Their number, K.
    candidates
        The types on offer, in the order of the columns.
    records
        Puzzle id -> answer as :func:`cello1.solvers.run.read_solved` gives it.

    Raises
    ------
    InputError
        When no answer can be read.
    """
    shape = (n_units, len(candidates))
    column = {label_key(label): j for j, label in enumerate(candidates)}
    shares, chosen, ahead = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    counts, unread, compared = (np.zeros(n_units, dtype=np.intp) for _ in range(3))
    why, mended = "no batch was answered", dict[str, bool]()
    for batch, behind in zip(batches, units, strict=True):
        record, rows = records.get(batch.puzzle.id, {}), np.asarray(behind, dtype=np.intp)
        said = parse_tolerantly(record.get("text", ""), batch.puzzle)
        if isinstance(said, Malformed):
            np.add.at(unread, rows, 1)
            why = said.reason if record else why
            continue
        mended[batch.puzzle.id] = bool(said.repairs)
        places = np.array([column[label_key(c)] for c in batch.puzzle.candidates])
        given = positions(batch.puzzle, said.answer.labels)
        read = given >= 0
        np.add.at(unread, rows[~read], 1)
        np.add.at(counts, rows[read], 1)
        np.add.at(chosen, (rows[read], places[given[read]]), 1.0)
        if "probabilities" in record:
            shares[np.ix_(rows[read], places)] += np.array(record["probabilities"])[read]
        else:
            np.add.at(shares, (rows[read], places[given[read]]), 1.0)
        if "scores" in record and len(rows) >= _COMPARED:
            scores = np.array(record["scores"])
            ahead[np.ix_(rows, places)] += scores > _rivals(scores)
            compared[rows] += 1
    if not counts.any():
        raise InputError(f"no answer of the solver can be read ({why}); nothing was annotated")
    tolerated = (sum(mended.values()), len(mended))
    return Votes(shares, chosen, ahead, compared, counts, unread, tolerated)


def _rivals(scores: Floats) -> Floats:
    """Return the score that each cell is compared with: the median of the other cells' scores."""
    n = len(scores)
    others = [np.median(np.delete(scores, i, axis=0), axis=0) for i in range(n)]
    return np.asarray(others)


def by_chance(votes: Votes, candidates: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which units got neither a candidate nor a broad type more often than by chance.

    That is, no candidate or broad type is significantly more frequent than its share of the
    candidates (binomial test at 5 %); with very few answers even full agreement is not significant.
    Where there are scores, it also holds for a unit that in at least half of its batches fitted its
    best candidate no better than the median cell: it only got the type that was left over.
    """
    m = len(candidates)
    broad = [broad_type(label) for label in candidates]
    names = sorted(set(broad))
    member = np.array([[b == name for name in names] for b in broad], dtype=float)
    rows, best = np.arange(len(votes.chosen)), votes.chosen.argmax(axis=1)
    fine = m * binom.sf(votes.chosen[rows, best] - 1, votes.counts, 1 / m)
    wide = votes.chosen @ member
    widest = wide.argmax(axis=1)
    share = member.sum(axis=0)[widest] / m
    coarse = len(names) * binom.sf(wide[rows, widest] - 1, votes.counts, share)
    rare = np.minimum(fine, np.where(share < 1, coarse, 1.0)) > LEVEL
    behind = (votes.compared > 0) & (votes.ahead[rows, best] <= votes.compared / 2)
    return np.asarray((rare | behind) & (votes.counts > 0))
