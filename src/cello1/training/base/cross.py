"""New puzzles with cells crossed from built ones, which a model cannot memorise.

A data set has few donors, and the few cells of a rare type recur in many puzzles: a model that is
trained on them long enough memorises the cells instead of learning the types. So training puzzles
are crossed: a cell of a type is made from several cells of that type of the same donor and batch.
Donors that a build has held out stay held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle, label_key

PARENTS = 3
CROSSED = "crossed"  # key of the metadata: number of cells that each cell is made from


class Pools:
    """The cells of puzzles, by type, donor and batch.

    Parameters
    ----------
    puzzles
        Puzzles; those without answers are skipped.
    """

    def __init__(self, puzzles: Iterable[Puzzle]) -> None:
        met: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
        for puzzle in puzzles:
            for label, genes in zip(puzzle.answer or (), puzzle.cells, strict=False):
                met[_donor_key(puzzle), label_key(label)].add(genes)
        self.cells = {key: sorted(cells) for key, cells in met.items()}
        self.by_donor: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for (donor, _), cells in sorted(self.cells.items()):
            self.by_donor[donor] += cells

    def draw(
        self, template: Puzzle, label: str, rng: np.random.Generator, parents: int
    ) -> tuple[str, ...]:
        """Return a cell of a type of the template's donor and batch, crossed from several."""
        pool = self.cells[_donor_key(template), label_key(label)]
        return cross([pool[i] for i in rng.permutation(len(pool))[:parents]], rng)

    def add_ambient(
        self, template: Puzzle, cell: tuple[str, ...], share: float, rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Replace a random share of a list with genes of any cells of the donor and batch."""
        others, listed = self.by_donor[_donor_key(template)], set(cell)
        mixed = list(cell)
        for place in np.flatnonzero(rng.random(len(cell)) < share).tolist():
            other = others[int(rng.integers(len(others)))]
            gene = other[int(rng.integers(len(other)))]
            if gene not in listed:
                listed.add(gene)
                mixed[place] = gene
        return tuple(mixed)


def cross(parents: Sequence[tuple[str, ...]], rng: np.random.Generator) -> tuple[str, ...]:
    """Make a cell from several of one type: a gene is listed with its frequency in the parents.

    A gene that two of three parents list is taken with probability 2/3, at its rank in one of the
    parents that list it. So every gene is as frequent and as noisy among crossed cells as among
    real ones; only correlations between genes within a type are lost.

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
        Number of puzzles; puzzle i depends on (seed, i) alone.
    seed
        Seed for all random choices.
    ambient
        Share of every list that is replaced by genes of any cells of the donor and batch, like
        ambient RNA, so that a model is not overconfident on the donors it is trained on.

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


def _donor_key(puzzle: Puzzle) -> str:
    """Return the data set, donor and batch of a puzzle's cells as a key."""
    return "\x1e".join(str(puzzle.meta.get(k)) for k in ("dataset", "donor_id", "batch", "tissue"))
