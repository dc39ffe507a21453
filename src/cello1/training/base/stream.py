"""Endless puzzles for pre-training, drawn anew from the cells of built ones.

A new puzzle takes an old one as its mould: some of its types, and for each of them a cell of that
type of the same donor and batch, or one crossed of a few (`cross.py`), which no model can learn by
heart. So no rule of the build can be broken, and donors that were held out there stay held out.
Lists may be shortened and types without a cell put on offer, so that a model can start with easy
ones; in blind puzzles genes and types have nothing to do with each other, so that only giving no
type twice can be learned. Puzzle i of batch t depends on (seed, t, i) alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import Stage
from cello1.solvers.classical.expert import Expert
from cello1.training.base.cross import PARENTS, Pools
from cello1.training.teacher.teacher import steer, stray, tell, tell_drafted, tell_listed
from cello1.training.teacher.wording import listed

_PER_CELL, _PER_PUZZLE = 22, 50  # tokens beside the genes, answer included
# An expert knows the cells it learned from: its drafts of them would be too good to be mended.
_ASTRAY = 1.0
_DRILL_GENES = 300  # few enough to be learned at once, many enough not to be guessed


class Stream:
    """Worked puzzles, as many as one likes.

    Parameters
    ----------
    sources
        Built puzzles, all with answers, by source; every source that has enough types for the
        puzzle wanted is drawn from equally often.
    experts
        One per source: it knows which genes tell there, for the reasoning.
    seed
        Of everything.
    """

    def __init__(
        self, sources: Sequence[Sequence[Puzzle]], experts: Sequence[Expert], seed: int
    ) -> None:
        self.experts, self.seed = experts, seed
        self.moulds = [sorted(source, key=lambda puzzle: -len(puzzle.cells)) for source in sources]
        self.pools = Pools(puzzle for moulds in self.moulds for puzzle in moulds)
        counts = Counter(g for cells in self.pools.cells.values() for cell in cells for g in cell)
        self.common = sorted(counts, key=lambda gene: (-counts[gene], gene))[:_DRILL_GENES]

    def batch(self, step: int, stage: Stage) -> list[tuple[Puzzle | str, str]]:
        """Return what is asked in one step, and what is to be said.

        Puzzles come with a worked response, drills are plain text. All have one size, so that
        little of the batch is padding.
        """
        rng = np.random.default_rng([self.seed, step])
        n = int(rng.integers(*stage.cells, endpoint=True))
        genes = int(rng.integers(*stage.genes, endpoint=True))
        length = n * (2 * genes + 8) if stage.drill else n * (genes + _PER_CELL) + _PER_PUZZLE
        size = max(1, stage.batch_tokens // length)
        dice = [np.random.default_rng([self.seed, step, i]) for i in range(size)]
        if stage.drill:
            return [self._drill(rng, n, genes) for rng in dice]
        return [self._work(rng, stage, n, genes) for rng in dice]

    def _drill(self, rng: np.random.Generator, n: int, genes: int) -> tuple[str, str]:
        """List cells of any genes, then say in another order what each one lists.

        Without look-up no reasoning can be true, and it is learned soonest where nothing else
        helps: by chance any gene may stand anywhere.
        """
        cells = [[self.common[i] for i in rng.permutation(len(self.common))[: genes + 1]]
                 for _ in range(n)]  # fmt: skip
        asked = "\n".join(f"Cell {i}: {', '.join(cell)}" for i, cell in enumerate(cells, 1))
        said = []
        in_order = rng.random() < 0.5
        for i in rng.permutation(n):
            cited = cells[i][:-1] if in_order else [cells[i][k] for k in rng.permutation(genes)]
            said.append(f"Cell {i + 1}: {listed(cited)}")
        return asked + "\n\n", "\n".join(said) + "\n"

    def _work(
        self, rng: np.random.Generator, stage: Stage, n: int, genes: int
    ) -> tuple[Puzzle, str]:
        """Draw a puzzle and reason like the expert of its source towards the known answer."""
        able = [i for i, moulds in enumerate(self.moulds) if len(moulds[0].cells) >= n]
        source = int(rng.choice(able or len(self.moulds)))
        puzzle, expert = self._draw(rng, source, stage, n, genes), self.experts[source]
        gold = [puzzle.candidate_index[key] for key in puzzle.answer_keys or ()]
        if stage.order == "listed":
            reasoning = tell_listed(puzzle, gold, expert.evidence)
        elif stage.order == "drafted":
            seen = stray(expert.scores(puzzle), _ASTRAY, rng)
            reasoning = tell_drafted(puzzle, gold, seen, expert.evidence)
        else:
            scores = steer(expert.scores(puzzle), gold)
            reasoning = tell(puzzle, gold, scores, expert.evidence, rng)
        return puzzle, response_text(reasoning, puzzle.answer or ())

    def _draw(
        self, rng: np.random.Generator, source: int, stage: Stage, n: int, genes: int
    ) -> Puzzle:
        moulds = self.moulds[source]
        large = bisect_right(moulds, -n, key=lambda mould: -len(mould.cells))
        mould = moulds[int(rng.integers(large or len(moulds)))]
        answer = mould.answer or ()
        n = min(n, len(answer))
        types = [answer[i] for i in rng.permutation(len(answer))]
        chosen, others = types[:n], types[n : n + int(rng.integers(0, stage.distractors + 1))]
        candidates = [*chosen, *others]
        cells = []
        for label in chosen:
            if stage.blind:
                cells.append(self._any_genes(genes, rng))
                continue
            cell = self.pools.draw(mould, label, rng, PARENTS if stage.crossed else 1)
            if genes < len(cell):
                telling = self.experts[source].evidence(cell, label, None)
                cell = shorten(cell, telling[: round(genes * stage.telling)], genes, rng)
            cells.append(cell)
        order = rng.permutation(len(candidates))
        offered = tuple(candidates[i] for i in order)
        return replace(mould, cells=tuple(cells), candidates=offered, answer=tuple(chosen), meta={})

    def _any_genes(self, genes: int, rng: np.random.Generator) -> tuple[str, ...]:
        return tuple(self.common[i] for i in rng.permutation(len(self.common))[:genes])


def shorten(
    cell: tuple[str, ...], wanted: Sequence[str], genes: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """Keep some genes of a list in their order: those wanted, and others by chance."""
    rest = [gene for gene in cell if gene not in wanted]
    kept = {*wanted, *(rest[i] for i in rng.permutation(len(rest))[: genes - len(wanted)])}
    return tuple(gene for gene in cell if gene in kept)
