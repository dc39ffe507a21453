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

from cello1.puzzles.puzzle import Puzzle
from cello1.reports.behaviour_names import Mention, Names, find_cells, plain

_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|no|approx)\.|^\s*(?:[-+]\s*)?\d{1,2}\.)$", re.I)
_NUMBERED = re.compile(r"^\s*(?:[-+]\s*)?(?:\|\s*(\d{1,2})\s*\||\(?(\d{1,2})\s*[.):]\s)")
_OFFERED = re.compile(r"\b(?:candidates?|options?|types? (?:are|on offer)|choices)\b", re.I)

_REJECTED = re.compile(
    r"\b(?:not|no|n't|cannot|neither|nor|never|rather than|instead of|over|than|unlike|without|"
    r"rules? out|ruled out|ruling out|exclud\w+|against|no longer|as opposed to|versus|vs\.?|"
    r"revise|withdraw|correct\w* from|isn't|aren't|doesn't|lacks?)"
    r"(?:\s+(?:a|an|the|any|of|be|is|it|been|look|looks|like|really|actually|in|to|typical|true|"
    r"real|on|for|with|another|also))*\s*$",
    re.I,
)
_ASIDE = re.compile(
    r"\b(?:not|nor|than|unlike|rather than|instead of|compared (?:with|to)|from|versus|vs\.?|with)"
    r"(?:\s+(?:in|to|on|for|the|that of))*\s*$",
    re.I,
)
_POSSIBLE = re.compile(
    r"\b(?:could|might|may|maybe|perhaps|possibly|possible|either|whether|suit|hints? at|"
    r"consider\w*|thinking|confus\w+|reminiscent|in principle|at first glance|candidates?(?: for)?|"
    r"left with|expected?|expect)\b[^.:]*$",
    re.I,
)
_GENERAL_BEFORE = re.compile(
    r"\b(?:markers? (?:of|for)|genes? (?:of|for)|expressed (?:in|by)|found (?:in|on)|seen in|"
    r"known (?:in|for)|which|no)\s+(?:a |an |the )?$",
    re.I,
)
_GENERAL_AFTER = re.compile(
    r"\s*(?:-(?=\w)|(?:cells? )?(?:(?:is|are) (?:a |an )?\w+ )?"
    r"(?:markers?|genes?|profiles?|signatures?|programs?|programmes?|lineages?|hormones?|identity|"
    r"features?|scores?|candidates?|options?|types?|secretes?|expresses|express)\b|\s*\?)",
    re.I,
)
_TIED = re.compile(
    r"\s*(?:\([^)]*\)\s*)?(?:therefore |then |thus |clearly |best |surely )?"
    r"(?:->|=|:|is(?: therefore| clearly)?|must be|has to be|should be|would be|belongs to|"
    r"(?:then )?goes to|(?:then )?goes with|stays with|matches|fits|is taken by|taken by|is|to|"
    r"on|for|in|as|I (?:first |initially )?(?:picked|chose|choose|pick|take|took))\s*(?:the )?$",
    re.I,
)
_NUMBER_TIED = re.compile(r"\s*(?:cells?\s*)?(?:->|=|:)\s*(?:cell\s*)?\#?(\d{1,2})\b(?!\s*[.)]\s*\w)", re.I)
_TO_IT = re.compile(r"\b(?:assign|give|put|place|match|move)\w* (?:it|this|that) (?:to|on|with)\s*$", re.I)
_TAKES_IT = re.compile(r"\s*(?:then |therefore )?(?:gets|takes|receives|is) (?:it|this|that)\b", re.I)
_IN_ORDER = re.compile(r"\b(?:in order|order|final|answer|summary|result)\b", re.I)
_SWAP = re.compile(r"\b(?:swap|switch|exchange|interchange)\b", re.I)
_OR = re.compile(r"\s*(?:,?\s*or|/|vs\.?|versus)\s+(?:a |an |the )?", re.I)
_NO_MORE_THAN_NAMED = re.compile(r"[\W\d]*(?:step|assignment|final|type|answer|prediction)?[\W\d]*", re.I)
_FITS_BETTER = re.compile(r"\s*fits\s*$", re.I)
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
                offered = bool(_OFFERED.search(line)) and line.rstrip().endswith(":")
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
        match = _NUMBERED.match(line)
        if match is None or find_cells(line, self.n) or not self.names.find(line):
            return None
        number = int(match[1] or match[2])
        return number if 1 <= number <= self.n else None

    def _cells(self, text: str) -> list[Mention]:
        """Find the cells of a sentence, also those named by a bare number after a type."""
        found = find_cells(text, self.n)
        for label in self.names.find(text):
            match = _NUMBER_TIED.match(text, label.end)
            if match and 1 <= int(match[1]) <= self.n:
                place = Mention(match.start(1), match.end(1), (int(match[1]),), None)
                if all(place.start >= m.end or place.end <= m.start for m in found):
                    found.append(place)
        return sorted(found)

    def _claim(self, sentence: Sentence, index: int) -> None:
        if _SWAP.search(sentence.text):
            self._swap(sentence, index)
        if len({m.label for m in sentence.labels}) >= 3 and not sentence.cells:
            self._enumerate(sentence, index)
            return
        for mention in sentence.labels:
            strength = _strength(sentence, mention)
            if not strength or mention.label is None:
                continue
            cells, tied = self._owners(sentence, mention)
            if tied and _FITS_BETTER.match(sentence.text[mention.end : tied.start]):
                strength = WEAK  # "B cell fits Cell 3 better" settles nothing yet
            if len(cells) > 1:
                strength = WEAK  # "Cells 2 and 5 look like T cells" is a family, not a choice
            for cell in cells:
                self._add(sentence, Claim(cell, mention.label, strength, index))
        if self.pending is not None and sentence.cells and not sentence.labels:
            first = sentence.cells[0]
            opens = first.start <= 2 or _TO_IT.search(sentence.text, 0, first.start)
            if opens and len(first.cells) == 1:
                self._add(sentence, Claim(first.cells[0], self.pending, COMMITTED, index))

    def _add(self, sentence: Sentence, claim: Claim) -> None:
        sentence.claims.append(claim)
        if claim.strength == COMMITTED:
            self.last[claim.cell] = claim.label

    def _enumerate(self, sentence: Sentence, index: int) -> None:
        """'In order: A, B, C' says it of all cells; any other row of types only lists them."""
        labels = [m.label for m in sentence.labels if m.label is not None]
        if len(labels) == self.n and _IN_ORDER.search(sentence.text):
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

    def _owners(
        self, sentence: Sentence, label: Mention
    ) -> tuple[tuple[int, ...], Mention | None]:
        """Return the cells a type is said of, and the mention it is tied to, if there is one."""
        text = sentence.text
        before = [m for m in sentence.cells if m.end <= label.start]
        after = next((m for m in sentence.cells if m.start >= label.end), None)
        between = [m for m in sentence.labels if after and label.end <= m.start < after.start]
        if after is not None and not between:
            gap = text[label.end : after.start]
            turned = text.lower().startswith("not ") and gap.strip() == "but"
            if turned or (_TIED.match(gap) and not _ASIDE.search(gap.removesuffix("with "))):
                return after.cells, after
        for mention in reversed(before):
            if not is_aside(sentence, mention):
                return mention.cells, None
        if after is not None and not before:
            takes = _TAKES_IT.match(text, after.end) and label == sentence.labels[-1]
            return (after.cells, after) if takes else ((), None)
        if self._is_heading(sentence, label):
            self.pending = label.label
            return (), None
        return ((sentence.focus,) if sentence.focus else ()), None

    def _is_heading(self, sentence: Sentence, label: Mention) -> bool:
        """Say whether a sentence is but a type at the head of its line, with text to follow."""
        rest = sentence.text[: label.start] + sentence.text[label.end :]
        starts_line = sentence.line != self._line_of_focus
        return starts_line and bool(_NO_MORE_THAN_NAMED.fullmatch(rest)) and "step" in rest.lower()

    _line_of_focus: int = -1

    def _move_on(self, sentence: Sentence) -> None:
        """Remember who was spoken of: the last cell named that is not an aside."""
        single = [
            m.cells[0]
            for m in sentence.cells
            if len(m.cells) == 1 and not is_aside(sentence, m)
        ]
        if single:
            self.focus, self._line_of_focus = single[-1], sentence.line
        elif sentence.cells:
            self.focus = None


def is_aside(sentence: Sentence, cell: Mention) -> bool:
    """Say whether a cell is named only to be set against another: 'than Cell 2', 'not Cell 2'."""
    return bool(_ASIDE.search(sentence.text[: cell.start]))


def _strength(sentence: Sentence, label: Mention) -> int:
    """Say how firmly a type is named: committed, weak, or rejected (0)."""
    text = sentence.text
    mentions = sorted([*sentence.cells, *sentence.labels])
    start = max((m.end for m in mentions if m.end <= label.start), default=0)
    lead = text[start : label.start]
    if _REJECTED.search(lead) or (start and _REJECTED.search(text[: label.start])):
        return 0
    alternative = any(
        _OR.fullmatch(text[one.end : two.start])
        for one, two in zip(mentions, mentions[1:], strict=False)
        if label in (one, two) and one.label is not None and two.label is not None
    )
    general = _GENERAL_BEFORE.search(lead) or _GENERAL_AFTER.match(text, label.end)
    asked = text.rstrip().endswith("?") and not text[label.end :].count(",")
    plural = label.plural and not re.search(r"->|:\s*$|\bof (?:typical )?$", lead)
    if alternative or general or asked or plural or _POSSIBLE.search(lead):
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
    for cut in _SENTENCE.finditer(line):
        if not _ABBREVIATED.search(line[start : cut.start()]):
            yield start, line[start : cut.start()]
            start = cut.end()
    if line[start:].strip():
        yield start, line[start:]
