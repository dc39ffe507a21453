"""The puzzles of reinforcement learning: read, split by donor, long prompts left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import has_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import PpoSettings, RlSettings, VerlSettings
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.simulated import simulated_puzzles
from cello1.training.run.data import (
    donors_in,
    draw_some,
    hold_out,
    input_files,
    read_answered,
    refuse_shared,
)


@dataclass(frozen=True)
class RlData:
    """What is trained on and what is held out.

    Attributes
    ----------
    practise
        Puzzles to respond to, all with answers.
    held_out
        Puzzles of other donors, solved at every evaluation.
    counts
        Numbers of puzzles used and dropped, for the log and the model card.
    """

    practise: list[Puzzle]
    held_out: list[Puzzle]
    counts: dict[str, Any]


Settings = RlSettings | PpoSettings | VerlSettings


def rl_files(settings: Settings) -> list[Path]:
    """Return the files whose content the run depends on.

    Raises
    ------
    InputError
        When one is missing.
    """
    if not (settings.puzzles or settings.sources):
        raise UseError(
            "no puzzles are named; add puzzles=FILE, or sources=FILE to simulate them, or name "
            "them in the recipe"
        )
    low, high = settings.cells
    if not 2 <= low <= high:
        raise UseError(f"cells are {low} to {high}; expected 2 or more, and the smaller first")
    files = input_files(settings.puzzles, settings.validation, "puzzles")
    if settings.sources:
        path = Path(settings.sources)
        if not path.is_file():
            raise InputError(f"sources: there is no file {path}; expected sources.npz of a base")
        files.append(path)
    return files


def read_rl_data(settings: Settings, prompter: Prompter, context: int, budget: int) -> RlData:
    """Read everything that reinforcement learning needs.

    Parameters
    ----------
    settings
        Which files, and how they are split.
    prompter
        The tokenizer and chat template of the model.
    context
        Context length of the model, in tokens.
    budget
        Maximum tokens of a response: prompt and response must fit the context.

    Raises
    ------
    InputError
        When nothing is left to train on, or a donor would be on both sides.
    """
    read = [puzzle for path in settings.puzzles for puzzle in read_answered(path)]
    read += simulated_puzzles(settings)
    puzzles = list({puzzle.id: puzzle for puzzle in read}.values())
    if settings.validation:
        practise, asked = puzzles, read_answered(settings.validation, "validation")
        refuse_shared(practise, asked, settings.validation)
    else:
        practise, asked = hold_out(puzzles, settings.held_out, settings.seed)
    limit = min(settings.max_prompt, context - budget)
    kept = [puzzle for puzzle in practise if len(prompter.prompt(puzzle)[0]) <= limit]
    if not kept:
        raise InputError(
            f"the prompts of all {len(practise)} puzzles are longer than {limit} tokens "
            f"(max_prompt {settings.max_prompt}; the model's context {context} less "
            f"{budget} for the response); list fewer genes per cell, or allow more"
        )
    held = draw_some(asked, settings.solve, settings.seed)
    counts = {
        "puzzles": len(puzzles),
        "practised": len(kept),
        "dropped_too_long": len(practise) - len(kept),
        "limit": limit,
        "held_out_solved": len(held),
        "with_evidence": sum(map(has_evidence, kept)),
        "sizes": sorted({len(puzzle.cells) for puzzle in kept}),
        "simulated": sum(bool(puzzle.meta.get("synthetic")) for puzzle in kept),
        "donors": donors_in([p for p in practise if not p.meta.get("synthetic")]),
        "held_out_donors": donors_in(asked),
    }
    return RlData(kept, held, counts)
