"""Other names of genes: proteins (`CD20`), aliases and previous symbols."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from cello1.errors import InputError
from cello1.texts import read_table

Aliases = Mapping[str, tuple[str, ...]]


def read_aliases(path: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Read other names of genes: name -> the symbols it may mean.

    Parameters
    ----------
    path
        HGNC's table (TSV with ``symbol``, ``alias_symbol``, ``prev_symbol``; `|` separates
        several); names without a digit are skipped, since many are words. By default the names
        of some 100 proteins that come with the package.

    Raises
    ------
    InputError
        When the table cannot be read.
    """
    table = pd.read_csv(Path(str(files("cello1.citations") / "aliases.csv")), dtype=str)
    own: dict[str, set[str]] = {}
    for name, symbol in zip(table["name"], table["symbol"], strict=True):
        own.setdefault(name, set()).add(symbol)
    found: dict[str, set[str]] = {}
    if path is not None:
        table = read_table(path, "HGNC's TSV with symbol, alias_symbol and prev_symbol")
        wanted = ("symbol", "alias_symbol", "prev_symbol")
        if missing := [c for c in wanted if c not in table]:
            raise InputError(
                f"{path} cannot be read as a table of aliases: it lacks {', '.join(missing)} and "
                f"has {', '.join(table.columns[:8])}; expected HGNC's TSV with the columns "
                f"{', '.join(wanted)}"
            )
        columns = [table[c] for c in wanted]
        for symbol, alias, previous in zip(*columns, strict=True):
            for name in f"{alias}|{previous}".split("|"):
                if len(name) > 2 and any(c.isdigit() for c in name):
                    found.setdefault(name.strip(), set()).add(symbol)
    found |= own  # where both know a name, ours is what immunologists mean by it
    return {name: tuple(sorted(symbols)) for name, symbols in sorted(found.items())}


@cache
def own_aliases() -> Aliases:
    """Return the names that come with the package."""
    return read_aliases()
