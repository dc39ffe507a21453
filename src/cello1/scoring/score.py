"""The score of a response: the one function behind evaluation, distillation and RL.

Definitions follow arXiv 2506.02911 (section 4, metrics); where the published script deviates
from them (extra labels still count as exact, labels outside the list go unnoticed), the
definitions win.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cello1.errors import PuzzleError, brief
from cello1.puzzles.answer import Malformed, parse_response
from cello1.puzzles.puzzle import Puzzle, label_key


class LabelFault(StrEnum):
    """Why labels are not an assignment."""

    NUMBER = "wrong number"
    EMPTY = "empty slot"
    REPEATED = "repeated"
    FOREIGN = "not among the candidates"


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one response.

    Attributes
    ----------
    format_valid
        The text is in the exact format of :mod:`cello1.puzzles.answer`.
    cell_accuracy
        Share of cells with the right label; 0 when the number of labels is wrong.
    exact
        All N cells are right and no other label is given.
    uniqueness
        Different labels / labels given.
    complete
        N labels were given and none is empty.
    reason
        What was wrong, in words; empty for an answer with N different candidates.
    right
        For every cell whether its label is right, in cell order.
    faults
        What was wrong with the labels, as codes; empty where the format is not valid.
    """

    format_valid: bool
    cell_accuracy: float
    exact: bool
    uniqueness: float
    complete: bool
    reason: str
    right: tuple[bool, ...]
    faults: tuple[LabelFault, ...] = ()

    @property
    def reward(self) -> float:
        """The paper's main reward: -1 for a bad format, else 1 if the whole batch is right."""
        return float(self.exact) if self.format_valid else -1.0


def score(puzzle: Puzzle, text: str) -> Score:
    """Score one response to a puzzle whose answer is known.

    Labels compare by position, ignoring case and outer blanks. A label given twice or not on
    offer is never right. A wrong number of labels or an empty slot makes every cell wrong,
    because positions then mean nothing.

    Raises
    ------
    PuzzleError
        When the puzzle has no answer.
    """
    gold = _gold(puzzle)
    response = parse_response(text)
    if isinstance(response, Malformed):
        return Score(False, 0.0, False, 0.0, False, response.reason, (False,) * len(gold))
    return score_labels(puzzle, response.labels)


def score_labels(puzzle: Puzzle, labels: Sequence[str]) -> Score:
    """Score labels that have been parsed, by the rules of :func:`score`."""
    gold = _gold(puzzle)
    keys = [label_key(label) for label in labels]
    if len(keys) == len(gold) and tuple(keys) == gold:
        return Score(True, 1.0, True, 1.0, True, "", (True,) * len(gold))

    different = set(keys)
    if len(keys) == len(gold) == len(different) and different <= puzzle.candidate_index.keys():
        right = tuple([k == g for k, g in zip(keys, gold, strict=True)])
        return Score(True, sum(right) / len(right), False, 1.0, True, "", right)

    given = Counter(key for key in keys if key)
    uniqueness = len(given) / given.total() if given else 0.0
    complete = len(keys) == len(gold) == given.total()
    if complete:
        right = tuple([k == g and given[k] == 1 for k, g in zip(keys, gold, strict=True)])
    else:
        right = (False,) * len(gold)
    faults = _faults(puzzle, labels, keys, given)
    return Score(
        True, sum(right) / len(right), False, uniqueness, complete, "; ".join(faults.values()),
        right, tuple(faults),
    )  # fmt: skip


def _gold(puzzle: Puzzle) -> tuple[str, ...]:
    if puzzle.answer_keys is None:
        raise PuzzleError(f"puzzle {puzzle.id} has no answer, so nothing can be scored against it")
    return puzzle.answer_keys


def _faults(
    puzzle: Puzzle, labels: Sequence[str], keys: list[str], given: Counter[str]
) -> dict[LabelFault, str]:
    """Return every reason why the labels are not an assignment, by code."""
    found = {}
    if len(keys) != len(puzzle.cells):
        found[LabelFault.NUMBER] = f"{len(keys)} labels for {len(puzzle.cells)} cells"
    empty = [str(i) for i, key in enumerate(keys, start=1) if not key]
    if empty:
        found[LabelFault.EMPTY] = f"empty slot at {', '.join(empty[:5])}"
    first = dict(zip(reversed(keys), reversed(labels), strict=True))
    repeated = [first[key] for key, count in given.items() if count > 1]
    if repeated:
        found[LabelFault.REPEATED] = f"repeated: {brief(repeated, 120)}"
    foreign = [first[key] for key in given if key not in puzzle.candidate_index]
    if foreign:
        found[LabelFault.FOREIGN] = f"not among the candidates: {brief(foreign, 120)}"
    return found
