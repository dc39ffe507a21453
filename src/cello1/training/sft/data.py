"""The data of a fine-tuning: traces read, donors held out, long ones dropped and counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import SftSettings
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.examples import Example, drop_long, hold_out, make_examples
from cello1.training.run.traces import answers_only, read_traces


@dataclass(frozen=True)
class SftData:
    """What is learned from and what is held out.

    Attributes
    ----------
    learn, held_out
        Tokenized traces; the loss is measured on those held out.
    solve
        Held-out puzzles that are solved at every evaluation.
    counts
        What became of the traces, for the log and the model card.
    """

    learn: list[Example]
    held_out: list[Example]
    solve: list[Puzzle]
    counts: dict[str, Any]


def read_sft_data(settings: SftSettings, prompter: Prompter, context: int) -> SftData:
    """Read and tokenize everything a fine-tuning needs.

    Parameters
    ----------
    settings
        Which files, and how they are split.
    prompter
        The tokenizer and chat template of the model.
    context
        Most tokens the model can take, whatever the settings say.

    Raises
    ------
    InputError
        When nothing is left to learn from, or a donor would be on both sides.
    """
    if not settings.traces:
        raise UseError("no traces are named; add traces=FILE, or sft.traces to the recipe")
    traces = [t for path in settings.traces for t in _read(path, settings.answers_only)]
    if not traces:
        raise InputError(f"there is no trace in {', '.join(settings.traces)}; nothing to learn")
    if settings.validation:
        learn, (shown, asked) = traces, _read_validation(settings)
        refuse_shared(learn, [*shown, *asked], settings.validation)
    else:
        learn, shown = hold_out(traces, settings.held_out, settings.seed)
        asked = shown
    limit = min(settings.max_length, context)
    kept, dropped = drop_long(make_examples(learn, prompter), limit)
    shown_kept, shown_dropped = drop_long(make_examples(shown, prompter), limit)
    if not kept:
        raise InputError(
            f"all {len(learn)} traces are longer than {limit} tokens; raise sft.max_length, or "
            "list fewer genes per cell"
        )
    solve = draw_some(asked, settings.solve, settings.seed)
    counts = {
        "traces": len(traces),
        "learned": len(kept),
        "dropped_too_long": dropped,
        "limit": limit,
        "held_out": len(shown_kept),
        "held_out_dropped_too_long": shown_dropped,
        "held_out_solved": len(solve),
        "hinted": sum(bool(t.meta.get("hint")) for t in traces),
        "tokens": sum(map(len, kept)),
        "response_tokens": sum(len(example.response) for example in kept),
        "longest": max(map(len, kept)),
        "donors": donors_in(learn),
        "held_out_donors": donors_in([*shown, *asked]),
    }
    return SftData(kept, shown_kept, solve, counts)


def input_files(settings: SftSettings) -> list[Path]:
    """Return the files whose content the run depends on."""
    named = [*settings.traces, *([settings.validation] if settings.validation else [])]
    paths = [Path(name) for name in named]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist; expected a file of traces")
    return [f for p in paths for f in (sorted(p.glob("*.arrow")) if p.is_dir() else [p])]


def _read(path: str, only_answers: bool) -> list[Puzzle]:
    return answers_only(read_puzzles(path)) if only_answers else read_traces(path)


def _read_validation(settings: SftSettings) -> tuple[list[Puzzle], list[Puzzle]]:
    """Return what has a trace to take the loss on, and what can be solved."""
    puzzles = read_puzzles(str(settings.validation))
    asked = [puzzle for puzzle in puzzles if puzzle.answer is not None]
    if not asked:
        raise InputError(f"no puzzle of {settings.validation} has an answer to validate on")
    if settings.answers_only:
        return answers_only(asked), asked
    return [puzzle for puzzle in asked if "assistant_msg" in puzzle.meta], asked


def refuse_shared(learn: Sequence[Puzzle], held: Sequence[Puzzle], where: str) -> None:
    """See that no donor and no puzzle is on both sides.

    Raises
    ------
    InputError
        When one is.
    """
    if both := set(donors_in(learn)) & set(donors_in(held)):
        raise InputError(
            f"{len(both)} donors of {where} are learned from as well (such as "
            f"{min(both)}); held-out accuracy would be worth nothing: hold out other donors"
        )
    if {puzzle.id for puzzle in learn} & {puzzle.id for puzzle in held}:
        raise InputError(f"puzzles of {where} are learned from as well; hold out others")


def donors_in(puzzles: Sequence[Puzzle]) -> list[str]:
    """Return the donors that are recorded, sorted."""
    return sorted({str(p.meta["donor_id"]) for p in puzzles if p.meta.get("donor_id") is not None})


def draw_some(puzzles: Sequence[Puzzle], most: int, seed: int) -> list[Puzzle]:
    """Draw puzzles, each once however many traces it has; the order is that of the ids."""
    unique = [p for _, p in sorted({p.id: p for p in puzzles if p.answer is not None}.items())]
    if len(unique) <= most:
        return unique
    return sorted(random.Random(seed).sample(unique, most), key=lambda p: p.id)
