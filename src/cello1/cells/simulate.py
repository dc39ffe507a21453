"""Simulate cells of named types from mean-expression profiles.

A cell is a multinomial draw at a drawn depth from its type's profile, after donor variation
(each donor's genes sit higher or lower), noise from cell to cell, and dropout (a share of its
genes goes unseen). The result is an AnnData in CELLxGENE shape, marked ``is_synthetic`` in obs,
and every puzzle made of it is marked too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix, vstack

from cello1.errors import InputError, brief
from cello1.recipes import SimulateSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.scoring.ontology import term_id

# Log-scale spreads, chosen so that simulated blood cells list about as many genes in common
# with each other as real ones of one type do.
DONOR_SD, CELL_SD, DEPTH_SD = 0.3, 0.4, 0.4
DROPOUT = (2.0, 8.0)  # Beta parameters of the share of genes that a cell does not show


def read_profiles(table: str | Path, cell_types: str | Path | None = None) -> pd.DataFrame:
    """Read mean profiles: genes in the rows, types in the columns.

    Parameters
    ----------
    table
        Parquet or CSV with a column ``gene`` and one column per type.
    cell_types
        A CSV that curates the columns: ``profile`` (stem of the table), ``column``,
        ``cell_type``, ``keep``. Columns not kept are dropped, kept ones get their label.

    Raises
    ------
    InputError
        When the table has no column ``gene``, or no column is kept.
    """
    path = Path(table)
    frame = _read_table(path)
    if "gene" not in frame.columns:
        raise InputError(f"{path} has no column 'gene'; expected genes x types with that column")
    frame = frame.set_index("gene")
    if cell_types is not None:
        curated = _read_table(Path(cell_types), dtype=str)
        needed = ("profile", "column", "cell_type", "keep")
        if missing := [c for c in needed if c not in curated.columns]:
            raise InputError(f"{cell_types} has no column {missing[0]!r}; expected {needed}")
        curated = curated[(curated["profile"] == path.stem) & (curated["keep"] == "True")]
        names = dict(zip(curated["column"], curated["cell_type"], strict=True))
        if not names:
            raise InputError(f"{cell_types} keeps no column of {path.stem}")
        frame = frame[list(names)].rename(columns=names)
    return frame


def _read_table(path: Path, **how: Any) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, **how)
    except (ValueError, pa.ArrowException) as error:  # pandas' own errors are such
        said = str(error).split("\n")[0]
        raise InputError(f"{path} cannot be read as a table: {said}") from error


def described(table: str | Path, cell_types: str | Path | None) -> dict[str, str]:
    """Return tissue and disease of a table by its curation, if all rows agree."""
    if cell_types is None:
        return {}
    curated = _read_table(Path(cell_types), dtype=str)
    rows = curated[curated["profile"] == Path(table).stem]
    known = {c: rows[c].dropna().unique() for c in ("tissue", "disease") if c in rows.columns}
    return {column: str(values[0]) for column, values in known.items() if len(values) == 1}


@takes(SimulateSettings)
def simulate(
    profiles: pd.DataFrame,
    settings: SimulateSettings | None = None,
    *,
    obs: Mapping[str, str] | None = None,
    name: str = "sim",
    **changes: Any,
) -> Any:
    """Simulate cells of every type for every donor.

    Parameters
    ----------
    profiles
        Mean expression on a linear scale, genes x types; each column has its own scale.
    settings, **changes
        How many cells: :class:`cello1.recipes.SimulateSettings`, or its fields by keyword. A
        donor's cells do not depend on the number of donors.
    obs
        Constant columns of obs, such as ``{"tissue": "lung", "disease": "normal"}``.
    name
        What donor ids begin with. Donors of two tables with one name count as the same people.

    Returns
    -------
    anndata.AnnData
        Raw counts (CSR, float32), donors x types x cells_per_type cells.

    Raises
    ------
    InputError
        When a profile is negative, not finite or all zero.
    """
    from anndata import AnnData

    asked = resolve(SimulateSettings, settings, changes)
    cells_per_type = asked.cells_per_type
    means = profiles.to_numpy(dtype=np.float64)
    for column, total in zip(profiles.columns, means.sum(axis=0), strict=True):
        if not np.isfinite(total) or total <= 0 or (profiles[column] < 0).any():
            raise InputError(f"profile {brief(column)} must be >= 0, finite and not all zero")
    shares = means / means.sum(axis=0)
    blocks, rows = [], []
    for donor in range(asked.donors):
        rng = np.random.default_rng([asked.seed, donor])
        shift = np.exp(rng.normal(0.0, DONOR_SD, len(shares)))
        for t, label in enumerate(profiles.columns):
            blocks.append(_cells(shares[:, t] * shift, cells_per_type, asked.depth, rng))
            rows += [(f"{name}{donor + 1:03d}", str(label))] * cells_per_type
    frame = pd.DataFrame(rows, columns=["donor_id", "cell_type"])
    frame.index = pd.Index([f"synthetic-{i}" for i in range(len(frame))])
    frame["cell_type_ontology_term_id"] = [term_id(label) or "unknown" for _, label in rows]
    defaults = {"organism": "Homo sapiens", "suspension_type": "cell", "assay": "simulated"}
    for column, value in {**defaults, **(obs or {})}.items():
        frame[column] = value
    frame["is_primary_data"], frame["is_synthetic"] = True, True
    for column in frame.select_dtypes("object").columns:
        frame[column] = frame[column].astype("category")
    var = pd.DataFrame(
        {"feature_name": profiles.index.astype(str)}, index=profiles.index.astype(str)
    )
    return AnnData(X=vstack(blocks, format="csr"), obs=frame, var=var, uns={"synthetic": True})


def _cells(share: Any, n: int, depth: float, rng: np.random.Generator) -> csr_matrix:
    """Draw n cells of one donor and type."""
    noise = np.exp(rng.normal(0.0, CELL_SD, (n, len(share))))
    hidden = rng.random((n, len(share))) < rng.beta(*DROPOUT, size=(n, 1))
    expected = share * noise * ~hidden
    depths = np.maximum(1, depth * np.exp(rng.normal(0.0, DEPTH_SD, n))).astype(np.int64)
    counts = rng.multinomial(depths, expected / expected.sum(axis=1, keepdims=True))
    return csr_matrix(counts.astype(np.float32))
