"""Traces: puzzles with a complete accepted response, on which a model is fine-tuned.

A trace is a :class:`~cello1.Puzzle` whose ``meta["assistant_msg"]`` holds the response; rows of
the published ``reasoning`` split come in that way. Ours add ``teacher`` (its name), ``sample``
(which of its responses) and, if the teacher was shown the answer, ``hint``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cello1.errors import InputError, brief
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.scoring.score import score


def make_trace(
    puzzle: Puzzle, response: str, *, teacher: str, sample: int, hint: bool = False
) -> Puzzle:
    """Join a puzzle with a correct response to it.

    Parameters
    ----------
    puzzle
        A puzzle with its answer.
    response
        The complete response: think block and answer block.
    teacher
        Who gave it.
    sample
        Which of the teacher's responses it is, from 0.
    hint
        Whether the teacher was shown the answer.

    Raises
    ------
    InputError
        When the response is not in the format or any cell is wrong.
    """
    meta = {**puzzle.meta, "assistant_msg": response, "teacher": teacher, "sample": sample}
    meta.pop("hint", None)
    if hint:
        meta["hint"] = True
    trace = replace(puzzle, meta=meta)
    _check(trace)
    return trace


def response_of(trace: Puzzle) -> str:
    """Return the whole response of a trace.

    Raises
    ------
    InputError
        When the row has none: an answer alone is not a trace.
    """
    text = trace.meta.get("assistant_msg")
    if not isinstance(text, str):
        raise InputError(
            f"puzzle {trace.id} has no response; a trace needs a whole one (think block and answer "
            "block) in assistant_msg: make traces with `cello1 distill` or answers_only"
        )
    return text


def answers_only(puzzles: Iterable[Puzzle]) -> list[Puzzle]:
    """Make traces that hold only the answer: the paper's baseline tuned on answers.

    The think block, which the format requires, is empty.

    Raises
    ------
    InputError
        When a puzzle has no answer.
    """
    traces = []
    for number, puzzle in enumerate(puzzles, start=1):
        if puzzle.answer is None:
            raise InputError(f"puzzle {number} ({puzzle.id}) has no answer to train on")
        response = response_text("", puzzle.answer)
        traces.append(make_trace(puzzle, response, teacher="answers", sample=0))
    return traces


def read_traces(path: str | Path) -> list[Puzzle]:
    """Read traces from any file of puzzles whose rows hold whole responses.

    Raises
    ------
    InputError
        When a row has no puzzle or no response, or the response does not give its answer; the
        row is named by number.
    """
    try:
        traces = read_puzzles(path, "train")
    except InputError as error:
        raise InputError(
            f"{error} (a trace is a puzzle in user_msg with its response in assistant_msg)"
        ) from error
    _check_all(traces, str(path))
    return traces


def write_traces(traces: Iterable[Puzzle], path: str | Path) -> None:
    """Write traces to .parquet, .json or .jsonl, in the published columns and ours.

    Raises
    ------
    InputError
        When one of them has no response or a wrong one.
    """
    checked = list(traces)
    _check_all(checked, "traces")
    write_puzzles(checked, path)


def _check_all(traces: Iterable[Puzzle], where: str) -> None:
    for number, trace in enumerate(traces, start=1):
        try:
            _check(trace)
        except InputError as error:
            raise InputError(f"{where}, row {number}: {error}") from error


def _check(trace: Puzzle) -> None:
    response = response_of(trace)
    found = score(trace, response)
    if not found.exact:
        wrong = found.right.count(False)
        why = found.reason or f"{wrong} of {len(found.right)} cells are wrong"
        raise InputError(
            f"the response {brief(response)} is not correct ({why}); only correct ones are traces"
        )
