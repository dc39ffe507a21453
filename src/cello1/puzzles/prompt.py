"""The text of a puzzle: one layout for distillation, training and inference, and its parser.

The user message has the layout of the published CellPuzzles rows byte for byte, so that their rows
load here and ours load wherever theirs do. The system message is our own wording of the same
task; a row that comes with a ``system_msg`` keeps it (`meta["system_msg"]`).

A puzzle can have evidence in its prompt (:func:`with_evidence`): the user message is then followed
by an atlas's evidence for each cell. The row's own text is unchanged; only the chat is longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from sys import intern
from typing import Any, NamedTuple

from cello1.errors import PuzzleError, brief
from cello1.puzzles.puzzle import Puzzle, label_key

PROMPT_VERSION = "1"
# Version of the section with evidence; a prompt with it has the version "1+atlas-1".
EVIDENCE_VERSION = "1"
# A rule of thumb for prose; gene symbols can take twice as many tokens.
CHARACTERS_PER_TOKEN = 4

# How the tokenizer of `cello1 base` cuts text. A gene includes its comma and blank, so that it is
# the same token at any rank of any list.
PIECES = (
    r"(?:system|user|assistant)\n| (?=Cell \d)|Cell \d+|: |[^\s,|:]+, "
    r"| ?\||\n+|\d| ?[^\s,|:\d]+|\s|."
)

_CONTEXT = "Context: "
_QUESTION = "\n\nMatch the cells above to one of the following cell types:\n"
_FIRST_CELL = "\n\nCell 1: "
_CELL = re.compile(r"Cell ([1-9][0-9]*): (.*)")

EVIDENCE_HEADING = (
    "An atlas of public data says of each cell (types with their probability and the genes that "
    "speak for them; it can be wrong):"
)
# How the atlas knows a candidate without data on that very type.
KNOWN_HOW = {
    "relative": "It knows only by their relatives: ",
    "markers only": "It knows only by markers: ",
    "not at all": "It knows nothing of: ",
}
_CELLS, _KNOWN = "cell_evidence", "evidence_known"  # keys of `meta`

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
    """The content of a user message."""

    context: str
    cells: tuple[tuple[str, ...], ...]
    candidates: tuple[str, ...]


class Suggestion(NamedTuple):
    """A candidate that evidence names for a cell.

    Attributes
    ----------
    label
        The candidate.
    percent
        Its probability, in percent.
    genes
        Genes of the cell that support it, strongest first.
    """

    label: str
    percent: int
    genes: tuple[str, ...]


class Message(NamedTuple):
    """One turn of the chat."""

    role: str
    content: str


def user_message(puzzle: Puzzle) -> str:
    """Render the question in the published layout (arXiv 2506.02911, appendix)."""
    cells = "\n".join(f"Cell {i}: {', '.join(genes)}" for i, genes in enumerate(puzzle.cells, 1))
    return f"{_CONTEXT}{puzzle.context}\n\n{cells}{_QUESTION}" + "\n".join(puzzle.candidates)


def system_message(puzzle: Puzzle) -> str:
    """Return the row's own system message if it has one, else ours."""
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
    """Return the chat that every solver is asked and every model is trained on.

    Raises
    ------
    PuzzleError
        When the puzzle has evidence that does not fit it.
    """
    asked = user_message(puzzle) + evidence_section(puzzle)
    return [Message("system", system_message(puzzle)), Message("user", asked)]


def prompt_version(evidence: str | None = None) -> str:
    """Return the version of a prompt, including that of its evidence (``1+atlas-1``)."""
    return PROMPT_VERSION if evidence is None else f"{PROMPT_VERSION}+{evidence}-{EVIDENCE_VERSION}"


def with_evidence(
    puzzle: Puzzle,
    cells: Iterable[Sequence[Suggestion]],
    known: Mapping[str, Sequence[str]] | None = None,
) -> Puzzle:
    """Return a puzzle whose chat includes an atlas's evidence for each cell; its id is the same.

    Parameters
    ----------
    puzzle
        The puzzle.
    cells
        For every cell the suggested candidates, most probable first.
    known
        Candidates that the atlas has no data on: ``relative``, ``markers only`` or ``not at
        all`` -> labels. The prompt lists them.
    """
    told = [[[label, percent, list(genes)] for label, percent, genes in cell] for cell in cells]
    meta = {key: value for key, value in puzzle.meta.items() if key not in (_CELLS, _KNOWN)}
    meta[_CELLS] = told
    if known:
        meta[_KNOWN] = {how: list(labels) for how, labels in known.items()}
    return replace(puzzle, meta=meta)


def without_evidence(puzzle: Puzzle) -> Puzzle:
    """Return a puzzle without evidence; the same object if it has none."""
    if _CELLS not in puzzle.meta:
        return puzzle
    kept = {key: value for key, value in puzzle.meta.items() if key not in (_CELLS, _KNOWN)}
    return replace(puzzle, meta=kept)


def has_evidence(puzzle: Puzzle) -> bool:
    """Return whether a puzzle has evidence in its prompt."""
    return _CELLS in puzzle.meta


def evidence_section(puzzle: Puzzle) -> str:
    """Render the evidence that follows the question of a puzzle; '' for a puzzle without evidence.

    One line per cell, such as ``Cell 1: B cell 93 % (CD79A, MS4A1) | plasma cell 5 %``. Only
    candidates and genes of that cell are allowed, so that no other text can be injected.

    Raises
    ------
    PuzzleError
        When the evidence names other labels or genes, or does not cover every cell.
    """
    told = puzzle.meta.get(_CELLS)
    if told is None:
        return ""
    if not isinstance(told, list) or len(told) != len(puzzle.cells):
        raise PuzzleError(
            f"{_CELLS} of puzzle {puzzle.id} is {brief(told)}; expected a list for each of its "
            f"{len(puzzle.cells)} cells"
        )
    lines = [
        f"Cell {i}: {' | '.join(_suggestion(puzzle, i, item) for item in items) or 'nothing'}"
        for i, items in enumerate(told, 1)
    ]
    known = puzzle.meta.get(_KNOWN) or {}
    for how, said in KNOWN_HOW.items():
        if labels := known.get(how):
            for label in labels:
                _check_candidate(puzzle, label)
            lines.append(said + " | ".join(labels))
    return "\n\n" + "\n".join([EVIDENCE_HEADING, *lines])


def _suggestion(puzzle: Puzzle, number: int, item: Any) -> str:
    try:
        label, percent, genes = item
        percent, strangers = int(percent), set(genes) - set(puzzle.cells[number - 1])
    except (TypeError, ValueError):
        raise PuzzleError(
            f"evidence {brief(item)} of cell {number} of puzzle {puzzle.id}: expected a candidate, "
            "its percentage and a list of genes"
        ) from None
    _check_candidate(puzzle, label)
    if strangers:
        raise PuzzleError(
            f"evidence of cell {number} of puzzle {puzzle.id} names "
            f"{brief(min(map(str, strangers)))}, which is not in its list"
        )
    return f"{label} {percent} %" + (f" ({', '.join(genes)})" if genes else "")


def _check_candidate(puzzle: Puzzle, label: Any) -> None:
    if not isinstance(label, str) or label_key(label) not in puzzle.candidate_index:
        raise PuzzleError(f"evidence of puzzle {puzzle.id} names {brief(label)}, no candidate")


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
        # Interned: the same few thousand names stand in all lists of a file.
        cells.append(tuple(map(intern, match[2].split(", "))))
    return Question(head[len(_CONTEXT) : start], tuple(cells), tuple(tail.split("\n")))
