"""How one response comes to its answer: the behaviours of arXiv 2506.02911, told by rule.

Each detector is a plain rule over the sentences and claims of a reasoning; docs/behaviour.md says
how often each is right on responses labelled by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cello1.behaviour.claims import (
    COMMITTED,
    Claim,
    Sentence,
    is_aside,
    read_claims,
)
from cello1.citations.citations import TOKEN
from cello1.puzzles.answer import Answer
from cello1.puzzles.puzzle import Puzzle, label_key

FLAGS = ("self_reflection", "curriculum", "elimination", "comparison")

_REVISES = re.compile(
    r"\b(?:wait|actually|on reflection|reconsider|revis\w+|correct(?:ed|ion)|instead|wrong|mistake|"
    r"hold on|scratch that|swap|switch|exchange|take back|change[ds]?|after all|no longer|"
    r"second (?:pass|look)|looking again|rather)\b",
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
    r"|\bremaining type\b|\bis left\b"
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
    """What one well-formed response does; positions of types are those of the candidates.

    Attributes
    ----------
    self_reflection
        A type that a cell was given is changed in a later step.
    curriculum
        The text orders the cells by how sure they are, or puts a cell off.
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
        Cell -> the last type that the reasoning gives it and does not take away again.
    conflicts
        Cells whose answer is another type than the reasoning concludes.
    forced
        Cells whose type was given as left over, or against the evidence.
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


class _Reading:
    """One reasoning, read."""

    def __init__(self, puzzle: Puzzle, answer: Answer) -> None:
        self.puzzle = puzzle
        self.sentences = read_claims(puzzle, answer.reasoning)
        self.labels = [puzzle.candidate_index.get(label_key(label)) for label in answer.labels]
        self.genes = {gene.casefold() for cell in puzzle.cells for gene in cell}

    def behaviour(self) -> Behaviour:
        concluded = self._concluded()
        eliminating = [s for s in self.sentences if self._eliminates(s)]
        return Behaviour(
            self_reflection=bool(self.revised),
            curriculum=self._is_ordered(),
            elimination=bool(eliminating),
            comparison=any(self._compares(s) for s in self.sentences),
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
        """Every time a cell is given a type, or another one; weak ones where no firm one is."""
        claims = [claim for s in self.sentences for claim in s.claims]
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
        """Cells that change their type in a later sentence, and not just in a bare list."""
        first: dict[int, Claim] = {}
        changed = set()
        for claim in self.commitments:
            earlier = first.setdefault(claim.cell, claim)
            both_firm = claim.strength == earlier.strength == COMMITTED
            if claim.label != earlier.label and claim.sentence != earlier.sentence and both_firm:
                between = self.sentences[earlier.sentence : claim.sentence + 1]
                argued = self._has_reason(self.sentences[claim.sentence])
                if argued or any(_REVISES.search(s.text) for s in between):
                    changed.add(claim.cell)
        return tuple(sorted(changed))

    def _is_ordered(self) -> bool:
        text = "\n".join(s.text for s in self.sentences)
        levels = {level.lower() for level in _CONFIDENCE.findall(text)}
        return bool(_ORDERED.search(text) or _PUT_OFF.search(text) or len(levels) >= 2)

    def _eliminates(self, sentence: Sentence) -> bool:
        if not _ELIMINATION.search(sentence.text):
            return False
        return bool(sentence.labels) or any(c.strength == COMMITTED for c in sentence.claims)

    def _compares(self, sentence: Sentence) -> bool:
        cells = {cell for mention in sentence.cells for cell in mention.cells}
        relates = _FITS_OTHER.search(sentence.text) or any(
            is_aside(sentence, mention) for mention in sentence.cells
        )
        if sentence.focus and relates:
            cells.add(sentence.focus)  # "that fits better than Cell 2"
        told = bool(sentence.labels) or self._has_gene(sentence.text)
        return len(cells) >= 2 and told and bool(_CONTRAST.search(sentence.text))

    def _discussed(self) -> tuple[int, ...]:
        found: set[int] = set()
        for sentence in self.sentences:
            if self._has_reason(sentence):
                found |= sentence.about | {claim.cell for claim in sentence.claims}
        return tuple(sorted(found))

    def _concluded(self) -> dict[int, int]:
        """Play the commitments through: a type given to another cell leaves its holder open."""
        held: dict[int, int] = {}
        for claim in self.commitments:
            held = {c: label for c, label in held.items() if label != claim.label}
            held[claim.cell] = claim.label
        return held

    def _forced(self, eliminating: Sequence[Sentence]) -> tuple[int, ...]:
        final = {(c.cell, label) for c in self.commitments for label in [self._final(c.cell)]}
        cells = set()
        for sentence in self.sentences:
            if sentence in eliminating or _FORCED.search(sentence.text):
                cells |= {c.cell for c in sentence.claims if (c.cell, c.label) in final}
        return tuple(sorted(cells))

    def _final(self, cell: int) -> int | None:
        return self.labels[cell - 1] if cell <= len(self.labels) else None

    def _has_reason(self, sentence: Sentence) -> bool:
        patterns = (_REASON, _ELIMINATION, _FORCED)
        return self._has_gene(sentence.text) or any(p.search(sentence.text) for p in patterns)

    def _has_gene(self, text: str) -> bool:
        return any(token.casefold() in self.genes for token in TOKEN.findall(text))
