"""Markers: score a cell by the known marker genes in its list.

A table of markers is PanglaoDB's download (TSV), ScType's workbook (XLSX), or a plain CSV with
the columns ``cell_type`` and ``gene`` (one pair a row) and maybe ``weight``. A small table of
our own comes with the package.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.scoring.ontology import ancestors, term_id
from cello1.solvers.base import Floats

Table = dict[str, dict[str, float]]
OWN_TABLE = Path(str(files("cello1.solvers.classical") / "markers.csv"))
# A marker at the top of the list counts twice one at its end: expression tells, presence more.
_TOP_BONUS = 1.0


def read_markers(path: Path) -> Table:
    """Read a marker table: type -> gene -> weight (negative: speaks against the type).

    Raises
    ------
    InputError
        When the layout is none of the three.
    """
    try:
        if path.suffix in (".xlsx", ".xls"):
            frame = pd.read_excel(path)
        else:
            frame = pd.read_csv(path, sep="\t" if path.suffix in (".tsv", ".txt") else ",")
    except ImportError as error:
        raise InputError(
            f"{path}: reading a workbook needs openpyxl; install it or save the table as CSV"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"marker table {path} cannot be read: {error}") from error
    columns = set(frame.columns)
    table: Table = {}
    if {"official gene symbol", "cell type", "species"} <= columns:
        human = frame[frame["species"].astype(str).str.contains("Hs")]
        for kind, gene in zip(human["cell type"], human["official gene symbol"], strict=True):
            table.setdefault(str(kind), {})[str(gene)] = 1.0
    elif {"cellName", "geneSymbolmore1", "geneSymbolmore2"} <= columns:
        for row in frame.itertuples(index=False):
            genes = table.setdefault(" ".join(str(row.cellName).split()), {})
            genes.update(dict.fromkeys(_split(row.geneSymbolmore2), -1.0))
            genes.update(dict.fromkeys(_split(row.geneSymbolmore1), 1.0))
    elif {"cell_type", "gene"} <= columns:
        weights = frame["weight"] if "weight" in columns else pd.Series(1.0, index=frame.index)
        for kind, gene, w in zip(frame["cell_type"], frame["gene"], weights, strict=True):
            table.setdefault(str(kind), {})[str(gene)] = float(w)
    else:
        raise InputError(
            f"marker table {path} has the columns {', '.join(map(str, frame.columns[:8]))}; "
            "expected cell_type and gene (CSV), PanglaoDB's columns (TSV) or ScType's (XLSX)"
        )
    return table


class Markers:
    """An expert that knows a table of markers.

    Parameters
    ----------
    table
        Type -> gene -> weight.
    source
        Where the table comes from, for the record.
    """

    name = "markers"

    def __init__(self, table: Mapping[str, Mapping[str, float]], source: str = "own table") -> None:
        spread = Counter(gene for genes in table.values() for gene in genes)
        # A gene that marks few types tells more (inverse document frequency).
        self.weights: dict[str, dict[str, float]] = {
            kind: {g: w * math.log(1 + len(table) / spread[g]) for g, w in genes.items()}
            for kind, genes in sorted(table.items())
        }
        self._by_name = {_plain(kind): kind for kind in self.weights}
        self._by_term = {t: kind for kind in self.weights if (t := term_id(kind)) is not None}
        self._found: dict[str, str | None] = {}
        self.settings: dict[str, Any] = {"markers": source, "types": len(self.weights)}

    @classmethod
    def from_file(cls, path: Path | None = None) -> Markers:
        """Read a table; without a path, the one that comes with the package."""
        own = path is None
        return cls(read_markers(path or OWN_TABLE), "own table" if own else path.name)  # type: ignore[union-attr]

    def entry(self, label: str) -> str | None:
        """Find the entry for a type: by name, by ontology term, else its nearest ancestor's."""
        key = label_key(label)
        if key not in self._found:
            self._found[key] = self._find(label)
        return self._found[key]

    def _find(self, label: str) -> str | None:
        if (kind := self._by_name.get(_plain(label))) is not None:
            return kind
        term = term_id(label)
        if term is None:
            return None
        # The nearest ancestor is the one with most ancestors of its own.
        above = [t for t in ancestors(term) if t in self._by_term]
        nearest = max(above, key=lambda t: (len(ancestors(t)), t), default=None)
        return self._by_term.get(term) or (self._by_term[nearest] if nearest else None)

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return weighted overlaps, shape (N, M); a type without markers scores 0."""
        scores = np.zeros((len(puzzle.cells), len(puzzle.candidates)))
        for i, genes in enumerate(puzzle.cells):
            bonus = {g: 1 + _TOP_BONUS * (1 - r / len(genes)) for r, g in enumerate(genes)}
            for j, label in enumerate(puzzle.candidates):
                kind = self.entry(label)
                if kind is not None:
                    known = self.weights[kind]
                    found = sum(known[g] * b for g, b in bonus.items() if g in known)
                    # Long marker lists are met more often by accident.
                    scores[i, j] = found / math.sqrt(1 + math.log(len(known)))
        return scores

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the listed markers of the type that weigh more for it than for the rival."""
        kind, other = self.entry(label), None if rival is None else self.entry(rival)
        known = self.weights[kind] if kind else {}
        against = self.weights[other] if other else {}
        gains = [(known.get(g, 0.0) - against.get(g, 0.0), g) for g in genes if g in known]
        return [gene for gain, gene in sorted(gains, key=lambda x: (-x[0], x[1])) if gain > 0]


def _split(cell: object) -> list[str]:
    return [] if pd.isna(cell) else [g.strip() for g in str(cell).split(",") if g.strip()]  # type: ignore[call-overload]


def _plain(label: str) -> str:
    """Reduce a name to its words without plural: 'B cells' and 'B-cell' are one."""
    words = re.findall(r"[\w+]+", label.casefold())
    return " ".join(word.removesuffix("s") if len(word) > 3 else word for word in words)
