"""A page for blind comparison of two responses, and counting of the raters' choices.

The page is one HTML file that opens from disk and makes no request; it does not know which run a
response is from. The key does, and is withheld from the raters. A rater exports choices as JSON,
which the key turns into a preference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cello1.behaviour.preference import LOSS, TIE, WIN, Preference, rated_preference
from cello1.errors import InputError
from cello1.pages.templating import page_of
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import write_atomic, write_json

PAGE, KEY = "page.html", "key.json"
_VALUES = {"left": WIN, "tie": TIE, "right": LOSS}


def common_puzzles(
    puzzles: Sequence[Puzzle], *runs: Mapping[str, str], most: int | None, seed: int = 0
) -> list[Puzzle]:
    """Return the puzzles that all runs answered, or a random sample of at most `most`.

    Raises
    ------
    InputError
        When there are none.
    """
    shared = [p for p in puzzles if all(p.id in texts for texts in runs)]
    if not shared:
        raise InputError("the two runs answered no puzzle in common; solve the same file with both")
    drawn = sorted(shared, key=lambda p: _hash(seed, p.id))[:most]
    kept = {p.id for p in drawn}
    return [p for p in shared if p.id in kept]


def write_page(
    out: Path,
    puzzles: Sequence[Puzzle],
    runs: Mapping[str, Mapping[str, str]],
    *,
    seed: int = 0,
) -> Path:
    """Write the page for raters and, beside it, the key.

    Parameters
    ----------
    out
        Folder of ``page.html`` and ``key.json``.
    puzzles
        The puzzles to show, in random order.
    runs
        Name -> (puzzle id -> response), two of them; which one is on the left is drawn for every
        puzzle.
    seed
        Seed of these choices.

    Raises
    ------
    InputError
        When the folder holds the key of another page, whose choices could then not be read.
    """
    first, second = runs
    items, sides = [], []
    for number, puzzle in enumerate(sorted(puzzles, key=lambda p: _hash(seed, "order", p.id))):
        texts = [runs[first][puzzle.id], runs[second][puzzle.id]]
        left = int(_hash(seed, "side", puzzle.id), 16) % 2
        sides.append({"item": number, "puzzle": puzzle.id, "left": left})
        items.append(
            {
                "context": puzzle.context,
                "cells": puzzle.cells,
                "candidates": puzzle.candidates,
                "left": _shown(texts[left]),
                "right": _shown(texts[1 - left]),
            }
        )
    page = _hash(json.dumps(items))
    key = {"page": page, "runs": [first, second], "items": sides, "seed": seed}
    if (out / KEY).exists() and _read(out / KEY) != key:
        raise InputError(f"{out} holds the key of another page; choose another --out")
    write_json(out / KEY, key)
    # Inside a script element only '<' could end it or open a comment.
    data = Markup(json.dumps({"page": page, "items": items}).replace("<", "\\u003c"))
    write_atomic(out / PAGE, page_of("rate", data=data).encode())
    return out / PAGE


def count_choices(
    out: Path, puzzles: Sequence[Puzzle], choices: Sequence[Path], *, seed: int = 0
) -> tuple[list[str], Preference]:
    """Count what raters exported, with the key of their page.

    Returns
    -------
    runs, preference
        The names of the two runs, and how the first one compares.

    Raises
    ------
    InputError
        When a file is not an export of this page.
    """
    key = _read(out / KEY)
    sides = {int(item["item"]): item for item in key["items"]}
    wanted = {item["puzzle"] for item in key["items"]}
    given: list[dict[str, float]] = []
    shown: list[float] = []
    for path in choices:
        export = _read(path)
        if export.get("page") != key["page"] or not isinstance(export.get("choices"), dict):
            raise InputError(
                f"{path} is not an export of {out / PAGE}; its choices do not belong to this page"
            )
        rater = {}
        for number, choice in export["choices"].items():
            if choice not in _VALUES or not number.isdigit() or int(number) not in sides:
                raise InputError(f"{path}: item {number!r} has the choice {choice!r}")
            side, value = sides[int(number)], _VALUES[choice]
            shown.append(value)
            rater[side["puzzle"]] = value if side["left"] == 0 else 1 - value
        given.append(rater)
    on_page = [p for p in puzzles if p.id in wanted]
    return list(key["runs"]), rated_preference(on_page, given, shown, seed=seed)


def _shown(text: str) -> dict[str, Any]:
    """Split a response for the page; one in another format is shown as is."""
    answer = parse_response(text)
    if isinstance(answer, Answer):
        return {"reasoning": answer.reasoning.strip(), "answer": answer.labels}
    return {"reasoning": text, "answer": []}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected JSON") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} does not hold a JSON object; expected an export of the rating page"
        )
    return content


def _hash(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]
