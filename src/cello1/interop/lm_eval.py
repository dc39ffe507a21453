"""A task for the Language Model Evaluation Harness (lm-eval 0.4): a folder for `--include_path`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cello1.errors import InputError
from cello1.interop.figures import METRICS, answered, figures
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import row_from_puzzle
from cello1.runs import write_atomic

TASK = "cellpuzzles"
_UTILS = '''"""Scores of the task; cello1 must be installed beside lm-eval."""

from cello1.interop.lm_eval import {} as process_results

__all__ = ["process_results"]
'''


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the raw text of one response; lm-eval calls this for every row."""
    return figures(doc, results[0])


def process_opened_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the text of a model whose chat template ends in ``<think>``."""
    return figures(doc, results[0], opened=True)


def export_lm_eval(
    puzzles: Iterable[Puzzle], folder: Path, *, max_new_tokens: int = 3_500, opened: bool = False
) -> list[Path]:
    """Write the task: rows, settings and a link to the scorer.

    The chat is the system and user message of each row, so `--apply_chat_template` is needed. A
    model whose context is shorter than prompt and budget together needs a smaller budget: lm-eval
    silently truncates the prompt from the left.

    Parameters
    ----------
    puzzles
        Puzzles with answers.
    folder
        A new folder, or one that holds such a task.
    max_new_tokens
        Budget of a response.
    opened
        The model's chat template ends in ``<think>``, so that its texts start after it.

    Raises
    ------
    InputError
        When answers are missing, or the folder holds something else.
    """
    rows = [row_from_puzzle(puzzle) for puzzle in answered(puzzles, "lm-eval")]
    if folder.exists() and (not folder.is_dir() or _foreign(folder)):
        raise InputError(f"{folder} holds something else; choose another folder")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / "test.jsonl").resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "description": "{{system_msg}}",
        "doc_to_text": "{{user_msg}}",
        "doc_to_target": "{{assistant_msg}}",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS
        ],
        "metadata": {"version": 1.0},
    }
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    content = {
        f"{TASK}.yaml": text + "process_results: !function utils.process_results\n",
        "utils.py": _UTILS.format("process_opened_results" if opened else "process_results"),
        "test.jsonl": "".join(lines),
    }
    for name, written in content.items():
        write_atomic(folder / name, written.encode())
    return [folder / name for name in content]


def _foreign(folder: Path) -> bool:
    known = {f"{TASK}.yaml", "utils.py", "test.jsonl", "__pycache__"}
    return any(path.name not in known for path in folder.iterdir())
