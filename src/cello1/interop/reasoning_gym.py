"""Puzzles as a data set of reasoning-gym; registered under `cellpuzzles` when this is imported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS, register_dataset

from cello1.interop.figures import answered, figures
from cello1.puzzles.prompt import gold_message, system_message, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, row_from_puzzle

NAME = "cellpuzzles"


@dataclass
class CellPuzzlesConfig:
    """Settings of the data set.

    Attributes
    ----------
    puzzles
        A file of puzzles with answers.
    permute
        Shuffle the cells of a puzzle for every item.
    opened
        The model's chat template ends in ``<think>``, so that its answers start after it.
    seed, size
        Item i is puzzle ``seed + i``, modulo the number of puzzles.
    """

    puzzles: str = "test.parquet"
    permute: bool = False
    opened: bool = False
    seed: int = 0
    size: int = 500

    def validate(self) -> None:
        """Check that the size is positive."""
        assert self.size > 0, "size must be positive"


class CellPuzzles(ProceduralDataset):  # type: ignore[misc]
    """Batches of cells to be matched with their types."""

    def __init__(self, config: CellPuzzlesConfig) -> None:
        super().__init__(config=config, seed=config.seed, size=config.size)

    @cached_property
    def puzzles(self) -> list[Puzzle]:
        """The puzzles of the file."""
        return answered(read_puzzles(Path(self.config.puzzles)), self.config.puzzles)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return one item: question, answer, and the row to score with."""
        puzzle = self.puzzles[(self.seed + idx) % len(self.puzzles)]
        if self.config.permute:
            order = list(range(len(puzzle.cells)))
            Random(self.seed + idx).shuffle(order)
            puzzle = puzzle.permute_cells(order)
        assert puzzle.answer is not None
        return {
            "question": f"{system_message(puzzle)}\n\n{user_message(puzzle)}",
            "answer": gold_message(puzzle.answer),
            "metadata": {
                "source_dataset": NAME,
                "source_index": idx,
                "difficulty": {"cells": len(puzzle.cells)},
                "row": row_from_puzzle(puzzle),
            },
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """Return 1 when every cell is right, else 0; the answer is the full response."""
        return self.figures(answer, entry)["batch_accuracy"]

    def figures(self, answer: str | None, entry: dict[str, Any]) -> dict[str, float]:
        """Return all metrics of `cello1 eval` for one answer."""
        return figures(entry["metadata"]["row"], answer or "", opened=self.config.opened)


if NAME not in DATASETS:
    register_dataset(NAME, CellPuzzles, CellPuzzlesConfig)
