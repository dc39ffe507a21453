"""Votes are counted over answers as a person would read them."""

from __future__ import annotations

import pytest

from cello1.annotate.batches import Batch
from cello1.annotate.pool import count_votes
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle

TYPES = ("B cell", "T cell", "NK cell")
CLEAR = (
    "<think>x</think>\n<answer>B cell | T cell</answer>",
    "x</think>\n\n<answer>**B cell** | **T cell**.</answer>",
    "<think>x</think>\nCell 1: B cell\nCell 2: T cell",
)
UNCLEAR = "<answer>B cell | T cell</answer>\nor\n<answer>T cell | B cell</answer>"


def votes(*texts):
    batches = [
        Batch(Puzzle(f"c{i}", [("A",), ("B",)], TYPES), (0, 1), (0, 1)) for i in range(len(texts))
    ]
    records = {b.puzzle.id: {"text": t} for b, t in zip(batches, texts, strict=True)}
    return count_votes(batches, [(0, 1)] * len(texts), 2, TYPES, records)


def test_a_clear_answer_counts_in_any_format_and_an_unclear_one_does_not():
    found = votes(*CLEAR, UNCLEAR)
    assert found.chosen.tolist() == [[3, 0, 0], [0, 3, 0]]
    assert found.unread.tolist() == [1, 1]


def test_only_unclear_answers_are_an_error():
    with pytest.raises(InputError, match="several answers are given"):
        votes(UNCLEAR)
