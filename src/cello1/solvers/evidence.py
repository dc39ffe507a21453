"""Evidence in the prompt: the atlas's suggestions for each cell, for solvers that read text.

For every cell it gives the candidates that are likely by the atlas under one-to-one, with the genes
of the cell that support them, and the candidates that the atlas does not know. The wording is in
:mod:`cello1.puzzles.prompt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cello1.atlas import Knowledge
from cello1.puzzles.prompt import Suggestion, prompt_version, with_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.assign import probabilities
from cello1.solvers.classical.atlas import AtlasExpert

# Most candidates per cell, their smallest probability, and most genes for each: about 15 tokens per
# candidate, compared with some 250 for the cell itself.
NAMED, GENES, LEAST = 3, 3, 0.02
_MOST_PERCENT = 99  # no evidence is certain


class AtlasEvidence:
    """Adds the evidence of an atlas to puzzles.

    Parameters
    ----------
    expert
        The atlas; by default the embedded one.
    """

    def __init__(self, expert: AtlasExpert | None = None) -> None:
        self.expert = expert or AtlasExpert()
        self.settings: dict[str, Any] = {
            "evidence": {"from": "atlas", **self.expert.settings},
            "prompt": prompt_version("atlas"),
        }

    def __call__(self, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
        """Return the puzzles with evidence; ids, texts and answers are the same."""
        self.expert.prepare(puzzles)
        return [self._told(puzzle) for puzzle in puzzles]

    def knows(self, label: str) -> Knowledge:
        """Return how the atlas knows a candidate."""
        return self.expert.knows(label)

    def _told(self, puzzle: Puzzle) -> Puzzle:
        shares, _ = probabilities(self.expert.scores(puzzle))
        cells = []
        for genes, row in zip(puzzle.cells, shares.tolist(), strict=True):
            first, second = _best(row)[:2]
            told = []
            for j, percent in named(row):
                # Genes that separate it from the strongest other candidate, if there are any.
                label, rival = (puzzle.candidates[k] for k in (j, second if j == first else first))
                why = self.expert.evidence(genes, label, rival)
                why = why or self.expert.evidence(genes, label, None)
                told.append(Suggestion(label, percent, tuple(why[:GENES])))
            cells.append(told)
        known: dict[str, list[str]] = {}
        for label in puzzle.candidates:
            if (how := self.knows(label).how) != "source":
                known.setdefault(how, []).append(label)
        return with_evidence(puzzle, cells, known)


def named(shares: Sequence[float]) -> list[tuple[int, int]]:
    """Choose the candidates that the evidence for a cell names, most probable first.

    Parameters
    ----------
    shares
        Probability of every candidate.

    Returns
    -------
    list
        Positions of at most `NAMED` candidates and their percentages.
    """
    best = _best(shares)
    likely = [j for j in best if shares[j] >= LEAST] or best[:1]
    return [(j, min(round(100 * shares[j]), _MOST_PERCENT)) for j in likely[:NAMED]]


def _best(shares: Sequence[float]) -> list[int]:
    return sorted(range(len(shares)), key=lambda j: (-shares[j], j))
