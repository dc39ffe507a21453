"""What a reasoning claims: which type it gives which cell, in order, and how firmly.

Everything that is measured about a reasoning rests on this reading. It goes sentence by sentence: a
type belongs to the cell it is tied to ("plasma cell -> Cell 4"), else to the cell named before it
in the sentence, else to the cell mentioned last. Rejected types ("not a T cell", "rather
than") are passed over; possible ones ("could be", "A or B", "?") are weak.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cello1.citations.names import Mention, Names
from cello1.citations.reader import NEAR, Sentence, is_aside, read
from cello1.puzzles.puzzle import Puzzle

COMMITTED, WEAK = 2, 1

# Right before a type: the type is rejected.
_REJECTED = re.compile(
    r"\b(?:not|no|n't|cannot|neither|nor|never|rather than|instead of|over|than|unlike|without|"
    r"rules? out|ruled out|ruling out|exclud\w+|against|no longer|as opposed to|versus|vs\.?|"
    r"revise|withdraw|correct\w* from|isn't|aren't|doesn't|lacks?|next comes|runner-up(?: is)?|"
    r"second (?:best|choice)(?: is)?|followed by|rival)"
    r"(?:\s+(?:a|an|the|any|of|be|is|it|been|look|looks|like|really|actually|in|to|typical|true|"
    r"real|on|for|with|another|also))*\s*$",
    re.I,
)
_REJECTED_AFAR = re.compile(
    r"\b(?:rather than|instead of|as opposed to|unlike)(?:\s+[\w-]+){0,4}\s*$"
    r"|\b(?:lacks?|lacking|without|no|not)\b[^.;,]*\bof (?:the |a |an )?$",
    re.I,
)
# Before a type: it is considered, not assigned.
_POSSIBLE = re.compile(
    r"\b(?:could|might|may|maybe|perhaps|possibly|possible|either|whether|suit|hints? at|"
    r"consider\w*|thinking|confus\w+|reminiscent|in principle|at first glance|candidates?(?: for)?|"
    r"left with|expected?|expect)\b[^.:]*$",
    re.I,
)
# Around a type: the sentence is about the type in general, or about its genes.
_GENERAL_BEFORE = re.compile(
    r"\b(?:markers? (?:of|for)|genes? (?:of|for)|expressed (?:in|by)|found (?:in|on)|seen in|"
    r"known (?:in|for)|which|no)\s+(?:a |an |the )?$",
    re.I,
)
_GENERAL_AFTER = re.compile(
    r"(?:\s*(?:,\s*or|,\s*and|,|/|or\b|and\b)\s*[\w-]+){1,5}\s+(?:cell )?"
    r"(?:markers?|genes?|features?|signatures?)\b"
    r"|\s*(?:-(?=\w)|(?:cells? )?(?:(?:is|are) (?:a |an )?\w+ )?"
    r"(?:markers?|genes?|profiles?|signatures?|programs?|programmes?|lineages?|hormones?|identity|"
    r"features?|scores?|candidates?|options?|types?|secretes?|expresses|express)\b|"
    r"(?:cells? )?(?:would|should|will|typically|usually|often|commonly|generally|normally) "
    r"(?:also )?(?:have|show|express|carry|contain|lack|include|need)s?\b|"
    r"(?:(?:is|being|seems|would be|fits) )?(?:less |unlikely|close\b|ruled out|excluded)|\?)",
    re.I,
)
_DEFINED = re.compile(
    r"\s*(?:cells? )?(?:are|express|secrete|have|show|carry|can be|typically|usually|often|would|"
    r"should)\b",
    re.I,
)
# Between a type and the cell after it: the type is assigned to that cell.
_TIED = re.compile(
    r"\s*(?:\([^)]*\)\s*)?(?:therefore |then |thus |clearly |best |surely )?"
    r"(?:->|=|:|-|is(?: therefore| clearly)?|must be|has to be|should be|would be|belongs to|"
    r"(?:then )?goes to|(?:then )?goes with|stays with|matches|fits|is taken by|taken by|is|to|"
    r"on|for|in|as|corresponds to|best (?:matches|fits)|"
    r":? ?by (?:process of )?(?:elimination|exclusion),?|"
    r"I (?:first |initially )?(?:picked|chose|choose|pick|take|took))\s*(?:the )?$",
    re.I,
)
_TO_IT = re.compile(
    r"\b(?:assign|give|put|place|match|move)\w* (?:it|this|that) (?:to|on|with)\s*$", re.I
)
_LEADS_TO = re.compile(
    r"\W*(?:(?:that|this|it|which)(?:'s| is| must be)?|hence|thus|therefore|so|matches|fits|"
    r"found in|seen in|in|only|clearly|best)?\W*$",
    re.I,
)
_ABSENT = re.compile(r"\b(?:no|not|absent|lacks?|without|missing|rules? out|cannot)\b", re.I)
_LACKS_IT = re.compile(
    r"\W*(?:lacks?|does not|doesn't|has no|has none|is not|isn't|shows no|cannot|misses)\b", re.I
)
_TAKES_IT = re.compile(
    r"\s*(?:then |therefore )?(?:gets|takes|receives|is) (?:it|this|that)\b", re.I
)
_IN_ORDER = re.compile(r"\b(?:in order|order|final|answer|summary|result)\b", re.I)
# Two cells take each other's type.
_SWAP = re.compile(r"\b(?:swap|switch|exchange|interchange)\b", re.I)
# Between two types: neither is chosen.
_OR = re.compile(r"\s*(?:,?\s*or|/|vs\.?|versus)\s+(?:a |an |the )?", re.I)
_FITS_BETTER = re.compile(r"\s*fits\s*$", re.I)


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


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence and the claims in it.

    Attributes
    ----------
    said
        The sentence.
    claims
        In order.
    """

    said: Sentence
    claims: list[Claim] = field(default_factory=list)


def read_claims(puzzle: Puzzle, reasoning: str) -> list[Told]:
    """Read a reasoning: its sentences, each with the claims it makes."""
    names = Names(puzzle)
    return _Claims(len(puzzle.cells)).read(read(names, reasoning))


class _Claims:
    """Walks through the sentences of one reasoning and tracks what was claimed last."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.last: dict[int, int] = {}

    def read(self, sentences: Sequence[Sentence]) -> list[Told]:
        told = [Told(sentence) for sentence in sentences]
        for index, item in enumerate(told):
            self._claim(item, index)
        return told

    def _claim(self, told: Told, index: int) -> None:
        sentence = told.said
        if _SWAP.search(sentence.text):
            self._swap(told, index)
        if len({m.label for m in sentence.labels}) >= 3 and not sentence.cells:
            self._enumerate(told, index)
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
                self._add(told, Claim(cell, mention.label, strength, index))
        if sentence.heading is not None and sentence.cells:
            self._claim_heading(told, sentence.heading, index)

    def _claim_heading(self, told: Told, label: int, index: int) -> None:
        """'Goblet cell: MUC2, ZG16 -> Cell 1': the item gives its type to the cell it comes to."""
        sentence = told.said
        main = [m for m in sentence.cells if not is_aside(sentence, m)]
        cells = {m.cells for m in main}
        if not main or len(main[0].cells) > 1 or (len(cells) > 1 and sentence.labels):
            return
        before = sentence.text[: main[0].start]
        if sentence.opens:
            gives = not told.claims and not _ABSENT.search(sentence.text)
        else:
            leads = _LEADS_TO.match(before) or _TO_IT.search(before)
            gives = not sentence.labels and leads is not None
        if gives and not _LACKS_IT.match(sentence.text, main[0].end):
            self._add(told, Claim(main[0].cells[0], label, COMMITTED, index))

    def _add(self, told: Told, claim: Claim) -> None:
        told.claims.append(claim)
        if claim.strength == COMMITTED:
            self.last[claim.cell] = claim.label

    def _enumerate(self, told: Told, index: int) -> None:
        """'In order: A, B, C' says it of all cells; any other row of types only lists them."""
        labels = [m.label for m in told.said.labels if m.label is not None]
        if len(labels) == self.n and _IN_ORDER.search(told.said.text):
            for cell, label in enumerate(labels, start=1):
                self._add(told, Claim(cell, label, COMMITTED, index))

    def _swap(self, told: Told, index: int) -> None:
        """'So I should swap Cells 3 and 5': each takes the other's type."""
        named = sorted({cell for mention in told.said.cells for cell in mention.cells})
        if len(named) == 2 and all(cell in self.last for cell in named):
            one, other = named
            labels = self.last[other], self.last[one]
            for cell, label in zip(named, labels, strict=True):
                self._add(told, Claim(cell, label, COMMITTED, index))

    def _owners(self, sentence: Sentence, label: Mention) -> tuple[tuple[int, ...], Mention | None]:
        """Return the cells that a type is claimed for, and the mention it is tied to, if any."""
        text = sentence.text
        before = [m for m in sentence.cells if m.end <= label.start]
        after = next((m for m in sentence.cells if m.start >= label.end), None)
        between = [m for m in sentence.labels if after and label.end <= m.start < after.start]
        if after is not None and not between:
            gap = text[label.end : after.start]
            turned = text.lower().startswith("not ") and gap.strip() == "but"
            aside = is_aside(sentence, after) and not gap.rstrip().endswith("with")
            bracketed = gap.strip() == "(" and text[after.end : after.end + 1] == ")"
            if turned or bracketed or (_TIED.match(gap) and not aside):
                return after.cells, after
        for mention in reversed(before):
            if not is_aside(sentence, mention):
                return mention.cells, None
        if after is not None and not before:
            takes = _TAKES_IT.match(text, after.end) and label == sentence.labels[-1]
            return (after.cells, after) if takes else ((), None)
        if sentence.opens:
            return (), None
        return ((sentence.focus,) if sentence.focus else ()), None


def _strength(sentence: Sentence, label: Mention) -> int:
    """Return how firmly a type is claimed: committed, weak, or rejected (0)."""
    text = sentence.text
    mentions = sorted([*sentence.cells, *sentence.labels])
    start = max((m.end for m in mentions if m.end <= label.start), default=0)
    lead = text[start : label.start]
    if _REJECTED.search(lead) or _REJECTED_AFAR.search(lead):
        return 0
    if label.plural and label.start <= 2 and not sentence.cells and _DEFINED.match(text, label.end):
        return 0  # "Goblet cells are recognised by MUC2"
    if start and _REJECTED.search(text[max(0, label.start - NEAR) : label.start]):
        return 0
    alternative = any(
        _OR.fullmatch(text[one.end : two.start])
        for one, two in pairwise(mentions)
        if label in (one, two) and one.label is not None and two.label is not None
    )
    general = _GENERAL_BEFORE.search(lead) or _GENERAL_AFTER.match(text, label.end)
    asked = text.rstrip().endswith("?") and not text[label.end :].count(",")
    plural = label.plural and not re.search(r"->|:\s*$|\bof (?:typical )?$", lead)
    if alternative or general or asked or plural or _POSSIBLE.search(lead):
        return WEAK
    return COMMITTED
