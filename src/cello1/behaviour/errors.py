"""Why a cell is wrong: the five error types of arXiv 2506.02911, as far as rules can tell them.

Two can be told by rule: *no reasoning* (nothing is said of the cell) and *right reasoning, wrong
conclusion* (the reasoning gives the right type, the answer another). *Forced assignment* is told
by its words. Of *incorrect reasoning* a rule sees only one kind, genes cited that are not in the
cell's list; false biology needs a judge, and what is left counts as *plausible but incorrect*.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from cello1.behaviour.detect import Behaviour
from cello1.behaviour.names import Names, plain
from cello1.citations.citations import citations
from cello1.puzzles.answer import Answer
from cello1.puzzles.puzzle import Puzzle

NONE = "no reasoning"
INCORRECT = "incorrect reasoning"
PLAUSIBLE = "plausible but incorrect"
FORCED = "forced assignment"
CONCLUSION = "right reasoning, wrong conclusion"
ERRORS = (NONE, INCORRECT, PLAUSIBLE, FORCED, CONCLUSION)


def error_types(
    puzzle: Puzzle,
    answer: Answer,
    found: Behaviour,
    right: Sequence[bool],
    vocabulary: Set[str],
) -> dict[int, str]:
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
        Number of the cell, from 1 -> one of :data:`ERRORS`.
    """
    gold = [puzzle.candidate_index[key] for key in puzzle.answer_keys or ()]
    cited = citations(puzzle, _without_names(puzzle, answer.reasoning), vocabulary)
    false = {citation.cell for citation in cited if not citation.true}

    def kind(cell: int) -> str:
        if found.concluded.get(cell) == gold[cell - 1]:
            return CONCLUSION
        if cell not in found.discussed:
            return NONE
        if cell in found.forced:
            return FORCED
        return INCORRECT if cell in false else PLAUSIBLE

    return {cell: kind(cell) for cell, is_right in enumerate(right, start=1) if not is_right}


def _without_names(puzzle: Puzzle, reasoning: str) -> str:
    """Blank out the names of types, for `CD4+ T cell` cites no gene."""
    text = plain(reasoning)
    for mention in Names(puzzle).find(text):
        text = text[: mention.start] + " " * (mention.end - mention.start) + text[mention.end :]
    return text
