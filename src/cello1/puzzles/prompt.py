"""The text of a puzzle: one layout for distillation, training and inference, and its way back.

The user message is the layout of the published CellPuzzles rows byte for byte, so that their
rows load here and ours load wherever theirs do. The system message is our own wording of the
same contract; a row that comes with a ``system_msg`` keeps it (`meta["system_msg"]`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cello1.errors import PuzzleError, brief
from cello1.puzzles.puzzle import Puzzle

PROMPT_VERSION = "1"
# A rule of thumb for prose; gene symbols can take twice the tokens it gives.
CHARACTERS_PER_TOKEN = 4

_CONTEXT = "Context: "
_QUESTION = "\n\nMatch the cells above to one of the following cell types:\n"
_FIRST_CELL = "\n\nCell 1: "
_CELL = re.compile(r"Cell ([1-9][0-9]*): (.*)")

_SYSTEM = (
    "You annotate cell types in single-cell RNA sequencing data. You are shown {n} cells of one "
    "donor, no two of the same type. Each cell is given by the genes it expresses most, highest "
    "expression first, and you are told what is known of the donor. {candidates} Weigh all cells "
    "and all types against each other before you decide; do not label cells one by one. Write "
    "your reasoning between <think> and </think>, then on the next line the result between "
    "<answer> and </answer>: the types of cell 1 to cell {n}, in that order, on one line, "
    "separated by ' | '."
)


class Question(NamedTuple):
    """What a user message says."""

    context: str
    cells: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]


class Message(NamedTuple):
    """One turn of the chat."""

    role: str
    content: str


def user_message(puzzle: Puzzle) -> str:
    """Render the question in the published layout (arXiv 2506.02911, appendix)."""
    cells = "\n".join(f"Cell {i}: {', '.join(genes)}" for i, genes in enumerate(puzzle.cells, 1))
    return f"{_CONTEXT}{puzzle.context}\n\n{cells}{_QUESTION}" + "\n".join(puzzle.candidates)


def system_message(puzzle: Puzzle) -> str:
    """Return the row's own system message if it came with one, else ours."""
    own = puzzle.meta.get("system_msg")
    if own is not None:
        return str(own)
    n, m = len(puzzle.cells), len(puzzle.candidates)
    if m == n:
        candidates = f"{m} types are on offer and each belongs to exactly one cell."
    else:
        candidates = (
            f"{m} types are on offer: every cell takes one, none is taken twice, "
            f"and {m - n} of them fit no cell."
        )
    return _SYSTEM.format(n=n, candidates=candidates)


def messages(puzzle: Puzzle) -> list[Message]:
    """Return the chat that every solver is asked and every model is trained on."""
    return [Message("system", system_message(puzzle)), Message("user", user_message(puzzle))]


def gold_message(answer: tuple[str, ...]) -> str:
    """Join labels as an answer block or an ``assistant_msg`` holds them."""
    return " | ".join(answer)


def response_text(reasoning: str, answer: tuple[str, ...]) -> str:
    """Write a response in the exact format: think block, one newline, answer block."""
    return f"<think>{reasoning}</think>\n<answer>{gold_message(answer)}</answer>"


def read_user_message(text: str) -> Question:
    """Read a user message back; the inverse of :func:`user_message`.

    Raises
    ------
    PuzzleError
        When the text is not in the published layout; the message names the first part missing.
    """
    if not text.startswith(_CONTEXT):
        raise PuzzleError(f"user message {brief(text)} does not start with {_CONTEXT!r}")
    head, question, tail = text.rpartition(_QUESTION)
    if not question:
        raise PuzzleError(f"user message lacks the line {_QUESTION.strip()!r}")
    start = head.find(_FIRST_CELL)
    if start < 0:
        raise PuzzleError("user message lacks a blank line followed by 'Cell 1: '")
    cells = []
    for number, line in enumerate(head[start + 2 :].split("\n"), start=1):
        match = _CELL.fullmatch(line)
        if match is None or int(match[1]) != number:
            raise PuzzleError(
                f"expected 'Cell {number}: ...' in the user message, not {brief(line)}"
            )
        cells.append(tuple(match[2].split(", ")))
    return Question(head[len(_CONTEXT) : start], tuple(cells), tuple(tail.split("\n")))
