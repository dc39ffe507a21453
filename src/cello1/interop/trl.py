"""Rewards for TRL's own command line: `trl grpo --reward_funcs cello1.interop.trl.batch`.

The data are rows as `cello1 export trl` writes them: `prompt` as a list of messages, and the
columns that the puzzle is read back from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cello1.interop.figures import answered
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import puzzle_from_row, row_from_puzzle
from cello1.runs import write_atomic
from cello1.scoring import reward
from cello1.scoring.score import Score, score

COLUMNS = ("system_msg", "user_msg", "assistant_msg")


def trl_row(puzzle: Puzzle) -> dict[str, Any]:
    """Return a puzzle as a row that TRL's trainers read."""
    row = row_from_puzzle(puzzle)
    prompt = [message._asdict() for message in messages(puzzle)]
    return {"prompt": prompt, **{name: row[name] for name in COLUMNS}}


def export_trl(puzzles: Iterable[Puzzle], path: Path) -> None:
    """Write rows as JSON Lines, for `trl grpo --dataset_name json` and similar programs."""
    lines = [json.dumps(trl_row(p), ensure_ascii=False) + "\n" for p in answered(puzzles, path)]
    write_atomic(path, "".join(lines).encode())


def batch(completions: Sequence[Any], **columns: Sequence[Any]) -> list[float]:
    """Return the paper's main reward of every completion."""
    return _rewards(reward.batch, completions, columns)


def cell_batch(completions: Sequence[Any], **columns: Sequence[Any]) -> list[float]:
    """Return the reward of the paper's ablation D of every completion."""
    return _rewards(reward.cell_batch, completions, columns)


def _rewards(
    worth: Callable[[Score], float], completions: Sequence[Any], columns: Mapping[str, Any]
) -> list[float]:
    rows = ({name: columns[name][i] for name in COLUMNS} for i in range(len(completions)))
    return [
        worth(score(puzzle_from_row(row), _text(completion)))
        for row, completion in zip(rows, completions, strict=True)
    ]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])
