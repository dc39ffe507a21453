"""Puzzles to train on and puzzles to hold out: no donor is on both sides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_puzzles
from cello1.puzzles.table import read_puzzles


def input_files(named: Sequence[str], validation: str | None, what: str) -> list[Path]:
    """Return the files whose content a training depends on.

    Parameters
    ----------
    named, validation
        Files, or folders of `datasets`, to learn from and to validate on.
    what
        What they should hold, for the error.

    Raises
    ------
    InputError
        When one is missing.
    """
    wanted = [(name, "train") for name in named]
    wanted += [(validation, "validation")] if validation else []
    paths = []
    for name, split in wanted:
        try:
            paths.append(find_puzzles(name, split))
        except InputError as error:
            raise type(error)(f"{what}: {error}") from error
    return [f for p in paths for f in (sorted(p.glob("*.arrow")) if p.is_dir() else [p])]


def read_answered(path: str | Path, split: str = "train") -> list[Puzzle]:
    """Read the puzzles of a source that have an answer.

    Parameters
    ----------
    path
        A file, a folder, or a name on the hub, also as ``SOURCE:SPLIT``.
    split
        The split to read, where there are several and none is named.

    Raises
    ------
    InputError
        When there is none.
    """
    puzzles = [puzzle for puzzle in read_puzzles(path, split) if puzzle.answer is not None]
    if not puzzles:
        raise InputError(
            f"no puzzle of {path} has an answer, so no response could be rewarded or taught; "
            "expected puzzles with answers, such as a train split"
        )
    return puzzles


def donor_of(puzzle: Puzzle) -> str:
    """Return what must not be on both sides: the donor or, if it is unknown, the context.

    Puzzles of one donor share their context, so rows without donors (the published ones) are
    split by it.
    """
    donor = puzzle.meta.get("donor_id")
    return f"context {puzzle.context}" if donor is None else f"donor {donor}"


def donors_in(puzzles: Sequence[Puzzle]) -> list[str]:
    """Return the donors that are recorded, sorted."""
    return sorted({str(p.meta["donor_id"]) for p in puzzles if p.meta.get("donor_id") is not None})


def hold_out(
    puzzles: Sequence[Puzzle], share: float, seed: int, what: str = "puzzles"
) -> tuple[list[Puzzle], list[Puzzle]]:
    """Split puzzles by donor into those to learn from and those held out.

    Parameters
    ----------
    puzzles
        Puzzles or traces.
    share
        Of the donors, to hold out.
    seed
        For the choice.
    what
        What they are called in the error.

    Raises
    ------
    InputError
        When there is one donor only.
    """
    if share == 0:
        return list(puzzles), []
    donors = sorted({donor_of(puzzle) for puzzle in puzzles})
    if len(donors) < 2:
        raise InputError(
            f"all {what} are of one donor, so none can be held out; name a file in validation, or "
            "train without: held_out=0"
        )
    random.Random(seed).shuffle(donors)
    out = set(donors[: min(max(1, round(share * len(donors))), len(donors) - 1)])
    learn = [puzzle for puzzle in puzzles if donor_of(puzzle) not in out]
    return learn, [puzzle for puzzle in puzzles if donor_of(puzzle) in out]


def refuse_shared(learn: Sequence[Puzzle], held: Sequence[Puzzle], where: str) -> None:
    """Check that no donor and no puzzle is on both sides.

    Raises
    ------
    InputError
        When one is.
    """
    if both := set(donors_in(learn)) & set(donors_in(held)):
        raise InputError(
            f"{len(both)} donors of {where} are learned from as well (such as {min(both)}), so "
            "held-out accuracy would mean nothing; hold out other donors"
        )
    if {puzzle.id for puzzle in learn} & {puzzle.id for puzzle in held}:
        raise InputError(f"puzzles of {where} are learned from as well; hold out others")


def draw_some(puzzles: Sequence[Puzzle], most: int | None, seed: int) -> list[Puzzle]:
    """Draw puzzles, each once however many traces it has; the order is that of the ids."""
    unique = [p for _, p in sorted({p.id: p for p in puzzles if p.answer is not None}.items())]
    if most is None or len(unique) <= most:
        return unique
    return sorted(random.Random(seed).sample(unique, most), key=lambda p: p.id)
