"""Puzzles as a taskset of verifiers (v1): `vf-eval cello1-cellpuzzles`.

verifiers finds tasksets by a module name without dots, which is `cello1_cellpuzzles`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import verifiers.v1 as vf

from cello1.interop.figures import answered, figures
from cello1.puzzles.answer import assembled
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, row_from_puzzle


class CellPuzzlesConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Settings of the taskset.

    Attributes
    ----------
    puzzles
        A file of puzzles with answers.
    opened
        The model's chat template ends in ``<think>``, so that its texts start after it. Not needed
        for servers that send the reasoning in a separate field.
    """

    puzzles: str = "test.parquet"
    opened: bool = False


class PuzzleData(vf.TaskData):  # type: ignore[misc]
    """The data of a task: the chat, and the row to score with."""

    row: dict[str, Any]
    opened: bool = False


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
        """Return the share of distinct labels."""
        return self._figure("uniqueness", trace)

    def _figure(self, name: str, trace: vf.Trace) -> float:
        said = trace.assistant_messages
        thought = (said[-1].reasoning_content if said else None) or ""
        text = assembled(trace.last_reply, thought)
        return figures(self.data.row, text, opened=self.data.opened)[name]


class CellPuzzles(vf.Taskset[PuzzleTask, CellPuzzlesConfig]):  # type: ignore[misc]
    """The puzzles of a file."""

    def load(self) -> Iterable[PuzzleTask]:
        """Yield a task for every puzzle."""
        for puzzle in answered(read_puzzles(Path(self.config.puzzles)), self.config.puzzles):
            yield PuzzleTask(_data(puzzle, self.config.opened), self.config.task)


def _data(puzzle: Puzzle, opened: bool) -> PuzzleData:
    system, user = messages(puzzle)
    return PuzzleData(
        id=puzzle.id,
        prompt=user.content,
        system_prompt=system.content,
        row=row_from_puzzle(puzzle),
        opened=opened,
    )


class OneAnswer(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """A harness that asks once: no tools, no program, nothing to install."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Send the chat of one puzzle."""
        system, prompt = self.resolve_text_prompt(data)
        chat = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        async with httpx.AsyncClient(timeout=None) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions",
                json={"model": ctx.model, "messages": chat},
                headers={"Authorization": f"Bearer {secret}"},
            )
        failed = "" if answer.is_success else answer.text
        return vf.ProgramResult(exit_code=int(bool(failed)), stdout="", stderr=failed)


__all__ = ["CellPuzzles", "OneAnswer"]
