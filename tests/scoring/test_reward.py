from __future__ import annotations

import pytest

from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.reward import batch, cell_batch
from cello1.scoring.score import score

PUZZLE = Puzzle(
    "", [["A"], ["B"], ["C"], ["D"]], ["a", "b", "c", "d", "spare"], ["a", "b", "c", "d"]
)
TABLE = [
    ("a | b | c | d", 1.0, 1.0),
    ("A |B| c|D", 1.0, 1.0),
    ("a | b | d | c", 0.0, 0.25),
    ("a | b | c | spare", 0.0, 0.375),
    ("a | b | c | foreign", 0.0, 0.375),
    ("b | a | d | c", 0.0, 0.0),
    ("a | b | c | c", 0.0, -1.0),
    ("a | b | c", 0.0, -1.0),
    ("a | b | c | d | spare", 0.0, -1.0),
    ("a | b | c | d | ", 0.0, -1.0),
    ("a | b | | d", 0.0, -1.0),
    ("", 0.0, -1.0),
]


@pytest.mark.parametrize(("answer", "by_batch", "by_cell"), TABLE)
def test_the_rewards_of_a_valid_response_are_those_of_the_paper(answer, by_batch, by_cell):
    worth = score(PUZZLE, f"<think>x</think>\n<answer>{answer}</answer>")
    assert (batch(worth), cell_batch(worth)) == (by_batch, by_cell)
    assert isinstance(batch(worth), float)
    assert isinstance(cell_batch(worth), float)


@pytest.mark.parametrize(
    "text", ["", "a | b | c | d", "<think>x</think><answer>a | b | c | d</answer>"]
)
def test_an_invalid_format_costs_one_in_both(text):
    worth = score(PUZZLE, text)
    assert (batch(worth), cell_batch(worth)) == (-1.0, -1.0)
