"""Parse a response: either the labels it assigns, or why it cannot be read.

:func:`parse_response` is the one parser behind evaluation, rejection sampling and reinforcement
learning. It is strict: after trimming, the whole text is ``<think>..</think>``, one newline,
``<answer>..</answer>``, and each tag occurs exactly once.

:func:`parse_tolerantly` also reads deviations that a person would accept as a clear answer (no
opening think tag, bold or numbered labels, one line per cell). It never chooses between two
readings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cello1.puzzles.puzzle import Puzzle, label_key

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_JOINT = "</think>\n<answer>"
_TAG = re.compile("|".join(TAGS))


class Fault(StrEnum):
    """Why a response cannot be read."""

    TAGS = "tags"
    TEXT_BEFORE = "text before"
    TEXT_AFTER = "text after"
    JOINT = "joint"
    NO_ANSWER = "no answer"
    AMBIGUOUS = "ambiguous"
    CUT_OFF = "cut off"


class Repair(StrEnum):
    """Deviations from the format that a tolerant reading accepts."""

    TAGS = "tags missing or spelled otherwise"
    OUTSIDE = "other blanks or text around the tags"
    END_TOKEN = "end-of-turn token"
    BARS = "other or additional bars"
    LINES = "one line per cell"
    NUMBERS = "numbered labels"
    MARKUP = "bold, quoted or code labels"
    CHARACTERS = "typographic hyphens, blanks or letters"
    FULL_STOP = "trailing punctuation"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that can be read.

    Attributes
    ----------
    labels
        Texts between the '|', trimmed; an empty slot is an empty string.
    reasoning
        Content of the think block, unchanged.
    """

    labels: tuple[str, ...]
    reasoning: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A response that cannot be read: the reason as text and as a code."""

    reason: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Tolerated:
    """A response read tolerantly.

    Attributes
    ----------
    answer
        Labels are spelled like the candidates; those that match none are unchanged.
    repairs
        Deviations from the format; empty if the strict parser gives the same answer.
    """

    answer: Answer
    repairs: tuple[Repair, ...]


def assembled(content: str, thoughts: str) -> str:
    """Prepend reasoning that came in a separate field as a think block.

    Tags inside the reasoning become blanks, so that they cannot be taken for blocks. The content is
    unchanged: a missing answer block is never added.
    """
    if not thoughts or "<think>" in content:
        return content
    said = content.strip().removeprefix("</think>").strip()
    return f"<think>{_TAG.sub(' ', thoughts)}</think>\n{said}"


def parse_response(text: str) -> Answer | Malformed:
    """Parse a response, or return which rule of the format it breaks."""
    text = text.strip()
    joint = text.rfind(_JOINT)
    framed = text.startswith("<think>") and text.endswith("</answer>") and joint >= 0
    # With four '<' in all, each belongs to one of the tags found, so that no tag can occur
    # elsewhere; this saves four searches in most texts.
    if not (framed and text.count("<") == len(TAGS)):
        for tag in TAGS:
            count = text.count(tag)
            if count != 1:
                return Malformed(f"{tag} appears {count} times instead of once", Fault.TAGS)
        if not text.startswith("<think>"):
            return Malformed("there is text before <think>", Fault.TEXT_BEFORE)
        if not text.endswith("</answer>"):
            return Malformed("there is text after </answer>", Fault.TEXT_AFTER)
        if joint < 0:
            return Malformed(
                "</think> and <answer> are not joined by exactly one newline", Fault.JOINT
            )
    answer = text[joint + len(_JOINT) : -len("</answer>")]
    labels = tuple([slot.strip() for slot in answer.split("|")])
    return Answer(labels, text[len("<think>") : joint])


_END_TOKEN = re.compile(
    r"(?:(?:<\|[\w\s-]{1,30}\|>|<\uff5c[\w\s\u2581-]{1,40}\uff5c>|</s>|<eos>|<end_of_turn>)\s*)+$"
)
_THINK = re.compile(r"<\s*think(?:ing)?\s*>", re.IGNORECASE)
_THOUGHT = re.compile(r"<\s*/\s*think(?:ing)?\s*>", re.IGNORECASE)
_BLOCK = re.compile(
    r"<\s*answer\s*>(.*?)(<\s*/\s*answer\s*>|(?=<\s*answer\s*>)|$)", re.IGNORECASE | re.DOTALL
)
_BARS = re.compile("[\uff5c\u00a6\u2502\u2503]")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_ANNOUNCED = re.compile(r"^[^|:]{0,60}:\W*?(?=\w)")
_OF_CELL = re.compile(
    r"^[^\w|]{0,20}\|?[^\w|]{0,20}cell\s*#?\s*(\d{1,3})\W*?\s*(?:->|=>|[:=|\u2192\u2013\u2014-])\s*(.+)$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"^[^\w|]{0,20}(?:cell\s*)?#?\s*(\d{1,3})\W*?\s*(?:->|=>|\s-\s|[.:)=|\u2192\u2013\u2014])\s*(\S.*)$",
    re.IGNORECASE | re.DOTALL,
)
_HYPHENS = re.compile("[\u00ad\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d]")
_GREEK = {"\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta",
          "\u03b5": "epsilon"}  # fmt: skip
_MARKUP = "*_`\"'\u201c\u201d\u2018\u2019~"


def parse_tolerantly(text: str, puzzle: Puzzle) -> Tolerated | Malformed:
    """Parse a response as a person would, or return why it has no single clear reading.

    Besides the exact format it accepts missing, repeated or misspelled tags around one answer, an
    answer without tags (a last line of labels, or one line ``Cell 1: type`` for every cell), labels
    on separate lines, numbered, bold, quoted, in code fences, with other bars, hyphens, blanks or a
    full stop.

    Parameters
    ----------
    text
        The response.
    puzzle
        The puzzle; only its candidates are recognized.

    Returns
    -------
    Tolerated or Malformed
        ``Malformed`` if two answers differ, numbers do not match the cells, the last label may
        have been cut off, or there is no answer.
    """
    strict, reader = parse_response(text), _Tolerant(puzzle)
    if isinstance(strict, Answer) and all(reader.is_candidate(label) for label in strict.labels):
        return Tolerated(strict, ())
    return reader.read(text)


_CUT = Malformed("the last label may be cut off", Fault.CUT_OFF)


class _Tolerant:
    """Reads responses to one puzzle."""

    def __init__(self, puzzle: Puzzle) -> None:
        self.n = len(puzzle.cells)
        self.candidates = puzzle.candidates
        self.exact: Mapping[str, int] = puzzle.candidate_index
        plain: dict[str, int | None] = {}
        for j, candidate in enumerate(puzzle.candidates):
            key = _plain(candidate)
            plain[key] = None if key in plain else j  # ambiguous candidates are never guessed
        self.plain = plain

    def is_candidate(self, label: str) -> bool:
        return label_key(label) in self.exact

    def read(self, text: str) -> Tolerated | Malformed:
        repairs: set[Repair] = set()
        trimmed = _END_TOKEN.sub("", text)
        if trimmed != text and trimmed.strip() != text.strip():
            repairs.add(Repair.END_TOKEN)
        thought = _THOUGHT.search(trimmed)
        tail = trimmed[thought.end() if thought else 0 :]
        head = trimmed[: thought.start()] if thought else ""
        blocks = list(_BLOCK.finditer(tail))
        found: set[tuple[str, ...]] = set()
        for block in blocks:
            labels = self._labels(block[1], repairs)
            if labels is None:
                return Malformed("the numbers of the labels do not count the cells",
                                 Fault.AMBIGUOUS)  # fmt: skip
            if not block[2] and self._may_be_cut(labels[-1]):
                return _CUT
            found.add(labels)
        if blocks:
            reasoning = head if thought else tail[: blocks[0].start()]
            after = _BLOCK.sub("\n", tail[blocks[0].start() :])
        elif thought is None and _THINK.search(trimmed):
            return Malformed("the reasoning has no end", Fault.CUT_OFF)
        else:
            reasoning, after = (head, tail) if thought else ("", tail)
        bare = set(self._bare(after, repairs, anywhere=bool(blocks)))
        if not blocks and not bare:
            return Malformed("no answer is found", Fault.NO_ANSWER)
        if len(found | bare) > 1:
            return Malformed("several answers are given, and they differ", Fault.AMBIGUOUS)
        if bare and self._may_be_cut(re.split(r"[|:>\n]", trimmed)[-1]):
            return _CUT
        strict = parse_response(trimmed)
        if isinstance(strict, Malformed):
            repairs.add(Repair.TAGS if strict.fault is Fault.TAGS else Repair.OUTSIDE)
        (labels,) = found | bare
        answer = Answer(labels, _THINK.sub("", reasoning, count=1))
        return Tolerated(answer, tuple(r for r in Repair if r in repairs))

    def _labels(self, block: str, repairs: set[Repair]) -> tuple[str, ...] | None:
        """Split an answer into labels; None if their numbers do not match the cells."""
        plain = _BARS.sub("|", block)
        if plain != block:
            repairs.add(Repair.BARS)
        unfenced = _FENCE.sub("", plain).strip()
        if unfenced != plain.strip():
            repairs.add(Repair.MARKUP)
        lines = [line.strip() for line in unfenced.split("\n") if line.strip()]
        rows = [_NUMBERED.match(line.strip("| ")) for line in lines]
        if len(lines) > 1 and (all(rows) or "|" not in unfenced):
            repairs.add(Repair.LINES)
            slots = [line.strip("| ") for line in lines]
        else:
            slots = [slot.strip() for slot in unfenced.split("|")]
            while len(slots) > self.n and not (slots[0] and slots[-1]):
                slots = slots[:-1] if not slots[-1] else slots[1:]
                repairs.add(Repair.BARS)
        numbered = [None if self.is_candidate(s) else _NUMBERED.match(s) for s in slots]
        if any(numbered) and all(numbered):
            by_number = {int(m[1]): m[2] for m in numbered if m}
            if sorted(by_number) != list(range(1, len(slots) + 1)):
                return None
            repairs.add(Repair.NUMBERS)
            slots = [by_number[i + 1] for i in range(len(slots))]
        return tuple(self._label(slot, repairs) for slot in slots)

    def _label(self, slot: str, repairs: set[Repair]) -> str:
        """Return the candidate that a slot names, else the slot unchanged."""
        tried, overlooked = slot.strip(), set[Repair]()
        for repair, mend in _MENDS:
            if (j := self.exact.get(label_key(tried))) is not None:
                repairs |= overlooked
                return self.candidates[j]
            mended = mend(tried)
            if mended != tried:
                overlooked.add(repair)
            tried = mended
        position = self.plain.get(_plain(tried))
        if position is None:
            return slot.strip()
        if label_key(tried) not in self.exact:
            overlooked.add(Repair.CHARACTERS)
        repairs |= overlooked
        return self.candidates[position]

    def _bare(
        self, text: str, repairs: set[Repair], *, anywhere: bool
    ) -> Iterator[tuple[str, ...]]:
        """Yield complete answers in a text without tags.

        Numbered lists are skipped: in running text they list the candidates as often as the cells.
        So does a line of labels, which counts only as the last line, after "answer:", or `anywhere`
        (beside an answer in tags, which it may contradict).
        """
        lines = [line.strip() for line in _BARS.sub("|", text).split("\n") if line.strip()]
        lines = [line for line in lines if not _FENCE.match(line)]
        cells: dict[int, set[str]] = {}
        of_cells = {Repair.LINES}
        for i, line in enumerate(lines):
            if match := _OF_CELL.match(line):
                label = self._label(match[2].strip("| "), of_cells)
                if self.is_candidate(label):
                    cells.setdefault(int(match[1]), set()).add(label)
                continue
            announced = _ANNOUNCED.match(line)
            if anywhere or i == len(lines) - 1 or (announced and "answer" in announced[0].lower()):
                overlooked = set[Repair]()
                slots = line[announced.end() if announced else 0 :].strip("| ").split("|")
                labels = tuple(self._label(slot, overlooked) for slot in slots)
                if len(labels) == self.n and all(map(self.is_candidate, labels)):
                    repairs |= overlooked
                    yield labels
        if sorted(cells) == list(range(1, self.n + 1)):
            repairs |= of_cells
            yield tuple(min(cells[i + 1]) for i in range(self.n))
            # Differs if a cell has two types, so that neither is chosen.
            yield tuple(max(cells[i + 1]) for i in range(self.n))

    def _may_be_cut(self, label: str) -> bool:
        """Return whether a last label without an end may be the beginning of another candidate."""
        key = label_key(label.strip(_MARKUP + " "))
        return bool(key) and any(c.startswith(key) and c != key for c in self.exact)


def _unmark(label: str) -> str:
    return re.sub(r"^(?:[-+\u2022]\s+)?", "", label).strip(_MARKUP + " \t\r\n")


def _typeset(label: str) -> str:
    text = _HYPHENS.sub("-", unicodedata.normalize("NFKC", label))
    for letter, name in _GREEK.items():
        text = text.replace(letter, name)
    return " ".join(text.split())


def _unstop(label: str) -> str:
    return label.rstrip(".;, ")


def _plain(label: str) -> str:
    return label_key(_unstop(_typeset(_unmark(label))))


_MENDS = (
    (Repair.MARKUP, _unmark),
    (Repair.FULL_STOP, _unstop),
    (Repair.MARKUP, _unmark),
    (Repair.CHARACTERS, _typeset),
)
