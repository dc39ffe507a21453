"""Read the reasoning of a response: its sentences, and the cell each of them is about.

The one reader behind citations, claims, marks and the reasons of annotation. It goes line by line
and knows the shapes in which people and models write: prose about one cell after another, a list
or table by cell, a list by type ("2) B cell: look for MS4A1. Cell 3 shows it."), a list of the
candidates on offer, and a summary at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cello1.citations.names import Mention, Names, find_cells, plain

_SENTENCE = re.compile(r"(?<=[.!?;])[\"'\u201d)]*\s+(?=\S)")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|cf|no|approx|resp)\.|^\s*(?:[-+\u2022]\s*)?\d{1,2}\.)$", re.IGNORECASE
)
# "3. Mast cell", "3 -> mast cell", "| 3 | mast cell |": an item that may stand for a cell.
_NUMBERED = re.compile(
    r"^\s*(?:[-+\u2022]\s*)?(?:\|\s*(\d{1,2})\s*\||\(?(\d{1,2})\s*(?:[.):]\s|->|=\s))"
)
_ITEM = re.compile(r"^\s*(?:[-+\u2022|]\s*|\(?\d{1,2}\s*[.):]\s+|step\s+\d+\W+)", re.IGNORECASE)
# A list under such a line is of candidates, not of cells; under the other, it is of cells.
_OFFERED = re.compile(
    r"\b(?:candidates?|options?|types? (?:are|on offer)|choices|one for each cell)\b", re.IGNORECASE
)
_CONCLUDES = re.compile(
    r"\b(?:final|answer|assign\w*|in order|annotations?|mappings?|matche?s?|summary|result\w*|"
    r"putting|order)\b",
    re.IGNORECASE,
)
# "C3: ..." at the head of a sentence is cell 3; elsewhere it is the gene.
_SHORT = re.compile(r"^\W*C(\d+)\b(?=\s*(?::|=|->|is\b|could\b|must\b|has\b|shows\b|expresses\b))")
_AFTER_HEADING = re.compile(r"\s*(?:\([^)]*\)\s*)?(?:->|[:.(?|-]|vs\b|$)")
_BARE = re.compile(r"[\W\d]*(?:(?:the|step|type|analysis|genes?)\b[\W\d]*)*", re.IGNORECASE)
# Right before a cell: it is only contrasted with another.
_LONGEST = 1_500  # characters of a sentence
NEAR = 80  # characters before a cell or type in which its cues stand
_ASIDE = re.compile(
    r"\b(?:not|nor|than|unlike|rather than|instead of|compared (?:with|to)|from|versus|vs\.?|with|"
    r"given that|already (?:assigned|given) to|assigned to|appears in)"
    r"(?:\s+(?:in|to|on|for|the|that of))*\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
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
        The current cell when the sentence begins, or None.
    carried
        The cells its genes belong to until another is named: those of the sentence before, while
        the text stays with them.
    heading
        The candidate that an item of a list by type is about, until a cell is named.
    opens
        It is the heading itself.
    """

    text: str
    line: int
    start: int
    cells: tuple[Mention, ...]
    labels: tuple[Mention, ...]
    focus: int | None = None
    carried: tuple[int, ...] = ()
    heading: int | None = None
    opens: bool = False

    @property
    def about(self) -> set[int]:
        """The cells a sentence is about: those it names, else the current one."""
        named = {cell for mention in self.cells for cell in mention.cells}
        return named or ({self.focus} if self.focus else set())


def read(names: Names, reasoning: str) -> list[Sentence]:
    """Read a reasoning.

    Parameters
    ----------
    names
        The names of the candidates of the puzzle.
    reasoning
        The think block.
    """
    return _Reader(names, plain(reasoning)).read()


def is_aside(sentence: Sentence, cell: Mention) -> bool:
    """Return whether a cell is named only in contrast to another: 'than Cell 2', 'not Cell 2'."""
    return bool(_ASIDE.search(sentence.text[max(0, cell.start - NEAR) : cell.start]))


def sentences(line: str) -> Iterator[tuple[int, str]]:
    """Split a line into sentences, but not at abbreviations or numbers of a list."""
    start = 0
    for cut in _SENTENCE.finditer(line):
        if not _ABBREVIATED.search(line[max(start, cut.start() - 12) : cut.start()]):
            yield from _bounded(start, line[start : cut.end()].rstrip())
            start = cut.end()
    if line[start:].strip():
        yield from _bounded(start, line[start:])


def _bounded(start: int, text: str) -> Iterator[tuple[int, str]]:
    """Split endless text at blanks, so that reading takes linear time."""
    while len(text) > _LONGEST:
        cut = text.rfind(" ", 1, _LONGEST) + 1 or _LONGEST
        yield start, text[:cut]
        start, text = start + cut, text[cut:]
    yield start, text


class _Reader:
    """Walks through the lines of one reasoning and tracks the current cell."""

    def __init__(self, names: Names, text: str) -> None:
        self.names, self.n = names, names.n_cells
        self.lines = list(_with_cells_named(text.split("\n")))
        self.named = [find_cells(line, self.n) for line in self.lines]
        self.typed = [names.find(line) for line in self.lines]
        self.by_cell = self._items_by_cell()
        self.focus: int | None = None
        self.carried: tuple[int, ...] = ()
        self.heading: int | None = None
        self.held = False  # a bare heading "Cell 3" keeps its cell over paragraphs

    def read(self) -> list[Sentence]:
        found: list[Sentence] = []
        start = 0
        for number, line in enumerate(self.lines):
            opens = self._begin(number)
            for offset, piece in sentences(line):
                end = offset + len(piece)
                labels = [
                    m._replace(start=m.start - offset, end=m.end - offset)
                    for m in self.typed[number]
                    if offset <= m.start and m.end <= end
                ]
                sentence = Sentence(
                    piece, number, start + offset, tuple(self._cells(piece, labels)),
                    tuple(labels), self.focus, self.carried, self.heading, opens,
                )  # fmt: skip
                found.append(sentence)
                self._move_on(sentence)
                opens = False
            start += len(line) + 1
        return found

    def _begin(self, number: int) -> bool:
        """Set the current cell of a line; return whether it is the heading of a type."""
        line = self.lines[number]
        if not line.strip():
            self.heading = None
            if not self.held:
                self.carried = ()
            return False
        if (cell := self.by_cell.get(number)) is not None:
            if cell:
                self.focus, self.carried = cell, (cell,)
            else:
                self.focus, self.carried = None, ()
            self.heading, self.held = None, False
            return False
        if (label := self._type_heading(number)) is not None:
            self.focus, self.carried, self.held = None, (), False
            self.heading = label if label >= 0 else None
            return True
        if not self.named[number] and not self.typed[number] and line.rstrip().endswith(":"):
            self.carried, self.held, self.heading = (), False, None
        elif _ITEM.match(line) and not self.held:
            self.carried = ()
        return False

    def _move_on(self, sentence: Sentence) -> None:
        """Update the current cell: the last one named that is not an aside."""
        if not sentence.cells:
            return
        main = [m for m in sentence.cells if not is_aside(sentence, m)] or list(sentence.cells)
        single = [m.cells[0] for m in main if len(m.cells) == 1 and not is_aside(sentence, m)]
        if single:
            self.focus = single[-1]
        else:
            self.focus = None
        self.carried = main[-1].cells
        self.heading = None
        first, last = sentence.cells[0], sentence.cells[-1]
        self.held = first == last and bool(
            _BARE.fullmatch(sentence.text[: first.start] + sentence.text[last.end :])
        )

    def _cells(self, text: str, labels: Sequence[Mention]) -> list[Mention]:
        """Find the cells of a sentence, including bare numbers after a type."""
        found = find_cells(text, self.n)
        if (
            labels
            and not found
            and (match := _NUMBER_LAST.search(text))
            and 1 <= int(match[1]) <= self.n
        ):
            found.append(Mention(match.start(1), match.end(1), (int(match[1]),), None))
        if not found and (match := _SHORT.match(text)) and 1 <= int(match[1]) <= self.n:
            found.append(Mention(match.start(1) - 1, match.end(1), (int(match[1]),), None))
        for label in labels:
            match = _NUMBER_TIED.match(text, label.end)
            if match and 1 <= int(match[1]) <= self.n:
                place = Mention(match.start(1), match.end(1), (int(match[1]),), None)
                if all(place.start >= m.end or place.end <= m.start for m in found):
                    found.append(place)
        return sorted(found)

    def _type_heading(self, number: int) -> int | None:
        """Return the candidate a line is headed by, -1 for several, None where it is no heading."""
        labels, cells = self.typed[number], self.named[number]
        if not labels or (cells and cells[0].start < labels[0].start):
            return None
        line, first = self.lines[number], labels[0]
        item = _ITEM.match(line)
        if self.held and item is None:
            return None  # "### Cell 3", and below it "B cell"
        before = line[item.end() if item else 0 : first.start].strip(" -+\u2022|(\"'\u201c")
        before = before.casefold().removeprefix("the").strip()
        if before or not _AFTER_HEADING.match(line, first.end):
            return None
        if cells and re.fullmatch(r"[^\w.!?;]*", line[first.end : cells[0].start]):
            return None  # "B cell -> Cell 3" gives it at once
        alternatives = re.match(r"\s*(?:vs\.?|or|/)\s", line[first.end :], re.IGNORECASE)
        return -1 if alternatives else first.label

    def _items_by_cell(self) -> dict[int, int]:
        """Return line -> cell, for items of numbered lists and tables that stand for cells.

        A list by type or of the candidates gives 0: its numbers are not cells.
        """
        items = []
        for number, line in enumerate(self.lines):
            match = _NUMBERED.match(line)
            if match and not self.named[number] and self.typed[number]:
                items.append((number, int(match[1] or match[2])))
        found: dict[int, int] = {}
        runs: list[list[tuple[int, int]]] = []
        for item in items:
            if runs and item[1] == runs[-1][-1][1] + 1:
                runs[-1].append(item)
            else:
                runs.append([item])
        for run in runs:
            kind = self._stands_for(run)
            for number, cell in run:
                if kind == "offer":
                    found[number] = 0
                elif kind == "cells" and 1 <= cell <= self.n:
                    found[number] = cell
        return found

    def _stands_for(self, run: list[tuple[int, int]]) -> str:
        """Return what the numbers of a list are: ``cells``, ``types`` or an ``offer``."""
        first, last = run[0][0], run[-1][0]
        above = next((line for line in reversed(self.lines[:first]) if line.strip()), "")
        if (
            _OFFERED.search(above)
            and above.rstrip().endswith(":")
            and not (_CONCLUDES.search(above) and not re.search(r"\bcandidates?\b.*\bare\b", above))
        ):
            return "offer"
        blocks = []
        for number, cell in run:
            block = [m.cells for m in self.named[number]]
            for below in range(number + 1, len(self.lines)):
                line = self.lines[below]
                if (
                    _NUMBERED.match(line)
                    or not line.strip()
                    or not re.match(r"\s|[-+\u2022]", line)
                ):
                    break
                block += [m.cells for m in self.named[below]]
            blocks.append((cell, block))
        if any(block and block[0] != (cell,) for cell, block in blocks):
            return "types"
        labels = [self.typed[number][0].label for number, _ in run]
        everything = list(range(len(self.names.labels)))
        before, after = any(self.named[:first]), any(self.named[last + 1 :])
        if labels == everything and not before and after and not any(b for _, b in blocks):
            return "offer"
        return "cells"


_CELL_COLUMN = re.compile(r"cells?(?:\s*(?:#|no\.?|number|id|index))?$")
_NUMBER_LAST = re.compile(r"->\s*#?(\d{1,2})\W*$")
_NUMBER_TIED = re.compile(
    r"\s*(?:cells?\s*)?(?:->|=|:)\s*(?:cell\s*)?\#?(\d{1,2})\b(?!\s*[.)]\s*\w)", re.IGNORECASE
)


def _with_cells_named(lines: Sequence[str]) -> Iterator[str]:
    """Write `Cell 3` for the 3 in the column "Cell" of a table."""
    column: int | None = None
    inside = False
    for line in lines:
        fields = line.split("|")
        if not line.lstrip().startswith("|"):
            column, inside = None, False
        elif not inside:
            inside = True
            titles = [field.strip().casefold() for field in fields]
            column = next((i for i, title in enumerate(titles) if _CELL_COLUMN.match(title)), None)
        elif column is not None and column < len(fields) and fields[column].strip().isdecimal():
            fields[column] = f" Cell {fields[column].strip()} "
            line = "|".join(fields)
        yield line
