"""The genes that a data set measured, as a note of a few hundred characters in a puzzle's meta.

A list names the genes that a cell expresses most. It does not tell whether another gene is not
expressed or was not measured (a panel, a table of highly variable genes). The note records this for
the relevant genes: those that cells of some type list often. A fixed table holds them with their
older names; a note starts with the number of its table, and a new table gets a new number
(``benchmarks/universe_table.py`` made the first one from the embedded atlas).
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from cello1.errors import InputError, brief

TABLE = Path(__file__).with_name("universe-1.tsv.gz")
NUMBER = "1"
_FEWEST = 100  # with fewer measured genes of the table, no note is written


@cache
def genes() -> tuple[tuple[str, ...], ...]:
    """Return the names of every gene of the table, the current one first."""
    with gzip.open(TABLE, "rt", encoding="utf-8") as lines:
        return tuple(tuple(line.rstrip("\n").split("\t")) for line in lines)


@cache
def _spellings() -> frozenset[str]:
    return frozenset(name for names in genes() for name in names)


def note_of(symbols: Iterable[str]) -> str | None:
    """Write which genes of the table a data set measured.

    Returns
    -------
    str or None
        None when the data set measured fewer than 100 of them: genes of another organism, or ids.
    """
    found = _spellings().intersection(symbols)
    measured = np.array([not found.isdisjoint(names) for names in genes()])
    if measured.sum() < _FEWEST:
        return None
    packed = zlib.compress(np.packbits(measured).tobytes(), 9)
    return f"{NUMBER}:{base64.b64encode(packed).decode()}"


@lru_cache(maxsize=1_000)
def measured_of(note: str) -> frozenset[str] | None:
    """Read a note.

    Returns
    -------
    frozenset or None
        Current symbols of the measured genes; None when this version lacks the note's table.

    Raises
    ------
    InputError
        When it is damaged.
    """
    number, colon, text = note.partition(":")
    if colon and number.isdecimal() and number != NUMBER:
        return None
    try:
        bits = zlib.decompress(base64.b64decode(text, validate=True), bufsize=len(genes()))
        bits_read = np.frombuffer(bits, dtype=np.uint8)
        if number != NUMBER or len(bits_read) != -(-len(genes()) // 8):
            raise ValueError("another length")
    except (ValueError, zlib.error) as error:
        raise InputError(
            f"meta names the measured genes as {brief(note)}, which cannot be read; expected what "
            "cello1 build writes, or none"
        ) from error
    kept = np.unpackbits(bits_read, count=len(genes())).astype(bool)
    return frozenset(names[0] for names, here in zip(genes(), kept, strict=True) if here)
