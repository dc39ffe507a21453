"""The steps that lead an expert to an assignment: surest cell first, revised where needed.

The steps are computed, not invented: cells are settled greedily, each with the best type still
free, and when the assignment wants a type that an earlier cell holds, that cell is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from cello1.solvers.base import Floats


@dataclass(frozen=True)
class Step:
    """One step towards the assignment.

    Attributes
    ----------
    kind
        ``settle``: a cell takes a free type. ``last``: the only type left. ``take``: a type
        that `other` held so far. ``back``: a cell that lost its type gets another one.
        ``back_last``: the same, with only one type left.
    cell, label
        Index of the cell and of the candidate it gets.
    rival
        The strongest other type that was free; for ``back`` the type that was lost.
    margin
        By how much the type beats the rival, in log-score; negative when it does not.
    other
        For ``take``, the cell that held the type; for ``settle``, an open cell that fits the rival
        better.
    better
        For ``take``: the cell fits the type better than its holder, which otherwise gives way
        because it has alternatives.
    """

    kind: Literal["settle", "last", "take", "back", "back_last"]
    cell: int
    label: int
    rival: int | None = None
    margin: float = np.inf
    other: int | None = None
    better: bool = True


def find_steps(scores: Floats, chosen: Sequence[int]) -> list[Step]:
    """Find the steps from nothing to an assignment.

    Parameters
    ----------
    scores
        Log-scores of every cell and candidate, shape (N, M).
    chosen
        Position of the candidate that each cell has in the end, all different.
    """
    return _Bench(np.asarray(log_softmax(scores, axis=1)), list(chosen)).work()


class _Bench:
    """The state between two steps: who holds which type."""

    def __init__(self, fit: Floats, chosen: list[int]) -> None:
        self.fit, self.chosen = fit, chosen
        self.owner = {label: cell for cell, label in enumerate(chosen)}
        self.holder: dict[int, int] = {}
        self.open = list(range(len(chosen)))
        self.steps: list[Step] = []

    def work(self) -> list[Step]:
        while self.open:
            cell, first = self._surest()
            self.open.remove(cell)
            wanted = self.chosen[cell]
            if wanted in self.holder:
                self._take(cell, wanted)
            elif first != wanted and self.owner.get(first) in self.open:
                # The cell that needs this type is still to come and will claim it.
                self._settle(cell, first)
            else:
                self._settle(cell, wanted)
        return self.steps

    def _free(self) -> list[int]:
        return [j for j in range(self.fit.shape[1]) if j not in self.holder]

    def _surest(self) -> tuple[int, int]:
        """Return the open cell whose best free type leads by most, and that type."""
        free = self._free()
        best = (-np.inf, self.open[0], free[0])
        for cell in self.open:
            ranked = sorted(free, key=lambda j: (-self.fit[cell, j], j))
            lead = np.inf
            if len(ranked) > 1:
                lead = float(self.fit[cell, ranked[0]] - self.fit[cell, ranked[1]])
            if lead > best[0]:
                best = (lead, cell, ranked[0])
        return best[1], best[2]

    def _settle(self, cell: int, label: int) -> None:
        free = self._free()
        if free == [label]:
            self.steps.append(Step("last", cell, label))
        else:
            rival = max((j for j in free if j != label), key=lambda j: (self.fit[cell, j], -j))
            margin = float(self.fit[cell, label] - self.fit[cell, rival])
            fits = [i for i in self.open if self.fit[i, rival] > self.fit[cell, rival]]
            other = max(fits, key=lambda i: (self.fit[i, rival], -i), default=None)
            self.steps.append(Step("settle", cell, label, rival, margin, other))
        self.holder[label] = cell

    def _take(self, cell: int, label: int) -> None:
        """Give a cell the type it needs; its holder moves on, and so forth."""
        loser = self.holder[label]
        better = bool(self.fit[cell, label] > self.fit[loser, label])
        self.steps.append(Step("take", cell, label, other=loser, better=better))
        self.holder[label] = cell
        while True:
            gone, wanted = label, self.chosen[loser]
            margin = float(self.fit[loser, wanted] - self.fit[loser, gone])
            kind: Literal["back", "back_last"] = (
                "back_last" if self._free() == [wanted] and not self.open else "back"
            )
            self.steps.append(Step(kind, loser, wanted, gone, margin))
            evicted = self.holder.get(wanted)
            self.holder[wanted] = loser
            if evicted is None:
                return
            loser, label = evicted, wanted
