"""New puzzles from the cells of built ones, none of which can be learned by heart.

A data set has few donors, and the few cells of a rare type recur in many puzzles: a model that
practises on them long enough knows the cells and need not know the types. So its practice is
crossed: a cell of a type is made of a few of that type of the same donor and batch. Donors that a
build has held out stay held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle, label_key

PARENTS = 3
CROSSED = "crossed"  # of a puzzle's metadata: how many cells each of its cells is made of


class Pools:
    """The cells of puzzles, by type, donor and batch.

    Parameters
    ----------
    puzzles
        With answers; others are passed over.
    """

    def __init__(self, puzzles: Iterable[Puzzle]) -> None:
        met: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
        for puzzle in puzzles:
            for label, genes in zip(puzzle.answer or (), puzzle.cells, strict=False):
                met[_home(puzzle), label_key(label)].add(genes)
        self.cells = {key: sorted(cells) for key, cells in met.items()}
        self.homes: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for (home, _), cells in sorted(self.cells.items()):
            self.homes[home] += cells

    def draw(
        self, template: Puzzle, label: str, rng: np.random.Generator, parents: int
    ) -> tuple[str, ...]:
        """Return a cell of a type of the template's donor and batch, made of so many."""
        pool = self.cells[_home(template), label_key(label)]
        return cross([pool[i] for i in rng.permutation(len(pool))[:parents]], rng)

    def add_ambient(
        self, template: Puzzle, cell: tuple[str, ...], share: float, rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Replace a share of a list, by chance, with genes of any cells of donor and batch."""
        others, listed = self.homes[_home(template)], set(cell)
        mixed = list(cell)
        for place in np.flatnonzero(rng.random(len(cell)) < share).tolist():
            other = others[int(rng.integers(len(others)))]
            gene = other[int(rng.integers(len(other)))]
            if gene not in listed:
                listed.add(gene)
                mixed[place] = gene
        return tuple(mixed)


def cross(parents: Sequence[tuple[str, ...]], rng: np.random.Generator) -> tuple[str, ...]:
    """Make a cell of several of one type: a gene is listed as often as the parents list it.

    A gene of two parents in three is taken in two cases of three, and stands where one of those
    that list it has it. So every gene is as frequent among crossed cells as among real ones, and
    as noisy; only what genes have to do with each other within a type is lost.

    Parameters
    ----------
    parents
        Lists of genes, strongest first; a single one is returned as it is.
    rng
        The random generator.

    Returns
    -------
    tuple
        A list no longer than the longest parent, and never empty.
    """
    if len(parents) == 1:
        return parents[0]
    places: dict[str, list[int]] = defaultdict(list)
    for parent in parents:
        for place, gene in enumerate(parent):
            places[gene].append(place)
    genes = sorted(places)
    lots = rng.integers(len(parents), size=(2, len(genes))).tolist()
    kept = [
        (places[gene][which % len(places[gene])], gene)
        for gene, lot, which in zip(genes, *lots, strict=True)
        if lot < len(places[gene])
    ]
    longest = max(map(len, parents))
    return tuple(gene for _, gene in sorted(kept)[:longest]) or parents[0]


def cross_puzzles(
    puzzles: Sequence[Puzzle], count: int, seed: int, ambient: float = 0.0
) -> list[Puzzle]:
    """Make new puzzles from built ones as templates, with crossed cells in a new order.

    Parameters
    ----------
    puzzles
        Built puzzles with answers: each new one has donor, context and types of one of them.
    count
        How many; puzzle i depends on (seed, i) alone.
    seed
        Seed for all random choices.
    ambient
        Share of every list that is replaced by genes of any cells of the donor and batch, as
        ambient RNA would: so a model is as unsure of donors it knows as of others.

    Raises
    ------
    InputError
        When no puzzle has an answer.
    """
    templates = [puzzle for puzzle in puzzles if puzzle.answer is not None]
    if not templates:
        raise InputError(
            f"none of the {len(puzzles)} puzzles has an answer, so no cell's type is known; "
            "expected a train split"
        )
    pools = Pools(templates)
    rngs = (np.random.default_rng([seed, i]) for i in range(count))
    made = (
        _crossed(templates[int(rng.integers(len(templates)))], pools, ambient, rng) for rng in rngs
    )
    return list({puzzle.id: puzzle for puzzle in made}.values())


def _crossed(template: Puzzle, pools: Pools, ambient: float, rng: np.random.Generator) -> Puzzle:
    answer = tuple(template.answer or ())
    types = tuple(answer[i] for i in rng.permutation(len(answer)))
    cells = [pools.draw(template, label, rng, PARENTS) for label in types]
    if ambient:
        cells = [pools.add_ambient(template, cell, ambient, rng) for cell in cells]
    return replace(
        template,
        cells=tuple(cells),
        candidates=tuple(template.candidates[i] for i in rng.permutation(len(template.candidates))),
        answer=types,
        meta={
            **{k: v for k, v in template.meta.items() if not k.startswith(("cell_", "assistant_"))},
            CROSSED: PARENTS,
        },
    )


def _home(puzzle: Puzzle) -> str:
    """Return what donor and batch a puzzle's cells come from."""
    return "\x1e".join(str(puzzle.meta.get(k)) for k in ("dataset", "donor_id", "batch", "tissue"))
