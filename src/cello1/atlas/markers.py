"""Marker tables: PanglaoDB, ScType, the Cell Marker Accordion, or a plain CSV, in one format.

A plain CSV has the columns ``cell_type``, ``gene`` and optionally ``weight`` (negative: evidence
against the type). A field may name several genes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from cello1.cells.symbols import human_genes
from cello1.errors import InputError, brief
from cello1.scoring.ontology import term_id
from cello1.texts import read_table

Table = dict[str, dict[str, float]]

# Tables of our own, written for this project: of 97 types, and of types of developing tissues, from
# the literature.
OWN_TABLE = Path(str(files("cello1.atlas") / "markers.csv"))
OWN_TABLES = {"own": OWN_TABLE, "development": OWN_TABLE.with_name("development.csv")}
NAMES = Path(str(files("cello1.atlas") / "names.csv"))
_BETWEEN = re.compile(r"[,;|/\s]+")


def read_markers(path: Path, resources: Collection[str] = ()) -> Table:
    """Read a marker table: type -> gene -> weight (negative: evidence against the type).

    Parameters
    ----------
    path
        TSV, CSV (also compressed) or XLSX.
    resources
        Collections of the Accordion to use; by default all of them. The weight is then the number
        of collections that agree.

    Raises
    ------
    InputError
        When it cannot be read, its layout is unknown, it has no pair of a type and a gene, a weight
        is not a number, or none of the resources occurs.
    """
    frame = read_table(path, "a marker table such as cell_type,gene")
    columns = set(frame.columns)
    table: Table = {}
    if {"official gene symbol", "cell type", "species"} <= columns:
        human = frame[frame["species"].astype(str).str.contains("Hs")]
        for kind, gene in zip(human["cell type"], human["official gene symbol"], strict=True):
            _add(table, kind, gene, 1.0)
    elif {"cellName", "geneSymbolmore1", "geneSymbolmore2"} <= columns:
        for kind, against, for_it in zip(
            frame["cellName"], frame["geneSymbolmore2"], frame["geneSymbolmore1"], strict=True
        ):
            _add(table, kind, against, -1.0)
            _add(table, kind, for_it, 1.0)
    elif {"CL_ID", "marker", "marker_type", "resource"} <= columns:
        if resources:
            if absent := sorted(set(resources) - set(frame["resource"])):
                raise InputError(f"marker table {path} has no resource {absent[0]!r}")
            frame = frame[frame["resource"].isin(list(resources))]
        fields = ["CL_ID", "marker", "marker_type", "resource"]
        for kind, gene, way, _ in frame[fields].drop_duplicates().itertuples(index=False):
            _add(table, kind, gene, 1.0 if way == "positive" else -1.0, more=True)
    elif {"cell_type", "gene"} <= set(frame.rename(columns=_header).columns):
        frame = frame.rename(columns=_header)
        weights = _weights(path, frame)
        for kind, gene, w in zip(frame["cell_type"], frame["gene"], weights, strict=True):
            _add(table, kind, gene, w)
    else:
        raise InputError(
            f"marker table {path} has the columns {', '.join(map(str, frame.columns[:8]))}; "
            "expected cell_type and gene (CSV), PanglaoDB's columns (TSV), ScType's (XLSX) or the "
            "Accordion's (CL_ID, marker, marker_type, resource)"
        )
    if not table:
        raise InputError(
            f"marker table {path} holds no pair of a cell type and a gene; expected one a row"
        )
    return table


def _header(name: object) -> str:
    """Return a column's name in our spelling: `Cell Type` and `cell-type` are cell_type."""
    plain = re.sub(r"[\s_-]+", "_", str(name).strip().casefold())
    return plain if plain in ("cell_type", "gene", "weight") else str(name)


@cache
def _names() -> dict[str, str]:
    table = pd.read_csv(NAMES, dtype=str)
    return dict(zip(table["name"], table["cell_type"], strict=True))


def term_of_name(name: str) -> str | None:
    """Return the Cell Ontology id of a marker table's name for a type (`Beta cells`), or None."""
    plain = " ".join(name.split())
    return term_id(_names().get(plain.casefold(), plain))


def _weights(path: Path, frame: pd.DataFrame) -> list[float]:
    if "weight" not in frame.columns:
        return [1.0] * len(frame)
    numbers = pd.to_numeric(frame["weight"].replace("", "1"), errors="coerce")
    if odd := [i for i, number in enumerate(numbers) if not abs(number) < float("inf")]:
        raise InputError(
            f"marker table {path} has the weight {brief(frame['weight'].iloc[odd[0]])} in line "
            f"{odd[0] + 2}; expected a number (negative: speaks against the type)"
        )
    return [float(number) for number in numbers]


def _add(table: Table, kind: object, genes: object, weight: float, *, more: bool = False) -> None:
    name = " ".join(str(kind).split())
    if not name:
        return
    for gene in map(_spelled, filter(None, _BETWEEN.split(str(genes)))):
        known = table.setdefault(name, {})
        known[gene] = known.get(gene, 0.0) + weight if more else weight


def _spelled(gene: str) -> str:
    """Return the symbol in its usual case: `cd79a` and `Cd79a` are CD79A."""
    known = human_genes()
    return gene.upper() if gene not in known and gene.upper() in known else gene
