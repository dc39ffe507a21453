from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from puzzle_strategies import puzzles

from cello1.errors import PuzzleError
from cello1.puzzles.puzzle import Puzzle

GOOD = {
    "context": "Blood of a woman.",
    "cells": [["CD3D", "CD3E"], ["MS4A1"]],
    "candidates": ["T cell", "B cell"],
    "answer": ["T cell", "B cell"],
}
BAD_NAMES = ("a|b", "a\nb", "a\rb", "a\tb", "a\u2028b", "<answer>", "x</THINK>", "", " a", "a ")


def test_a_puzzle_turns_lists_into_tuples():
    puzzle = Puzzle(**GOOD)
    assert puzzle.cells == (("CD3D", "CD3E"), ("MS4A1",))
    assert puzzle.candidates == puzzle.answer == ("T cell", "B cell")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cells": [["CD3D"]], "answer": None}, "this one has 1"),
        ({"cells": [["CD3D"], []]}, "cell 2 has no genes"),
        ({"cells": [["CD3D"], ["MS4A1", "A,B"]]}, "'A,B' of cell 2"),
        ({"cells": ["CD3D", "MS4A1"]}, "'CD3D'"),
        ({"cells": [["CD3D"], [None]]}, "None"),
        ({"candidates": "T cell"}, "'T cell'"),
        ({"candidates": ["T cell", 5]}, "5"),
        ({"candidates": ["T cell", "B cell", "b CELL"]}, "'B cell' is listed more than once"),
        ({"candidates": ["T cell"], "answer": None}, "2 cells but only 1 candidates"),
        ({"answer": ["T cell"]}, "1 labels for 2 cells"),
        ({"answer": ["T cell", "NK cell"]}, "'NK cell' is not among the candidates"),
        ({"answer": ["T cell", "t cell"]}, "(?i)'t cell'"),
        ({"context": "two\n\nparagraphs"}, "two"),
        ({"context": "a\nline"}, "a..line"),
        ({"context": "<think>"}, "<think>"),
    ],
)
def test_a_broken_invariant_is_refused_with_the_offending_value(change, named):
    with pytest.raises(PuzzleError, match=named):
        Puzzle(**(GOOD | change))


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    "place",
    [
        lambda name: {"cells": [["CD3D", name], ["MS4A1"]]},
        lambda name: {"candidates": ["T cell", "B cell", name]},
    ],
    ids=["gene", "candidate"],
)
def test_a_name_that_would_forge_the_text_is_refused(place, name):
    with pytest.raises(PuzzleError) as refused:
        Puzzle(**(GOOD | place(name)))
    assert repr(name) in str(refused.value)


def test_a_text_that_no_file_can_hold_is_refused():
    with pytest.raises(PuzzleError, match="ud800"):
        Puzzle(**(GOOD | {"candidates": ["T cell", "B cell", "\ud800"]}))


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": ["T cell", "B cell", "NK cell", "mast cell"]},
        {"candidates": ["T cell", "B cell", 'the "killer"', "l'été", "β细胞"]},
        {"answer": None},
        {"answer": ["t CELL", "b cell"]},
        {"context": ""},
        {"context": "HLA-A | HLA-B, 'quoted', ends in a blank "},
    ],
)
def test_what_the_rules_allow_is_kept_as_it_is(change):
    puzzle = Puzzle(**(GOOD | change))
    for name, value in change.items():
        kept = getattr(puzzle, name)
        assert (list(kept) if isinstance(value, list) else kept) == value


def test_the_id_is_the_same_for_ever():
    assert Puzzle(**GOOD).id == "4bfea91d8d9715be"


@given(puzzles())
def test_the_id_is_the_hash_of_the_question_as_json(puzzle):
    question = [puzzle.context, puzzle.cells, puzzle.candidates]
    content = json.dumps(question, ensure_ascii=False).encode()
    assert puzzle.id == hashlib.sha256(content).hexdigest()[:16]


@given(puzzles())
def test_the_id_depends_on_the_question_only(puzzle):
    assert replace(puzzle, answer=None, meta={"donor_id": "other"}).id == puzzle.id
    assert replace(puzzle, context=puzzle.context + " ").id != puzzle.id
    assert replace(puzzle, candidates=puzzle.candidates[::-1]).id != puzzle.id
    assert replace(puzzle, cells=(*puzzle.cells[:-1], (*puzzle.cells[-1], "X"))).id != puzzle.id


@given(puzzles(), st.randoms(use_true_random=False))
def test_permuting_cells_permutes_the_answer_and_nothing_else(puzzle, random):
    order = random.sample(range(len(puzzle.cells)), len(puzzle.cells))
    moved = puzzle.permute_cells(order)
    assert moved.cells == tuple(puzzle.cells[i] for i in order)
    assert moved.answer == (puzzle.answer and tuple(puzzle.answer[i] for i in order))
    assert moved.meta == dict(puzzle.meta, cell_ids=[f"c{i}" for i in order])
    assert (moved.context, moved.candidates) == (puzzle.context, puzzle.candidates)
    back = [order.index(i) for i in range(len(order))]
    assert moved.permute_cells(back) == puzzle


@pytest.mark.parametrize("order", [[0, 0], [0], [0, 1, 2], [1, 2], []])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(PuzzleError, match="is not an order of 2 cells"):
        Puzzle(**GOOD).permute_cells(order)
