import json

import pandas as pd
import pytest

from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.score import score
from cello1.training.run.traces import (
    answers_only,
    make_trace,
    read_traces,
    response_of,
    write_traces,
)


def right(puzzle: Puzzle) -> str:
    return response_text("Cell 1 first.", puzzle.answer)


@pytest.mark.parametrize("suffix", ["parquet", "json", "jsonl"])
def test_a_trace_comes_back_as_it_was_written(toys, tmp_path, suffix):
    traces = [
        make_trace(puzzle, right(puzzle), teacher="markers", sample=i, hint=i == 1)
        for i, puzzle in enumerate(toys[:3])
    ]
    write_traces(traces, tmp_path / f"t.{suffix}")
    back = read_traces(tmp_path / f"t.{suffix}")
    assert back == traces
    assert [response_of(t) for t in back] == [right(p) for p in toys[:3]]
    assert [t.meta.get("hint") for t in back] == [None, True, None]
    assert [t.meta["sample"] for t in back] == [0, 1, 2]


def test_published_rows_with_responses_are_traces(shared, tmp_path):
    rows = [json.loads(line) for line in (shared / "data/cellpuzzles_rows.jsonl").open()]
    for row in rows:
        labels = tuple(row.pop("answer").split(" | "))
        row["assistant_msg"] = response_text("I look at cell 1.\n\nThen on.", labels)
    path = tmp_path / "reasoning.parquet"
    pd.DataFrame(rows)[["user_msg", "assistant_msg"]].to_parquet(path)
    traces = read_traces(path)
    assert [response_of(t) for t in traces] == [row["assistant_msg"] for row in rows]
    assert all(score(t, response_of(t)).exact for t in traces)


def test_answers_alone_are_valid_traces_with_an_empty_think_block(toys):
    for trace in answers_only(toys):
        assert response_of(trace).startswith("<think></think>\n<answer>")
        assert score(trace, response_of(trace)).exact


def test_a_puzzle_without_response_is_named(toys, tmp_path):
    trace = make_trace(toys[0], right(toys[0]), teacher="markers", sample=0)
    with pytest.raises(InputError, match=r"row 2: puzzle .* has no response; a trace needs"):
        write_traces([trace, toys[1]], tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


def test_a_wrong_or_malformed_response_is_no_trace(toys):
    puzzle = toys[0]
    swapped = (puzzle.answer[1], puzzle.answer[0], *puzzle.answer[2:])
    with pytest.raises(InputError, match="2 of 4 cells are wrong"):
        make_trace(puzzle, response_text("", swapped), teacher="x", sample=0)
    with pytest.raises(InputError, match="<think> appears 0 times"):
        make_trace(puzzle, " | ".join(puzzle.answer), teacher="x", sample=0)


def test_a_response_whose_puzzle_is_missing_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"assistant_msg": "<think></think>\\n<answer>a | b</answer>"}\n')
    with pytest.raises(InputError, match=r"row 1: no text in column user_msg.*a trace is a puzzle"):
        read_traces(path)


def test_answers_only_needs_answers(toys):
    bare = Puzzle(toys[0].context, toys[0].cells, toys[0].candidates)
    with pytest.raises(InputError, match=r"puzzle 2 .* has no answer"):
        answers_only([toys[0], bare])
