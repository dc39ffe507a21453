"""Evidence in the prompt: what the atlas says of each cell, for solvers that read text.

For every cell the candidates that the atlas holds likely under one-to-one, with the genes of the
cell behind them, and which candidates it does not know. The words are those of
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

# So many candidates a cell, if they are at least so likely, and so many genes each: about 15
# tokens a candidate where the cell itself takes some 250.
NAMED, GENES, LEAST = 3, 3, 0.02
_MOST_PERCENT = 99  # no evidence is certain


class AtlasEvidence:
    """Tells puzzles with what an atlas says of them.

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
        """Say how the atlas knows a candidate."""
        return self.expert.knows(label)

    def _told(self, puzzle: Puzzle) -> Puzzle:
        shares, _ = probabilities(self.expert.scores(puzzle))
        cells = []
        for genes, row in zip(puzzle.cells, shares.tolist(), strict=True):
            best = sorted(range(len(row)), key=lambda j: (-row[j], j))[:NAMED]
            named = []
            for place, j in enumerate(best):
                if place and row[j] < LEAST:
                    break
                # What tells it from the strongest other one, if anything does.
                label, rival = (puzzle.candidates[k] for k in (j, best[0 if place else 1]))
                why = self.expert.evidence(genes, label, rival)
                why = why or self.expert.evidence(genes, label, None)
                percent = min(round(100 * row[j]), _MOST_PERCENT)
                named.append(Suggestion(label, percent, tuple(why[:GENES])))
            cells.append(named)
        known: dict[str, list[str]] = {}
        for label in puzzle.candidates:
            if (how := self.knows(label).how) != "source":
                known.setdefault(how, []).append(label)
        return with_evidence(puzzle, cells, known)
