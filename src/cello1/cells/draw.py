"""Draw puzzles from groups of cells: which types, which cell of each, which candidates.

A group is the cells of one donor, one experimental batch and one tissue; puzzles never cross
it. Each choice comes from a generator seeded by (seed, dataset, what is chosen), so a file's
puzzles do not depend on other files, on workers or on PYTHONHASHSEED.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cello1.recipes import BuildSettings
from cello1.runs import named_rng
from cello1.scoring.ontology import BoolMatrix, above, largest_unnested, term_id

_ATTEMPTS = 20


@dataclass(frozen=True)
class Group:
    """The usable cells of one donor, batch and tissue.

    Attributes
    ----------
    key
        Unique within the file; seeds the group's generators.
    cells
        Position of the type in the file's list of types -> positions of its cells.
    """

    key: str
    cells: dict[int, npt.NDArray[np.intp]]


@dataclass(frozen=True)
class Draw:
    """One drawn puzzle, as positions.

    Attributes
    ----------
    group
        Position of the group.
    cells
        Positions of the N cells, in puzzle order.
    types
        The type of each cell, in the same order.
    candidates
        Positions of the M types, in the order in which they are offered.
    """

    group: int
    cells: tuple[int, ...]
    types: tuple[int, ...]
    candidates: tuple[int, ...]


@dataclass
class Drawn:
    """All puzzles drawn from one file, and what limited their number.

    Attributes
    ----------
    draws
        The puzzles, by N, then in order of drawing.
    shortfall
        N -> number of puzzles missing from the requested number.
    largest
        For every group the largest N it allows.
    unknown_types
        Types that are not in the Cell Ontology: their nesting could not be checked.
    """

    draws: list[Draw]
    shortfall: dict[int, int]
    largest: list[int]
    unknown_types: list[str] = field(default_factory=list)


def draw_puzzles(
    dataset: str,
    groups: Sequence[Group],
    type_names: Sequence[str],
    terms: dict[str, str],
    settings: BuildSettings,
) -> Drawn:
    """Draw up to ``per_n`` puzzles of every size from the groups of one file.

    Parameters
    ----------
    dataset
        Name of the file's data set.
    groups
        Its groups, in a fixed order.
    type_names
        Names of the types.
    terms
        Cell Ontology ids the file itself gives; other names are looked up.
    settings
        Sizes, distractors, nested types and seed.
    """
    ids = [terms.get(name) or term_id(name) for name in type_names]
    order = above(ids)
    if settings.nested_types == "allowed":
        order[:] = False
    drawer = _Drawer(dataset, groups, type_names, order, settings)
    drawn = Drawn([], {}, drawer.largest)
    drawn.unknown_types = sorted(n for n, t in zip(type_names, ids, strict=True) if t is None)
    for n in range(settings.n_min, settings.n_max + 1):
        draws = drawer.draw_size(n)
        drawn.draws += draws
        if len(draws) < settings.per_n:
            drawn.shortfall[n] = settings.per_n - len(draws)
    return drawn


class _Drawer:
    """State of the draw: how often the cells of each type were used."""

    def __init__(
        self,
        dataset: str,
        groups: Sequence[Group],
        type_names: Sequence[str],
        order: BoolMatrix,
        settings: BuildSettings,
    ) -> None:
        self.dataset, self.groups, self.type_names = dataset, groups, type_names
        self.order, self.nested, self.settings = order, order | order.T, settings
        self.largest = [
            largest_unnested(order[np.ix_(types, types)])
            for types in (sorted(group.cells) for group in groups)
        ]
        self.present = sorted({t for group in groups for t in group.cells})
        self.used: Counter[tuple[int, int]] = Counter()
        self.laps: dict[tuple[int, int, int], list[int]] = {}
        self.seen: set[frozenset[int]] = set()

    def draw_size(self, n: int) -> list[Draw]:
        """Cycle through the groups that allow this size until enough puzzles are drawn."""
        able = [g for g, largest in enumerate(self.largest) if largest >= n]
        self.rng("groups", n).shuffle(able)
        draws: list[Draw] = []
        turn = 0
        while able and len(draws) < self.settings.per_n:
            group = able[turn % len(able)]
            draw = self._draw_new(group, n, turn)
            if draw is None:
                able.remove(group)  # it has no further puzzle of this size
            else:
                draws.append(draw)
                turn += 1
        return draws

    def _draw_new(self, group: int, n: int, turn: int) -> Draw | None:
        """Draw a set of cells that no earlier puzzle has, or None if none is found."""
        for attempt in range(_ATTEMPTS):
            rng = self.rng("puzzle", n, turn, self.groups[group].key, attempt)
            types = self._choose_types(group, n, rng)
            cells = [self._next_cell(group, t, ahead=attempt) for t in types]
            if frozenset(cells) in self.seen:
                continue
            others = self._choose_distractors(types, rng)
            if others is None:
                return None
            self.seen.add(frozenset(cells))
            self.used.update((group, t) for t in types)
            candidates = types + others
            if self.settings.candidate_order == "sorted":
                candidates.sort(key=lambda t: (self.type_names[t].casefold(), self.type_names[t]))
            else:
                rng.shuffle(candidates)
            return Draw(group, tuple(cells), tuple(types), tuple(candidates))
        return None

    def _choose_types(self, group: int, n: int, rng: np.random.Generator) -> list[int]:
        """Choose n types, no two nested: take a random one if n can still be reached with it."""
        left = sorted(self.groups[group].cells)
        rng.shuffle(left)
        if self.largest[group] == len(left):
            return left[:n]  # no two of them are nested
        chosen: list[int] = []
        while len(chosen) < n:
            candidate = left.pop(0)
            apart = [t for t in left if not self.nested[candidate, t]]
            if len(chosen) + 1 + largest_unnested(self.order[np.ix_(apart, apart)]) >= n:
                chosen.append(candidate)
                left = apart
        return chosen

    def _next_cell(self, group: int, kind: int, ahead: int) -> int:
        """Return the next cell of a type; each round through its cells has its own order."""
        members = self.groups[group].cells[kind]
        used = self.used[group, kind]
        # A draw that only repeated a puzzle skips ahead, but never past unused cells.
        lap, place = divmod(used if used < len(members) else used + ahead, len(members))
        if (group, kind, lap) not in self.laps:
            rng = self.rng("cells", self.groups[group].key, self.type_names[kind], lap)
            self.laps[group, kind, lap] = rng.permutation(members).tolist()
        return self.laps[group, kind, lap][place]

    def _choose_distractors(self, types: list[int], rng: np.random.Generator) -> list[int] | None:
        """Choose types that match no cell and are not nested with one that does."""
        if not self.settings.distractors:
            return []
        free = [t for t in self.present if t not in types and not self.nested[t, types].any()]
        if len(free) < self.settings.distractors:
            return None
        return [int(t) for t in rng.choice(free, self.settings.distractors, replace=False)]

    def rng(self, *what: object) -> np.random.Generator:
        """Return the generator of one choice."""
        return named_rng(self.settings.seed, self.dataset, *what)
