"""The puzzles to reinforce on: donors held out, long prompts dropped and counted, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes_training import PpoSettings, VerlSettings
from cello1.training.examples import Student, hold_out
from cello1.training.sft_data import refuse_shared, some_puzzles


@dataclass(frozen=True)
class PpoData:
    """What is learned from, what is solved at every validation, and what became of the rest."""

    learn: list[Puzzle]
    solve: list[Puzzle]
    counts: dict[str, Any]


def read_ppo_data(settings: PpoSettings | VerlSettings, student: Student) -> PpoData:
    """Read puzzles, hold donors out, and drop, with a count, prompts that are too long.

    Raises
    ------
    InputError
        When nothing is left to learn from, or a donor would be on both sides.
    """
    if not settings.puzzles:
        raise UseError("no puzzles are named; add puzzles=FILE, or name them in the recipe")
    asked = _with_answers(settings.puzzles)
    if settings.validation:
        learn, held = asked, _with_answers([settings.validation])
        refuse_shared(learn, held, settings.validation, "training puzzles")
    else:
        learn, held = hold_out(asked, settings.held_out, settings.seed)
    room = min(settings.max_prompt, student.context - 1)
    short = [puzzle for puzzle in learn if len(student.prompt(puzzle)[0]) <= room]
    if not short:
        raise InputError(
            f"the prompts of all {len(learn)} puzzles are longer than {room} tokens; raise "
            "max_prompt, or list fewer genes per cell"
        )
    solve = some_puzzles(held, settings.solve, settings.seed)
    counts = {
        "puzzles": len(asked),
        "learned": len(short),
        "dropped_too_long": len(learn) - len(short),
        "limit": room,
        "held_out": len(held),
        "held_out_solved": len(solve),
    }
    return PpoData(short, solve, counts)


def input_files(settings: PpoSettings | VerlSettings) -> list[Path]:
    """Return the files whose content the run depends on."""
    named = [*settings.puzzles, *([settings.validation] if settings.validation else [])]
    for path in map(Path, named):
        if not path.is_file():
            raise InputError(f"{path} does not exist; expected a file of puzzles")
    return [Path(name) for name in named]


def _with_answers(files: Sequence[str]) -> list[Puzzle]:
    read = [p for name in files for p in read_puzzles(name) if p.answer is not None]
    if not read:
        raise InputError(f"no puzzle of {', '.join(files)} has an answer to be scored against")
    return list({puzzle.id: puzzle for puzzle in read}.values())


def batch_of(puzzles: Sequence[Puzzle], step: int, settings: PpoSettings) -> list[Puzzle]:
    """Return the puzzles of one step; they depend on the seed and the step alone."""
    size = min(settings.batch, len(puzzles))
    epoch, place = divmod(step, len(puzzles) // size)
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(puzzles))
    return [puzzles[i] for i in order[place * size : (place + 1) * size]]
