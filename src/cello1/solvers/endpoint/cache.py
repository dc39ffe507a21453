"""A cache of paid answers: repeating a request costs nothing.

A folder of append-only JSON Lines. Every process writes a file of its own, so several can share a
folder, and a line torn by a crash is skipped.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from cello1.solvers.base import Response

_FIELDS = ("text", "prompt_tokens", "completion_tokens", "finish_reason")
_MOST_TOKENS = 10**9


class Cache:
    """Responses by key, on disk; only their positions are in memory.

    Parameters
    ----------
    folder
        Folder of the files; made when the first response is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, tuple[Path, int]] = {}
        self._file: BinaryIO | None = None
        for path in sorted(folder.glob("*.jsonl")):
            if path.is_file():
                self._index(path)

    def _index(self, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            for line in file:
                if (record := _parsed(line)) is not None:
                    self._places[record["key"]] = (path, offset)
                offset += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Response | None:
        """Return the response stored under a key; its time is 0."""
        if key not in self._places:
            return None
        path, offset = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            record = _parsed(file.readline())
        return None if record is None else Response(**{name: record[name] for name in _FIELDS})

    def put(self, key: str, response: Response) -> None:
        """Store a response; the line is flushed before this returns."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("xb")
        kept = replace(response, seconds=0.0)
        record = {"key": key, **{name: getattr(kept, name) for name in _FIELDS}}
        self._places[key] = (Path(self._file.name), self._file.tell())
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Sync to disk, so that added responses survive a power cut; `put` may be called again."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not {"key", *_FIELDS} <= record.keys():
        return None
    # Damaged lines are asked again, even if they are JSON by chance.
    texts = all(isinstance(record[name], str) for name in ("key", "text", "finish_reason"))
    counts = (record["prompt_tokens"], record["completion_tokens"])
    counted = all(c is None or (type(c) is int and 0 <= c < _MOST_TOKENS) for c in counts)
    if not texts or not counted:
        return None
    # Earlier versions stored empty answers, which do not count.
    return record if record["text"].strip() or record["finish_reason"] == "length" else None
