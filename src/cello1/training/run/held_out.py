"""Held-out puzzles, solved as by `cello1 solve`, decide which checkpoint is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import evaluate
from cello1.solvers.base import Failure, Response
from cello1.solvers.local.language import LanguageModel, LanguageSolver

# Id of the puzzle, text, number of tokens.
Answered = tuple[str, str, int]
SELECTION_SCORE = "eval_selection_score"
# Batch accuracy decides; cell accuracy settles ties, the loss settles what is left.
_CELL_WEIGHT, _LOSS_WEIGHT = 1e-4, 1e-8


def solve_greedily(
    language: LanguageModel,
    puzzles: Sequence[Puzzle],
    max_new_tokens: int,
    watch: Callable[[float], None],
) -> list[Answered]:
    """Return the answers of a model; puzzles it fails on are left out.

    Parameters
    ----------
    language
        The model.
    puzzles
        What it is asked.
    max_new_tokens
        Budget of a response.
    watch
        Called with the share that is done.
    """
    found: dict[str, Response | Failure] = {}

    def on_done(puzzle_id: str, result: Response | Failure) -> None:
        found[puzzle_id] = result
        watch(len(found) / len(puzzles))

    LanguageSolver(language, max_new_tokens=max_new_tokens).solve(puzzles, on_done)
    return [
        (puzzle_id, result.text, result.completion_tokens or 0)
        for puzzle_id, result in sorted(found.items())
        if isinstance(result, Response)
    ]


def held_out_figures(puzzles: Sequence[Puzzle], answered: Sequence[Answered]) -> dict[str, float]:
    """Evaluate answers to held-out puzzles, by the names that logs and cards use."""
    texts, tokens = {i: text for i, text, _ in answered}, {i: n for i, _, n in answered}
    overall = evaluate(puzzles, texts, tokens=tokens).overall
    return {
        "eval_batch_accuracy": overall.batch_accuracy.estimate,
        "eval_cell_accuracy": overall.cell_accuracy.estimate,
        "eval_format_validity": overall.format_validity.estimate,
        "eval_uniqueness": overall.uniqueness.estimate,
        "eval_response_tokens": overall.length,
        "eval_solved": float(overall.n),
    }


def selection_score(measured: Mapping[str, float]) -> float:
    """Return the figure by which evaluations are compared; higher is better."""
    loss = measured.get("eval_loss", 0.0)
    return (
        measured.get("eval_batch_accuracy", 0.0)
        + _CELL_WEIGHT * measured.get("eval_cell_accuracy", 0.0)
        - _LOSS_WEIGHT * (loss if math.isfinite(loss) else 1e9)
    )


def out_of_patience(history: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Return whether the last `patience` evaluations brought no improvement."""
    scores = [entry[SELECTION_SCORE] for entry in history if SELECTION_SCORE in entry]
    if patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= patience
