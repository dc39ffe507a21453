"""Endless puzzles for pre-training, drawn anew from the cells of built ones.

A new puzzle takes an old one as its mould: some of its types, and for each of them any cell of
that type of the same donor and batch. So no rule of the build can be broken, and donors that were
held out there stay held out. Lists may be shortened and types without a cell put on offer, so that
a model can start with easy ones. Puzzle i of batch t depends on (seed, t, i) alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.recipes_training import Stage
from cello1.solvers.classical import Expert
from cello1.training.teacher import steer, tell
from cello1.training.tokens import worked_example

_PER_CELL, _PER_PUZZLE = 22, 50  # tokens beside the genes, answer included
_TELLING = 0.5  # share of a shortened list that the expert finds telling


class Stream:
    """Worked puzzles, as many as one likes.

    Parameters
    ----------
    sources
        Built puzzles, all with answers, by source; every source is drawn from equally often.
    expert
        Knows which genes tell, for the reasoning.
    seed
        Of everything.
    """

    def __init__(self, sources: Sequence[Sequence[Puzzle]], expert: Expert, seed: int) -> None:
        self.expert, self.seed = expert, seed
        self.moulds = sources
        self.pools: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
        for puzzle in (p for moulds in self.moulds for p in moulds):
            for label, genes in zip(puzzle.answer or (), puzzle.cells, strict=True):
                self.pools[_home(puzzle), label_key(label)].append(genes)
        self.pools = {key: sorted(set(cells)) for key, cells in self.pools.items()}

    def batch(self, step: int, stage: Stage) -> list[tuple[Puzzle, str]]:
        """Return the puzzles of one step, each with a worked response.

        All have one size, so that little of the batch is padding.
        """
        rng = np.random.default_rng([self.seed, step])
        n = int(rng.integers(*stage.cells, endpoint=True))
        genes = int(rng.integers(*stage.genes, endpoint=True))
        size = max(1, stage.batch_tokens // (n * (genes + _PER_CELL) + _PER_PUZZLE))
        puzzles = [
            self._draw(np.random.default_rng([self.seed, step, i]), stage, n, genes)
            for i in range(size)
        ]
        return [(puzzle, self.work(puzzle, rng)) for puzzle in puzzles]

    def work(self, puzzle: Puzzle, rng: np.random.Generator) -> str:
        """Reason like the expert towards the known answer."""
        gold = [puzzle.candidate_index[key] for key in puzzle.answer_keys or ()]
        scores = steer(self.expert.scores(puzzle), gold)
        return worked_example(puzzle, tell(puzzle, gold, scores, self.expert.evidence, rng))

    def _draw(self, rng: np.random.Generator, stage: Stage, n: int, genes: int) -> Puzzle:
        moulds = self.moulds[rng.integers(len(self.moulds))]
        mould = moulds[rng.integers(len(moulds))]
        answer = mould.answer or ()
        n = min(n, len(answer))
        types = [answer[i] for i in rng.permutation(len(answer))]
        chosen, others = types[:n], types[n : n + int(rng.integers(0, stage.distractors + 1))]
        candidates = [*chosen, *others]
        cells = []
        for label in chosen:
            pool = self.pools[_home(mould), label_key(label)]
            cells.append(self._shorten(pool[rng.integers(len(pool))], label, genes, rng))
        order = rng.permutation(len(candidates))
        offered = tuple(candidates[i] for i in order)
        return replace(mould, cells=tuple(cells), candidates=offered, answer=tuple(chosen), meta={})

    def _shorten(
        self, cell: tuple[str, ...], label: str, genes: int, rng: np.random.Generator
    ) -> tuple[str, ...]:
        """Keep some genes in their order: half of them telling ones, the others by chance."""
        if genes >= len(cell):
            return cell
        telling = self.expert.evidence(cell, label, None)[: round(genes * _TELLING)]
        rest = [gene for gene in cell if gene not in telling]
        kept = {*telling, *(rest[i] for i in rng.permutation(len(rest))[: genes - len(telling)])}
        return tuple(gene for gene in cell if gene in kept)


def _home(puzzle: Puzzle) -> str:
    """Return what donor and batch a puzzle's cells come from."""
    return "\x1e".join(str(puzzle.meta.get(k)) for k in ("dataset", "donor_id", "batch", "tissue"))
