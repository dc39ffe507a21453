"""Batch files of OpenAI-compatible servers: all requests in one file, all responses in another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cello1.errors import InputError, brief
from cello1.puzzles.prompt import messages
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import file_hash, write_atomic
from cello1.solvers.base import Failure, OnDone, Response

URL = "/v1/chat/completions"


def export_openai_batch(
    puzzles: Iterable[Puzzle], path: Path, *, model: str, max_new_tokens: int = 3_500
) -> int:
    """Write one request per line, with the puzzle's id as `custom_id`; return their number.

    Raises
    ------
    InputError
        When two puzzles are the same, since their answers could not be told apart.
    """
    lines: dict[str, str] = {}
    for puzzle in puzzles:
        if puzzle.id in lines:
            raise InputError(f"puzzle {puzzle.id} stands there twice; a batch file needs each once")
        chat = [message._asdict() for message in messages(puzzle)]
        body = {"model": model, "messages": chat, "max_completion_tokens": max_new_tokens}
        request = {"custom_id": puzzle.id, "method": "POST", "url": URL, "body": body}
        lines[puzzle.id] = json.dumps(request, ensure_ascii=False) + "\n"
    write_atomic(path, "".join(lines.values()).encode())
    return len(lines)


class BatchFile:
    """A solver that reads its answers from the output file of a batch.

    Parameters
    ----------
    path
        The output file; an error file may be appended to it.

    Raises
    ------
    InputError
        When a line is not a record of a batch.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"batch:{path.name}"
        self.settings: dict[str, Any] = {"solver": "batch", "file": file_hash(path)}
        self.records = _read(path)

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Return the answers; a puzzle that is missing or failed in the file is a failure."""
        for puzzle in puzzles:
            record = self.records.get(puzzle.id)
            found = Failure("the batch file has no such custom_id") if record is None else record
            on_done(puzzle.id, found)


def _read(path: Path) -> dict[str, Response | Failure]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    found: dict[str, Response | Failure] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = record["custom_id"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number} is {brief(line)}; expected one JSON record a line with "
                "custom_id, as the batch endpoint returns them"
            ) from error
        found[str(key)] = _answer(record)
    return found


def _answer(record: Mapping[str, Any]) -> Response | Failure:
    """Read one record like a reply of the endpoint."""
    from cello1.solvers.endpoint.reply import CallFailedError, read_completion, server_message

    response = record.get("response") or {}
    status = response.get("status_code", 200) if isinstance(response, Mapping) else None
    if record.get("error") or status != 200:
        body = response.get("body") if isinstance(response, Mapping) else response
        return Failure(f"HTTP {status}: {server_message(record.get('error') or body)}")
    try:
        body = json.dumps(response.get("body")).encode()
        return read_completion("application/json", body).response(0.0)
    except CallFailedError as error:
        return Failure(brief(str(error), 300))
