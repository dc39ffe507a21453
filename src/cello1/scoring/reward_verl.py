"""The rewards in the form that verl calls, on the rows that `training/rl/verl/verl.py` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cello1.errors import UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.reward import REWARDS
from cello1.scoring.score import score


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    *,
    reward: str = "batch",
    **_: Any,
) -> dict[str, float]:
    """Score one response.

    Parameters
    ----------
    data_source
        Unused; verl groups its metrics by it.
    solution_str
        What the model wrote. A response that was cut off has no closed answer and is invalid.
    ground_truth
        The types of the cells in their order, separated by `` | ``.
    extra_info
        Of the row: `candidates`, and `opened`, which says that the prompt ends in ``<think>``.
    reward
        ``batch`` or ``cell+batch``.

    Returns
    -------
    dict
        `score` is the reward; `acc`, the name that verl uses for validation, is whether the batch
        is right; the others are logged.

    Raises
    ------
    UseError
        When there is no such reward.
    """
    if reward not in REWARDS:
        raise UseError(f"there is no reward {reward!r}; expected one of {', '.join(REWARDS)}")
    answer = ground_truth.split(" | ")
    # Labels are scored; of the cells only their number counts.
    cells = (("gene",),) * len(answer)
    puzzle = Puzzle("", cells, tuple(map(str, extra_info["candidates"])), tuple(answer))
    opened = "<think>" if extra_info.get("opened") else ""
    scored = score(puzzle, opened + solution_str)
    return {
        "score": REWARDS[reward](scored),
        "acc": float(scored.exact),
        "cell_accuracy": scored.cell_accuracy,
        "format_validity": float(scored.format_valid),
        "uniqueness": scored.uniqueness,
    }
