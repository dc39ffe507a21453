"""The metrics of `cello1 eval` for one row, as evaluation harnesses need them.

A harness stores puzzles as rows (:mod:`cello1.puzzles.table`). The puzzle is read back from the row
and scored by the same scorer, so that the mean over rows is the figure that `cello1 eval` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import puzzle_from_row
from cello1.scoring.score import Score, score

METRICS = ("cell_accuracy", "batch_accuracy", "format_validity", "uniqueness")


def figures(row: Mapping[str, Any], text: str, *, opened: bool = False) -> dict[str, float]:
    """Return the metrics of one response, each in [0, 1]; their means are those of a run.

    Parameters
    ----------
    row
        A puzzle as a row with its answer, as `cello1 export` writes it.
    text
        The whole response.
    opened
        The model's chat template ends in ``<think>``, so that the text starts after it.
    """
    missing = opened and "<think>" not in text
    return as_figures(score(puzzle_from_row(row), "<think>" + text if missing else text))


def as_figures(scored: Score) -> dict[str, float]:
    """Return the metrics of a score under the names of `cello1 eval`."""
    values = (scored.cell_accuracy, scored.exact, scored.format_valid, scored.uniqueness)
    return dict(zip(METRICS, map(float, values), strict=True))


def answered(puzzles: Iterable[Puzzle], where: object) -> list[Puzzle]:
    """Return puzzles with answers, so that responses can be scored.

    Raises
    ------
    InputError
        When there is none, or some have no answer.
    """
    every = list(puzzles)
    unknown = sum(puzzle.answer is None for puzzle in every)
    if unknown or not every:
        found = f"{unknown} of {len(every)} puzzles have no answer" if every else "no puzzle"
        raise InputError(f"{where}: {found}; expected puzzles whose answers are known")
    return every
