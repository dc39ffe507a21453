"""Puzzles as the Parquet that verl reads, asked in the very tokens that our solvers ask in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cello1.errors import InputError
from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import gold_message, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import write_atomic
from cello1.solvers.local.prompter import Prompter

SOURCE = "cello1"
_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("id", pa.string()),
                    ("candidates", pa.list_(pa.string())),
                    ("opened", pa.bool_()),
                ]
            ),
        ),
    ]
)


def write_rows(puzzles: Sequence[Puzzle], prompter: Prompter, path: Path) -> None:
    """Write puzzles with answers for verl; the file appears whole or not at all.

    Raises
    ------
    InputError
        When verl would ask something else than our solvers, or would not see the tags.
    """
    _check(prompter, puzzles[0])
    rows = []
    for index, puzzle in enumerate(puzzles):
        assert puzzle.answer is not None
        gold = {"style": "rule", "ground_truth": gold_message(puzzle.answer)}
        extra = {
            "index": index,
            "id": puzzle.id,
            "candidates": list(puzzle.candidates),
            "opened": prompter.prompt(puzzle)[1],
        }
        chat = [message._asdict() for message in messages(puzzle)]
        rows.append(
            {"data_source": SOURCE, "prompt": chat, "reward_model": gold, "extra_info": extra}
        )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def _check(prompter: Prompter, puzzle: Puzzle) -> None:
    """See that verl, which renders the chat and decodes responses itself, does as we do."""
    tokenizer = prompter.tokenizer
    chat = [message._asdict() for message in messages(puzzle)]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja raises its own kinds of errors
        raise InputError(
            f"the chat template of {prompter.source} does not take a system message ({error}), so "
            "verl could not ask what our solvers ask; use a template that does"
        ) from error
    if prompter.vocabulary.encode(str(text)) != prompter.prompt(puzzle)[0]:
        raise InputError(f"verl would ask {prompter.source} in other tokens than our solvers do")
    said = "".join(TAGS)
    ids = prompter.vocabulary.encode(said)
    if tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") != said:
        raise InputError(
            f"the tokenizer of {prompter.source} has the tags as special tokens; verl leaves those "
            "out when it decodes, so every response would be invalid: use an instruct model such "
            "as Qwen2.5, or --engine ppo"
        )
