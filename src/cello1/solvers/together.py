"""Combine the atlas and the embedded model.

Their errors differ: the atlas sums log-odds of single genes from public tables, the model has
learned to compare the cells of a batch. Their log-scores are added, those of the model with weight
1/4; the batch is then assigned jointly, and the reasons come from the atlas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cello1.atlas import Knowledge
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Floats
from cello1.solvers.classical.atlas import AtlasExpert
from cello1.solvers.local.likelihood import LikelihoodSolver

# The best of 0, 1/4, 1/2, 1 and 2 on 200 puzzles of validation donors (Kang 2018's 1039 and 107,
# two extracts, and Baron 2016, two): batches .54 .64 1.00 1.00, the atlas alone .44 .60 1.00 1.00.
MODEL_WEIGHT = 0.25


class Together:
    """An expert that adds the log-scores of a model to those of the atlas.

    Parameters
    ----------
    atlas, model
        The two experts.
    weight
        Weight of the model's log-scores.
    """

    name = "atlas+mini"

    def __init__(
        self, atlas: AtlasExpert, model: LikelihoodSolver, weight: float = MODEL_WEIGHT
    ) -> None:
        self.atlas, self.model, self.weight = atlas, model, weight
        self.settings: dict[str, Any] = {
            "atlas": atlas.settings,
            "model": model.settings,
            "model_weight": weight,
        }

    def knows(self, label: str) -> Knowledge:
        """Return how the atlas knows a candidate; the model rates any name."""
        return self.atlas.knows(label)

    def prepare(self, puzzles: Sequence[Puzzle]) -> None:
        """Score many puzzles with the atlas in one call."""
        self.atlas.prepare(puzzles)

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return the summed log-scores, centred over the cells, shape (N, M)."""
        model = self.model.scores(puzzle)
        scores: Floats = self.atlas.scores(puzzle) + self.weight * (model - model.mean(axis=0))
        return scores

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the listed genes that support a type by the atlas."""
        return self.atlas.evidence(genes, label, rival)
