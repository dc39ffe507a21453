"""How one response reaches its answer, and why a cell is wrong, by rule.

The behaviours and the five error types are those of arXiv 2506.02911. Each detector is a plain rule
over the sentences and claims of a reasoning; docs/behaviour.md reports how often each is right
on responses labelled by hand.

Two of the error types can be told by rule: *no reasoning* (nothing is said about the cell) and
*right reasoning, wrong conclusion* (the reasoning gives the right type, the answer another).
*Forced assignment* is told by its wording. Of *incorrect reasoning* a rule sees only one kind,
genes cited that are not in the list of the cell; false biology needs a judge, and the rest counts
as *plausible but incorrect*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from cello1.behaviour.claims import COMMITTED, Claim, Told, read_claims
from cello1.citations.citations import citations
from cello1.citations.genes import TOKEN
from cello1.citations.reader import is_aside
from cello1.puzzles.answer import Answer
from cello1.puzzles.puzzle import Puzzle, label_key

FLAGS = ("self_reflection", "curriculum", "elimination", "comparison")


class ErrorType(StrEnum):
    """Why a cell is wrong."""

    NONE = "no reasoning"
    INCORRECT = "incorrect reasoning"
    PLAUSIBLE = "plausible but incorrect"
    FORCED = "forced assignment"
    CONCLUSION = "right reasoning, wrong conclusion"


ERRORS = tuple(str(kind) for kind in ErrorType)

_REVISES = re.compile(
    r"\b(?:wait|actually|on reflection|reconsider|revis\w+|correct(?:ed|ion)|instead|wrong|mistake|"
    r"hold on|scratch that|swap|switch|exchange|take back|change[ds]?|after all|no longer|"
    r"second (?:pass|look)|looking again|rather|(?:go|going|come|coming|turn|turning) back to|"
    r"return(?:ing)? to|re-?(?:visit|examin|check|assess|think|evaluat)\w*)\b",
    re.I,
)
_SURE = (
    r"(?:easiest|easy|easier|clearest|clear|surest|simplest|most (?:obvious|distinctive|certain|"
    r"confident|distinct|unambiguous|characteristic)|unambiguous|straightforward|"
    r"obvious|high(?:est)?[- ]confidence|certain)"
)
_UNSURE = (
    r"(?:hard(?:er|est)?|difficult|trick(?:y|ier|iest)|less (?:obvious|clear|certain)|unclear|"
    r"ambiguous|uncertain|challenging)"
)
_ORDERED = re.compile(
    rf"\b(?:start|begin)\w*\b[^.\n]{{0,40}}\b{_SURE}\b"
    rf"|\b{_SURE}\b[^.\n]{{0,25}}\bfirst\b"
    rf"|\bfrom (?:the )?{_SURE}\b[^.\n]{{0,20}}\bto\b"
    rf"|\b(?:the )?(?:more |most )?{_UNSURE}\b[^.\n]{{0,40}}\b(?:last|later|at the end)\b"
    r"|\b(?:ordered|in order|sorted|ranked) (?:by|of) (?:\w+ )?(?:confidence|certainty)"
    rf"|\b(?:now|then|next)\b[^.\n]{{0,15}}\b{_UNSURE}\s+(?:ones?|cells?|cases?)\b"
    rf"|^\s*(?:less (?:obvious|clear|certain)|the most difficult|{_UNSURE} cells)\b"
    r"|\bcell \d+ first, (?:since|because|as|for)\b",
    re.I | re.M,
)
_PUT_OFF = re.compile(
    r"\b(?:come|get|return|go) back to (?:it|this|that|them|these|cells? \d+)[^.\n]*"
    r"\b(?:later|after)\b"
    r"|\b(?:come|get) back to (?:it|this|that|them|these)\b"
    r"|\b(?:postpone|defer|set aside|put off|skip|park)\b[^.\n]{0,40}"
    r"\b(?:them|it|this|these|those|that|cells? \d)"
    r"|\b(?:left|leave|keep|save|kept|saved)\b[^.\n]{0,40}\bfor (?:the end|later|last)\b",
    re.I,
)
_CONFIDENCE = re.compile(r"\b(very high|high|medium|moderate|low)(?:er|est)?[- ]confidence\b", re.I)
_ELIMINATION = re.compile(
    r"\bby (?:process of )?(?:elimination|exclusion)\b|\bprocess of elimination (?:gives|leaves)\b"
    r"|\b(?:only|last|one|sole)\b[^.\n]{0,25}"
    r"\b(?:left|remaining|remains|not (?:yet )?used|unused)\b"
    r"|\b(?:that|this|which)(?: only)? leaves\b|\bleaving\b(?! no)"
    r"|\bwhat (?:remains|is left)\b|\bremains? for\b|\bthe last (?:one|type|candidate)\b"
    r"|\b(?:is|are) (?:the )?(?:only )?(?:one |type )?(?:left|remaining)\b"
    r"|\bby default\b|\bsomething has to be\b|\bcan only be\b|\bwith that gone\b"
    r"|\b(?:all|already)(?: \w+)? (?:taken|used|assigned)\b|\bthe remaining (?:type|candidate)\b"
    r"|\bremaining (?:type|slot|option|label|category|candidate|one)\b|\bis left\b"
    r"|\bfits? (?:anything|nothing) else\b[^.\n]*\bhave to\b",
    re.I,
)
_FORCED = re.compile(
    r"\bby default\b|\bsomething has to be\b|\b(?:have|had) to (?:give|assign|take|pick|choose)\b"
    r"|\b(?:does|do)(?: not|n't)(?: really)? (?:fit|look like|support|match)\b"
    r"|\bnothing (?:convinces|decides|fits)\b|\bleast bad(?:ly)?\b|\bby force\b|\bforced\b",
    re.I,
)
_CONTRAST = re.compile(
    r"\b(?:more|higher|stronger|better|best|less|lower|weaker|fewer|whereas|while|unlike|"
    r"compar(?:ed|ing|ison)|versus|vs|than|between|favou?rs?|beats?|outweighs?|single out|lacks?|"
    r"(?:does|do) not (?:show|share|express|have)|has none|but cell \d+ (?:has|shows)|"
    r"only (?:in|seen in|found in|cell)|(?:but|and) not in|rather than|belongs more)\b",
    re.I,
)
_FITS_OTHER = re.compile(
    r"\b(?:fits|suits|matches) cell \d+ (?:better|more|best)\b|\bcell \d+, which fits better\b",
    re.I,
)
_REASON = re.compile(
    r"\b(?:because|since|given|genes?|markers?|express\w*|elimination|left|remain\w*|lacks?|taken|"
    r"default|signature|profile|collagens?|immunoglobulins?|hormone|programme?|last one|"
    r"not used|what remains|nothing|something|used)\b",
    re.I,
)


@dataclass(frozen=True)
class Behaviour:
    """The behaviour of one well-formed response; types are indices of candidates.

    Attributes
    ----------
    self_reflection
        The type of a cell is changed in a later step.
    curriculum
        The text orders the cells by confidence, or postpones a cell.
    elimination
        A type is given because the others are taken.
    comparison
        Cells are weighed against each other.
    revised
        The cells whose type was changed.
    discussed
        The cells for which a reason is given.
    order
        The cells in the order of their first commitment.
    concluded
        Cell -> the last type that the reasoning gives it and does not take back.
    conflicts
        Cells whose answer is another type than the reasoning concludes.
    forced
        Cells whose type was left over, or given against the evidence.
    """

    self_reflection: bool
    curriculum: bool
    elimination: bool
    comparison: bool
    revised: tuple[int, ...]
    discussed: tuple[int, ...]
    order: tuple[int, ...]
    concluded: dict[int, int]
    conflicts: tuple[int, ...]
    forced: tuple[int, ...]


def detect(puzzle: Puzzle, answer: Answer) -> Behaviour:
    """Find the behaviours of one response."""
    return _Reading(puzzle, answer).behaviour()


def error_types(
    puzzle: Puzzle,
    answer: Answer,
    found: Behaviour,
    right: Sequence[bool],
    vocabulary: Set[str],
) -> dict[int, ErrorType]:
    """Give every wrong cell its error type.

    Parameters
    ----------
    puzzle
        The puzzle, with its answer.
    answer
        The response.
    found
        Its behaviours.
    right
        For every cell whether its label is right.
    vocabulary
        What counts as a gene.

    Returns
    -------
    dict
        Number of the cell, from 1 -> its type.
    """
    gold = [puzzle.candidate_index[key] for key in puzzle.answer_keys or ()]
    cited = citations(puzzle, answer.reasoning, vocabulary)
    false = {citation.cell for citation in cited if not citation.true}

    def kind(cell: int) -> ErrorType:
        if found.concluded.get(cell) == gold[cell - 1]:
            return ErrorType.CONCLUSION
        if cell not in found.discussed:
            return ErrorType.NONE
        if cell in found.forced:
            return ErrorType.FORCED
        return ErrorType.INCORRECT if cell in false else ErrorType.PLAUSIBLE

    return {cell: kind(cell) for cell, is_right in enumerate(right, start=1) if not is_right}


class _Reading:
    """One reasoning, read."""

    def __init__(self, puzzle: Puzzle, answer: Answer) -> None:
        self.puzzle = puzzle
        self.told = read_claims(puzzle, answer.reasoning)
        self.labels = [puzzle.candidate_index.get(label_key(label)) for label in answer.labels]
        self.genes = {gene.casefold() for cell in puzzle.cells for gene in cell}

    def behaviour(self) -> Behaviour:
        concluded = self._concluded()
        eliminating = [told for told in self.told if self._eliminates(told)]
        return Behaviour(
            self_reflection=bool(self.revised),
            curriculum=self._is_ordered(),
            elimination=bool(eliminating),
            comparison=any(self._compares(told) for told in self.told),
            revised=self.revised,
            discussed=self._discussed(),
            order=tuple(dict.fromkeys(c.cell for c in self.commitments)),
            concluded=concluded,
            conflicts=tuple(
                cell
                for cell, label in sorted(concluded.items())
                if cell <= len(self.labels) and self.labels[cell - 1] != label
            ),
            forced=self._forced(eliminating),
        )

    @cached_property
    def commitments(self) -> list[Claim]:
        """Every assignment of a type to a cell; weak ones only for cells without a firm one."""
        claims = [claim for told in self.told for claim in told.claims]
        firm = {claim.cell for claim in claims if claim.strength == COMMITTED}
        made: list[Claim] = []
        held: dict[int, int] = {}
        for claim in claims:
            counts = claim.strength == COMMITTED or claim.cell not in firm
            if counts and held.get(claim.cell) != claim.label:
                held[claim.cell] = claim.label
                made.append(claim)
        return made

    @cached_property
    def revised(self) -> tuple[int, ...]:
        """Cells that change their type in a later sentence, other than in a bare list."""
        first: dict[int, Claim] = {}
        changed = set()
        for claim in self.commitments:
            earlier = first.setdefault(claim.cell, claim)
            both_firm = claim.strength == earlier.strength == COMMITTED
            if claim.label != earlier.label and claim.sentence != earlier.sentence and both_firm:
                between = self.told[earlier.sentence : claim.sentence + 1]
                argued = self._has_reason(self.told[claim.sentence])
                if argued or any(_REVISES.search(told.said.text) for told in between):
                    changed.add(claim.cell)
        return tuple(sorted(changed))

    def _is_ordered(self) -> bool:
        text = "\n".join(told.said.text for told in self.told)
        levels = {level.lower() for level in _CONFIDENCE.findall(text)}
        return bool(_ORDERED.search(text) or _PUT_OFF.search(text) or len(levels) >= 2)

    def _eliminates(self, told: Told) -> bool:
        if not _ELIMINATION.search(told.said.text):
            return False
        settled = any(c.strength == COMMITTED for c in told.claims)
        return settled or len({m.label for m in told.said.labels}) == 1

    def _compares(self, told: Told) -> bool:
        said = told.said
        cells = {cell for mention in said.cells for cell in mention.cells}
        relates = _FITS_OTHER.search(said.text) or any(is_aside(said, m) for m in said.cells)
        if said.focus and relates:
            cells.add(said.focus)  # "that fits better than Cell 2"
        names = bool(said.labels) or self._has_gene(said.text)
        return len(cells) >= 2 and names and bool(_CONTRAST.search(said.text))

    def _discussed(self) -> tuple[int, ...]:
        found: set[int] = set()
        for told in self.told:
            if self._has_reason(told):
                found |= told.said.about | {claim.cell for claim in told.claims}
        return tuple(sorted(found))

    def _concluded(self) -> dict[int, int]:
        """Replay the commitments: a type given to another cell leaves its holder open."""
        held: dict[int, int] = {}
        for claim in self.commitments:
            held = {c: label for c, label in held.items() if label != claim.label}
            held[claim.cell] = claim.label
        return held

    def _forced(self, eliminating: Sequence[Told]) -> tuple[int, ...]:
        final = set(enumerate(self.labels, start=1))
        cells = set()
        for told in self.told:
            if told in eliminating or _FORCED.search(told.said.text):
                cells |= {c.cell for c in told.claims if (c.cell, c.label) in final}
        return tuple(sorted(cells))

    def _has_reason(self, told: Told) -> bool:
        text, patterns = told.said.text, (_REASON, _ELIMINATION, _FORCED)
        return self._has_gene(text) or any(p.search(text) for p in patterns)

    def _has_gene(self, text: str) -> bool:
        return any(token.casefold() in self.genes for token in TOKEN.findall(text))
