"""The two rewards of the paper (arXiv 2506.02911), as floats.

``batch`` is the paper's main reward. ``cell_batch`` is its ablation D and the default of the
published code: denser, and in the paper no better on the test set. Any function of a
:class:`cello1.scoring.score.Score` can be a third.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace

from cello1.errors import UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.score import Score


def batch(score: Score) -> float:
    """Return -1 for an invalid format, 1 when every cell is right, else 0."""
    return score.reward


def cell_batch(score: Score) -> float:
    """Return the mean of cell accuracy and exactness, in [0, 1].

    An invalid format, a wrong number of labels (an empty slot included) or a repeated label
    gives -1.
    """
    if not score.format_valid or not score.complete or score.uniqueness < 1.0:
        return -1.0
    return (score.cell_accuracy + score.exact) / 2


Reward = Callable[[Score], float]
REWARDS: dict[str, Reward] = {"batch": batch, "cell+batch": cell_batch}


def reward_of(name: str) -> Reward:
    """Return the reward of a name: ``batch``, ``cell+batch``, or ``package.module.function``.

    Raises
    ------
    UseError
        When there is no such function, or its value for a score is not finite.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UseError(
            f"there is no reward {name!r} ({error}); expected {', '.join(REWARDS)}, or the dotted "
            "path of a function that takes a cello1 Score and returns a float"
        ) from error
    for probe in (_INVALID, replace(_INVALID, format_valid=True, complete=True, uniqueness=1.0)):
        try:
            worth = float(found(probe))
        except Exception as error:
            raise UseError(f"reward {name!r} fails on a score: {error}") from error
        if not math.isfinite(worth):
            raise UseError(f"reward {name!r} gives {worth} for a score; expected a finite number")
    return found  # type: ignore[no-any-return]


def cut_off(puzzle: Puzzle) -> Score:
    """Return the score of a response that was cut off at its budget: invalid in any case."""
    return replace(_INVALID, right=(False,) * len(puzzle.cells))


_INVALID = Score(False, 0.0, False, 0.0, False, "cut off before its end", ())
