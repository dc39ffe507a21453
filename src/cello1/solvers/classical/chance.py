"""Chance: the baseline of every result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Floats


class Chance:
    """Random scores, seeded by (seed, puzzle id), so that answers are reproducible."""

    name = "chance"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.settings: dict[str, Any] = {"seed": seed}

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return independent Gumbel noise: its joint and its single argmax are uniform."""
        rng = np.random.default_rng([self.seed, int(puzzle.id, 16)])
        return rng.gumbel(size=(len(puzzle.cells), len(puzzle.candidates)))

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return nothing: chance has no reasons."""
        return []
