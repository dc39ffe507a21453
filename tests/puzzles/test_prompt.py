from __future__ import annotations

import json

import pytest
from hypothesis import given
from puzzle_strategies import puzzles

from cello1.errors import PuzzleError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.prompt import (
    messages,
    read_user_message,
    response_text,
    system_message,
    user_message,
)
from cello1.puzzles.puzzle import Puzzle

QUESTION = "\n\nMatch the cells above to one of the following cell types:\n"
LAYOUT = f"Context: Blood. \n\nCell 1: CD3D, CD3E\nCell 2: MS4A1{QUESTION}B cell\nT cell"
PUZZLE = Puzzle(
    context="Blood. ",
    cells=[["CD3D", "CD3E"], ["MS4A1"]],
    candidates=["B cell", "T cell"],
    answer=["T cell", "B cell"],
    meta={"donor_id": "secret donor", "cell_ids": ["secret 1", "secret 2"]},
)


def test_the_user_message_is_the_published_layout_and_nothing_more():
    assert user_message(PUZZLE) == LAYOUT


def test_the_chat_is_one_system_and_one_user_turn_and_gives_nothing_away():
    chat = messages(PUZZLE)
    assert [turn.role for turn in chat] == ["system", "user"]
    assert chat == messages(Puzzle(PUZZLE.context, PUZZLE.cells, PUZZLE.candidates))
    assert "secret" not in "".join(turn.content for turn in chat)


@given(puzzles())
def test_what_is_rendered_reads_back_as_it_was(puzzle):
    question = read_user_message(user_message(puzzle))
    assert question == (puzzle.context, puzzle.cells, puzzle.candidates)


@given(puzzles())
def test_the_gold_response_reads_back_as_the_answer(puzzle):
    answer = puzzle.answer or puzzle.candidates
    assert parse_response(response_text("because", answer)) == Answer(answer, "because")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        LAYOUT.removeprefix("Context: "),
        LAYOUT.replace(QUESTION, "\n\n"),
        LAYOUT.replace(QUESTION, QUESTION.rstrip()),
        LAYOUT.replace("\n\nCell 1", "\nCell 1"),
        LAYOUT.replace("\nCell 1: CD3D, CD3E", ""),
        LAYOUT.replace("Cell 2", "Cell 3"),
        LAYOUT.replace("Cell 2", "Cell 02"),
        LAYOUT.replace("Cell 2", "Cell \u0662"),
        LAYOUT.replace("Cell 2", "cell 2"),
        LAYOUT.replace("\nCell 2", "\n\nCell 2"),
        LAYOUT.replace("CD3D, CD3E", "CD3D,CD3E"),
        LAYOUT.replace("CD3D, CD3E", "CD3D,  CD3E"),
        LAYOUT.replace("MS4A1", ""),
        LAYOUT + "\n",
        LAYOUT.replace("\n", "\r\n"),
    ],
)
def test_a_message_in_another_layout_is_refused(text):
    with pytest.raises(PuzzleError):
        Puzzle(*read_user_message(text))


def test_the_first_missing_part_is_named():
    with pytest.raises(PuzzleError, match=r"expected 'Cell 2: \.\.\.' .* not 'Cell 3: MS4A1'"):
        read_user_message(LAYOUT.replace("Cell 2", "Cell 3"))


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        (["B cell", "T cell"], "2 types are on offer and each belongs to exactly one cell"),
        (["B cell", "T cell", "mast cell"], "1 of them fit no cell"),
    ],
)
def test_our_system_message_states_the_contract(candidates, said):
    text = system_message(Puzzle(PUZZLE.context, PUZZLE.cells, candidates))
    for part in (said, "2 cells of one donor", "<think>", "</think>", "<answer>", "' | '"):
        assert part in text


def test_the_system_message_of_the_row_wins():
    assert system_message(Puzzle(PUZZLE.context, PUZZLE.cells, PUZZLE.candidates)) != "Be brief."
    own = Puzzle(PUZZLE.context, PUZZLE.cells, PUZZLE.candidates, meta={"system_msg": "Be brief."})
    assert messages(own)[0].content == "Be brief."


def test_the_published_example_renders_byte_for_byte(shared):
    row = json.loads((shared / "cellpuzzles_example.json").read_bytes())
    puzzle = Puzzle(*read_user_message(row["user_msg"]))
    assert user_message(puzzle).encode() == row["user_msg"].encode()
    assert puzzle.context.endswith("There is no cancer present. ")
    assert [len(genes) for genes in puzzle.cells] == [27, 26, 27]
