"""Read and write puzzles as rows: Parquet, JSON, JSON Lines and Hugging Face `datasets`.

The three columns of CellPuzzles come first: ``system_msg``, ``user_msg``, ``assistant_msg``.
Ours follow: ``id``, ``dataset``, ``donor_id``, ``tissue``, ``disease``, ``n_cells`` for filters,
and ``meta`` (JSON text). The question is always read back from ``user_msg``, so that the stored,
the solved and the scored question are the same; published rows without metadata are read the same
way.

Data that do not fit in memory are processed in chunks: :class:`Stored` reads, and
:class:`TableWriter` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from cello1.errors import InputError, brief
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.prompt import gold_message, read_user_message, system_message, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import SUFFIXES, find_puzzles
from cello1.runs import named_files, write_atomic

FILTERS = ("dataset", "donor_id", "tissue", "disease")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("system_msg", "user_msg", "assistant_msg", "id", *FILTERS)]
    + [("n_cells", pa.int32()), ("meta", pa.string())]
)

_HOW: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
# Puzzles in a row group of Parquet, and in memory while files are read or written.
ROWS = 8_192
_BATCH = 1_024


def puzzle_from_row(row: Mapping[str, Any]) -> Puzzle:
    """Make a puzzle from one row; only ``user_msg`` is required.

    A row's ``assistant_msg`` (or ``answer`` in some exports) may be the answer alone or a full
    response, as in the published ``reasoning`` split. Fields that differ from ours are kept in
    ``meta``: ``system_msg``, ``assistant_msg``, and a foreign ``id`` as ``row_id``.

    Raises
    ------
    PuzzleError
        When the text cannot be read back or breaks an invariant.
    InputError
        When ``user_msg`` is missing.
    """
    if not isinstance(row.get("user_msg"), str):
        raise InputError(f"no text in column user_msg; the columns are {', '.join(row)}")
    meta = row.get("meta") or {}
    if isinstance(meta, str):
        meta = read_json(meta, "meta")
    if not isinstance(meta, dict):
        raise InputError(f"meta is {brief(meta)}; expected a JSON object")
    text = row.get("assistant_msg", row.get("answer"))
    if text is not None and not isinstance(text, str):
        raise InputError(f"the answer is {brief(text)}; expected text")
    answer = _gold_labels(text) if text else None
    puzzle = Puzzle(*read_user_message(row["user_msg"]), answer=answer, meta=meta)
    # Only fields that differ from ours are kept.
    own = {}
    if text and answer and text != gold_message(answer):
        own["assistant_msg"] = text
    if row.get("system_msg") is not None and row["system_msg"] != system_message(puzzle):
        own["system_msg"] = row["system_msg"]
    if row.get("id") and row["id"] != puzzle.id:
        if "prompt_version" in meta:
            raise InputError(
                f"the question is no longer the one its id {row['id']} was made of: the row was "
                "damaged or edited; if that was intended, drop the column id"
            )
        own["row_id"] = row["id"]
    return replace(puzzle, meta=meta | own) if own else puzzle


def row_from_puzzle(puzzle: Puzzle) -> dict[str, Any]:
    """Write a puzzle as one row with all columns of :data:`SCHEMA`; unknown values are None."""
    meta = dict(puzzle.meta)
    text = meta.pop("assistant_msg", None)
    gold = None if puzzle.answer is None else gold_message(puzzle.answer)
    return {
        "system_msg": system_message(puzzle),
        "user_msg": user_message(puzzle),
        "assistant_msg": text or gold,
        "id": puzzle.id,
        **{name: None if meta.get(name) is None else str(meta[name]) for name in FILTERS},
        "n_cells": len(puzzle.cells),
        "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True) if meta else None,
    }


def read_puzzles(
    source: str | Path, split: str | None = None, *, revision: str | None = None
) -> list[Puzzle]:
    """Read puzzles from any source (:mod:`cello1.puzzles.source`).

    Parameters
    ----------
    source
        A file (.parquet, .json, .jsonl), a folder of a build or of `datasets`, a folder laid out
        like the Hugging Face hub, or a name there, such as ``ncbi/CellPuzzles``.
    split
        Which split, where there are several.
    revision
        Branch, tag or commit of a name on the hub.

    Raises
    ------
    UseError
        When there are several splits and none, or an unknown one, is named.
    InputError
        When the file is missing, of another kind, or damaged; a bad row is named by number.
    """
    return list(Stored(find_puzzles(source, split, revision=revision)))


@dataclass(frozen=True)
class Stored:
    """Puzzles in a file, which are read in chunks on every iteration.

    Attributes
    ----------
    path
        A file, a folder saved by `datasets`, or several files (:func:`cello1.runs.named_files`).
    group
        A row group of a single Parquet file, or None for all of it.
    """

    path: Path
    group: int | None = None

    def __iter__(self) -> Iterator[Puzzle]:
        """Yield the puzzles; one that cannot be read is an InputError with its row's number."""
        for path in named_files(self.path):
            for number, row in enumerate(_read_rows(path, self.group), start=self._first(path)):
                if not isinstance(row, dict):
                    raise InputError(
                        f"{path}, row {number} is {brief(row)}; expected an object per row"
                    )
                try:
                    puzzle = puzzle_from_row(row)
                except InputError as error:
                    raise InputError(f"{path}, row {number}: {error}") from error
                yield puzzle

    def pieces(self) -> list[Stored]:
        """Return parts that can be read in parallel: the row groups of Parquet files."""
        found = []
        for path in named_files(self.path):
            groups = _groups(path) if path.suffix == ".parquet" and path.is_file() else 1
            found += [Stored(path, i) for i in range(groups)] if groups > 1 else [Stored(path)]
        return found

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of our Parquet files unchanged, one row group at a time."""
        for path in named_files(self.path):
            with _readable(path), _parquet(path) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns, use_threads=False)

    def _first(self, path: Path) -> int:
        if not self.group:
            return 1
        with _readable(path), _parquet(path) as file:
            return 1 + sum(int(file.metadata.row_group(i).num_rows) for i in range(self.group))


def write_puzzles(puzzles: Iterable[Puzzle], path: str | Path) -> None:
    """Write puzzles to .parquet, .json or .jsonl, atomically."""
    path = Path(path)
    rows = [row_from_puzzle(puzzle) for puzzle in puzzles]
    if path.suffix == ".parquet":
        table, sink = pa.Table.from_pylist(rows, schema=SCHEMA), pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=ROWS, **_HOW)
        write_atomic(path, sink.getvalue().to_pybytes())
        try:
            with _parquet(path) as file:
                same = file.read().equals(table)
        except (pa.ArrowInvalid, OSError):
            same = False
        if not same:
            raise InputError(f"{path} does not read back as it was written; is the disk sound?")
    elif path.suffix == ".json":
        write_atomic(path, json.dumps(rows, ensure_ascii=False, indent=1).encode())
    elif path.suffix in (".jsonl", ".ndjson"):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_atomic(path, "".join(lines).encode())
    else:
        raise InputError(f"cannot write {path.name}: expected one of {', '.join(SUFFIXES)}")


class TableWriter:
    """Writes rows table by table, with the same bytes as :func:`write_puzzles`.

    Use it in a ``with`` statement.

    Parameters
    ----------
    path
        A Parquet file; use :func:`cello1.runs.replacing` to write it atomically.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, SCHEMA, **_HOW)
        self._waiting, self._empty = SCHEMA.empty_table(), True

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def write(self, table: pa.Table) -> None:
        """Add rows of :data:`SCHEMA`; they are written when they fill a row group."""
        self._waiting = pa.concat_tables([self._waiting, table.cast(SCHEMA)])
        while len(self._waiting) >= ROWS:
            self._put(self._waiting[:ROWS])
            self._waiting = self._waiting[ROWS:]

    def _put(self, group: pa.Table) -> None:
        self._writer.write_table(group.combine_chunks(), row_group_size=ROWS)
        self._empty = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the remaining rows, and close the file."""
        with self._file, self._writer:
            if kind is None and (len(self._waiting) or self._empty):
                self._put(self._waiting)


def to_dataset(puzzles: Iterable[Puzzle]) -> Any:
    """Return the rows as a Hugging Face ``datasets.Dataset`` (needs the extra ``train``)."""
    from datasets import Dataset

    return Dataset(pa.Table.from_pylist([row_from_puzzle(p) for p in puzzles], schema=SCHEMA))


def from_dataset(dataset: Iterable[Mapping[str, Any]]) -> list[Puzzle]:
    """Read the rows of a ``datasets.Dataset``, or of anything that yields mappings."""
    return [puzzle_from_row(row) for row in dataset]


def _gold_labels(text: str) -> tuple[str, ...]:
    response = parse_response(text)
    if isinstance(response, Answer):
        return response.labels
    return tuple(label.strip() for label in text.split("|"))


def _read_rows(path: Path, group: int | None = None) -> Iterator[Any]:
    """Yield the rows of one file, or of one row group of it."""
    with _readable(path):
        if path.is_dir():
            yield from _read_saved_dataset(path)
        elif path.suffix == ".parquet":
            yield from _read_parquet(path, group)
        elif path.suffix == ".json":
            content = read_json(path.read_text("utf-8-sig"), str(path))
            yield from content if isinstance(content, list) else [content]
        elif path.suffix in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield read_json(line.rstrip("\n"), f"{path}, row {number}")
        else:
            raise InputError(f"cannot read {path.name}: expected one of {', '.join(SUFFIXES)}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in the error when it cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix}: {error}") from error


def _parquet(path: Path) -> pq.ParquetFile:
    # Not `read_table`, which imports pandas and the reader for folders.
    return pq.ParquetFile(path, page_checksum_verification=True)


def _groups(path: Path) -> int:
    with _readable(path), _parquet(path) as file:
        return int(file.num_row_groups)


def _read_parquet(path: Path, group: int | None) -> Iterator[dict[str, Any]]:
    """Read rows; pages are checked against checksums, and our columns for completeness.

    The footer of the file (the names of the columns) has no checksum.
    """
    with _parquet(path) as file:
        ours, found = set(SCHEMA.names), set(file.schema_arrow.names)
        if ours - found and len(ours & found) >= len(ours) - 2:
            raise InputError(
                f"{path} lacks the column(s) {', '.join(sorted(ours - found))}, but has all others "
                "of a build: the file is damaged; build it again"
            )
        groups = range(file.num_row_groups) if group is None else [group]
        for batch in file.iter_batches(_BATCH, row_groups=list(groups), use_threads=False):
            yield from batch.to_pylist()


def read_json(text: str, what: str) -> Any:
    """Parse JSON from a user's file.

    Raises
    ------
    InputError
        When it is not JSON, is nested too deep, or holds a number with thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{what} cannot be read as JSON: it is nested too deep") from None
    except ValueError as error:
        said = "a number has thousands of digits" if "digits" in str(error) else str(error)
        raise InputError(f"{what} cannot be read as JSON: {said}") from None


def _read_saved_dataset(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        from datasets import load_from_disk
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} was saved by datasets, which is not installed; install it with: "
            "pip install 'cello1[train]', or save it as Parquet (Dataset.to_parquet)"
        ) from error
    try:
        return list(load_from_disk(str(path)))
    except Exception as error:  # whatever a damaged folder leads to
        said = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be read as saved by datasets: {said}") from error
