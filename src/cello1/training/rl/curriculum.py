"""From small batches to whole ones, by pass rate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import Curriculum
from cello1.runs import write_json

FILE = "curriculum.json"
_NEW = 0.3  # weight of the latest batch in the pass rate


class Course:
    """How many cells a puzzle may have now, and whether it is time for one more.

    Parameters
    ----------
    settings
        Where to start and what share of right batches adds a cell.
    most
        Cells of the largest puzzle.

    Attributes
    ----------
    cells
        The size of the day.
    pass_rate
        Share of right responses to puzzles of that size; recent batches count most. It starts
        from zero at every size, so that one lucky batch does not end it.
    """

    def __init__(self, settings: Curriculum, most: int) -> None:
        self.wanted, self.most = settings.pass_rate, most
        self.cells, self.pass_rate = min(settings.start, most), 0.0

    def cut(self, puzzle: Puzzle, rng: np.random.Generator) -> Puzzle:
        """Return a puzzle of at most the size of the day: some cells, and their types on offer."""
        n = len(puzzle.cells)
        if n <= self.cells:
            return puzzle
        return take_cells(puzzle, sorted(rng.permutation(n)[: self.cells].tolist()))

    def learn(self, right: int, asked: int) -> None:
        """Take the results of a batch at the size of the day; perhaps move on."""
        if not asked or self.cells >= self.most:
            return
        self.pass_rate += _NEW * (right / asked - self.pass_rate)
        if self.pass_rate >= self.wanted:
            self.cells, self.pass_rate = self.cells + 1, 0.0

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint."""
        write_json(folder / FILE, {"cells": self.cells, "pass_rate": self.pass_rate})

    def load(self, folder: Path) -> None:
        """Read the state of a checkpoint."""
        state = json.loads((folder / FILE).read_text("utf-8"))
        self.cells, self.pass_rate = state["cells"], state["pass_rate"]


def take_cells(puzzle: Puzzle, kept: Sequence[int]) -> Puzzle:
    """Return the puzzle of some of the cells; types of the others are no longer on offer."""
    answer = puzzle.answer or ()
    gone = {puzzle.candidate_index[key] for key in puzzle.answer_keys or ()}
    gone -= {puzzle.candidate_index[(puzzle.answer_keys or ())[i]] for i in kept}
    return replace(
        puzzle,
        cells=tuple(puzzle.cells[i] for i in kept),
        candidates=tuple(c for j, c in enumerate(puzzle.candidates) if j not in gone),
        answer=tuple(answer[i] for i in kept),
        # What speaks of single cells, or of how many there are, would no longer be true.
        meta={
            key: value
            for key, value in puzzle.meta.items()
            if not key.startswith("cell_") and key not in ("assistant_msg", "system_msg")
        },
    )
