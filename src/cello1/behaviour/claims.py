"""What a reasoning claims: which cell it gives which type, in order, and how firmly.

Everything that is measured of a reasoning rests on this reading. It goes sentence by sentence: a
type belongs to the cell it is tied to ("plasma cell -> Cell 4"), else to the cell named before it
in the sentence, else to the cell that was spoken of last. Rejected types ("not a T cell", "rather
than") are passed over; possible ones ("could be", "A or B", "?") are weak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from cello1.behaviour.cues import (
    ABBREVIATED,
    ASIDE,
    FITS_BETTER,
    GENERAL_AFTER,
    GENERAL_BEFORE,
    IN_ORDER,
    NO_MORE_THAN_NAMED,
    NUMBER_TIED,
    NUMBERED,
    OFFERED,
    OR,
    POSSIBLE,
    REJECTED,
    SENTENCE,
    SWAP,
    TAKES_IT,
    TIED,
    TO_IT,
)
from cello1.behaviour.names import Mention, Names, find_cells, plain
from cello1.puzzles.puzzle import Puzzle

COMMITTED, WEAK = 2, 1


@dataclass(frozen=True, slots=True)
class Claim:
    """A cell is given a type.

    Attributes
    ----------
    cell, label
        Number of the cell, from 1, and position of the candidate.
    strength
        ``COMMITTED`` when it is settled or likely, ``WEAK`` when it is only possible.
    sentence
        Number of the sentence it stands in.
    """

    cell: int
    label: int
    strength: int
    sentence: int


@dataclass
class Sentence:
    """One sentence with what it names.

    Attributes
    ----------
    text
        Without markup.
    line
        Number of its line.
    start
        Where it begins in the plain text.
    cells, labels
        What is named, in order of appearance.
    focus
        The cell spoken of when the sentence begins and none is named yet, or None.
    """

    text: str
    line: int
    start: int
    cells: list[Mention]
    labels: list[Mention]
    focus: int | None = None
    claims: list[Claim] = field(default_factory=list)

    @property
    def about(self) -> set[int]:
        """The cells a sentence speaks of: those it names, else the one spoken of before."""
        named = {cell for mention in self.cells for cell in mention.cells}
        return named or ({self.focus} if self.focus else set())


def read_claims(puzzle: Puzzle, reasoning: str) -> list[Sentence]:
    """Read a reasoning: its sentences, each with the claims it makes."""
    return _Reader(puzzle).read(plain(reasoning))


class _Reader:
    """Walks through the sentences of one reasoning, knowing who was spoken of last."""

    def __init__(self, puzzle: Puzzle) -> None:
        self.n = len(puzzle.cells)
        self.names = Names(puzzle)
        self.focus: int | None = None
        self.pending: int | None = None  # a type named as a heading, whose cell is to come
        self.last: dict[int, int] = {}

    def read(self, text: str) -> list[Sentence]:
        sentences: list[Sentence] = []
        offered = False
        for number, (start, line) in enumerate(_lines(text)):
            self.pending = None
            listed = self._listed_cell(line)
            if not line.strip():
                offered = False
            elif listed is None:
                offered = bool(OFFERED.search(line)) and line.rstrip().endswith(":")
            for offset, piece in _pieces(line):
                sentence = Sentence(
                    piece, number, start + offset, self._cells(piece), self.names.find(piece)
                )
                if listed is not None and not sentence.cells and not offered:
                    self.focus = listed
                sentence.focus = self.focus
                if not (offered and listed is not None):
                    self._claim(sentence, len(sentences))
                sentences.append(sentence)
                self._move_on(sentence)
        return sentences

    def _listed_cell(self, line: str) -> int | None:
        """Return the number of a list item or table row that names a type but no cell."""
        match = NUMBERED.match(line)
        if match is None or find_cells(line, self.n) or not self.names.find(line):
            return None
        number = int(match[1] or match[2])
        return number if 1 <= number <= self.n else None

    def _cells(self, text: str) -> list[Mention]:
        """Find the cells of a sentence, also those named by a bare number after a type."""
        found = find_cells(text, self.n)
        for label in self.names.find(text):
            match = NUMBER_TIED.match(text, label.end)
            if match and 1 <= int(match[1]) <= self.n:
                place = Mention(match.start(1), match.end(1), (int(match[1]),), None)
                if all(place.start >= m.end or place.end <= m.start for m in found):
                    found.append(place)
        return sorted(found)

    def _claim(self, sentence: Sentence, index: int) -> None:
        if SWAP.search(sentence.text):
            self._swap(sentence, index)
        if len({m.label for m in sentence.labels}) >= 3 and not sentence.cells:
            self._enumerate(sentence, index)
            return
        for mention in sentence.labels:
            strength = _strength(sentence, mention)
            if not strength or mention.label is None:
                continue
            cells, tied = self._owners(sentence, mention)
            if tied and FITS_BETTER.match(sentence.text[mention.end : tied.start]):
                strength = WEAK  # "B cell fits Cell 3 better" settles nothing yet
            if len(cells) > 1:
                strength = WEAK  # "Cells 2 and 5 look like T cells" is a family, not a choice
            for cell in cells:
                self._add(sentence, Claim(cell, mention.label, strength, index))
        if self.pending is not None and sentence.cells and not sentence.labels:
            first = sentence.cells[0]
            opens = first.start <= 2 or TO_IT.search(sentence.text, 0, first.start)
            if opens and len(first.cells) == 1:
                self._add(sentence, Claim(first.cells[0], self.pending, COMMITTED, index))

    def _add(self, sentence: Sentence, claim: Claim) -> None:
        sentence.claims.append(claim)
        if claim.strength == COMMITTED:
            self.last[claim.cell] = claim.label

    def _enumerate(self, sentence: Sentence, index: int) -> None:
        """'In order: A, B, C' says it of all cells; any other row of types only lists them."""
        labels = [m.label for m in sentence.labels if m.label is not None]
        if len(labels) == self.n and IN_ORDER.search(sentence.text):
            for cell, label in enumerate(labels, start=1):
                self._add(sentence, Claim(cell, label, COMMITTED, index))

    def _swap(self, sentence: Sentence, index: int) -> None:
        """'So I should swap Cells 3 and 5': each takes the other's type."""
        named = sorted({cell for mention in sentence.cells for cell in mention.cells})
        if len(named) == 2 and all(cell in self.last for cell in named):
            one, other = named
            labels = self.last[other], self.last[one]
            for cell, label in zip(named, labels, strict=True):
                self._add(sentence, Claim(cell, label, COMMITTED, index))

    def _owners(self, sentence: Sentence, label: Mention) -> tuple[tuple[int, ...], Mention | None]:
        """Return the cells a type is said of, and the mention it is tied to, if there is one."""
        text = sentence.text
        before = [m for m in sentence.cells if m.end <= label.start]
        after = next((m for m in sentence.cells if m.start >= label.end), None)
        between = [m for m in sentence.labels if after and label.end <= m.start < after.start]
        if after is not None and not between:
            gap = text[label.end : after.start]
            turned = text.lower().startswith("not ") and gap.strip() == "but"
            if turned or (TIED.match(gap) and not ASIDE.search(gap.removesuffix("with "))):
                return after.cells, after
        for mention in reversed(before):
            if not is_aside(sentence, mention):
                return mention.cells, None
        if after is not None and not before:
            takes = TAKES_IT.match(text, after.end) and label == sentence.labels[-1]
            return (after.cells, after) if takes else ((), None)
        if self._is_heading(sentence, label):
            self.pending = label.label
            return (), None
        return ((sentence.focus,) if sentence.focus else ()), None

    def _is_heading(self, sentence: Sentence, label: Mention) -> bool:
        """Say whether a sentence is but a type at the head of its line, with text to follow."""
        rest = sentence.text[: label.start] + sentence.text[label.end :]
        starts_line = sentence.line != self._line_of_focus
        return starts_line and bool(NO_MORE_THAN_NAMED.fullmatch(rest)) and "step" in rest.lower()

    _line_of_focus: int = -1

    def _move_on(self, sentence: Sentence) -> None:
        """Remember who was spoken of: the last cell named that is not an aside."""
        single = [
            m.cells[0] for m in sentence.cells if len(m.cells) == 1 and not is_aside(sentence, m)
        ]
        if single:
            self.focus, self._line_of_focus = single[-1], sentence.line
        elif sentence.cells:
            self.focus = None


def is_aside(sentence: Sentence, cell: Mention) -> bool:
    """Say whether a cell is named only to be set against another: 'than Cell 2', 'not Cell 2'."""
    return bool(ASIDE.search(sentence.text[: cell.start]))


def _strength(sentence: Sentence, label: Mention) -> int:
    """Say how firmly a type is named: committed, weak, or rejected (0)."""
    text = sentence.text
    mentions = sorted([*sentence.cells, *sentence.labels])
    start = max((m.end for m in mentions if m.end <= label.start), default=0)
    lead = text[start : label.start]
    if REJECTED.search(lead) or (start and REJECTED.search(text[: label.start])):
        return 0
    alternative = any(
        OR.fullmatch(text[one.end : two.start])
        for one, two in pairwise(mentions)
        if label in (one, two) and one.label is not None and two.label is not None
    )
    general = GENERAL_BEFORE.search(lead) or GENERAL_AFTER.match(text, label.end)
    asked = text.rstrip().endswith("?") and not text[label.end :].count(",")
    plural = label.plural and not re.search(r"->|:\s*$|\bof (?:typical )?$", lead)
    if alternative or general or asked or plural or POSSIBLE.search(lead):
        return WEAK
    return COMMITTED


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def _pieces(line: str) -> Iterator[tuple[int, str]]:
    """Cut a line into sentences, not at abbreviations or the numbers of a list."""
    start = 0
    for cut in SENTENCE.finditer(line):
        if not ABBREVIATED.search(line[start : cut.start()]):
            yield start, line[start : cut.start()]
            start = cut.end()
    if line[start:].strip():
        yield start, line[start:]
