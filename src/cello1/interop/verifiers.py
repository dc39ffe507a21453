"""Puzzles as a taskset of verifiers (v1): `vf-eval cello1.interop.verifiers`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import verifiers.v1 as vf

from cello1.interop.figures import answered, figures
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, row_from_puzzle


class CellPuzzlesConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which puzzles are asked.

    Attributes
    ----------
    puzzles
        A file of puzzles with answers.
    """

    puzzles: str = "test.parquet"


class PuzzleData(vf.TaskData):  # type: ignore[misc]
    """What goes over the wire: the chat, and the row that scores are made of."""

    row: dict[str, Any]


class PuzzleTask(vf.Task[PuzzleData]):  # type: ignore[misc]
    """One batch of cells."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def batch_accuracy(self, trace: vf.Trace) -> float:
        """Return 1 when every cell is right, else 0."""
        return self._figure("batch_accuracy", trace)

    @vf.metric  # type: ignore[untyped-decorator]
    async def cell_accuracy(self, trace: vf.Trace) -> float:
        """Return the share of right cells."""
        return self._figure("cell_accuracy", trace)

    @vf.metric  # type: ignore[untyped-decorator]
    async def format_validity(self, trace: vf.Trace) -> float:
        """Return 1 when the response is in the exact format, else 0."""
        return self._figure("format_validity", trace)

    @vf.metric  # type: ignore[untyped-decorator]
    async def uniqueness(self, trace: vf.Trace) -> float:
        """Return different labels / labels."""
        return self._figure("uniqueness", trace)

    def _figure(self, name: str, trace: vf.Trace) -> float:
        return figures(self.data.row, trace.last_reply or "")[name]


class CellPuzzles(vf.Taskset[PuzzleTask, CellPuzzlesConfig]):  # type: ignore[misc]
    """The puzzles of a file."""

    def load(self) -> Iterable[PuzzleTask]:
        """Yield a task for every puzzle."""
        for puzzle in answered(read_puzzles(Path(self.config.puzzles)), self.config.puzzles):
            yield PuzzleTask(_data(puzzle), self.config.task)


def _data(puzzle: Puzzle) -> PuzzleData:
    system, user = messages(puzzle)
    return PuzzleData(
        id=puzzle.id, prompt=user.content, system_prompt=system.content, row=row_from_puzzle(puzzle)
    )


__all__ = ["CellPuzzles"]
