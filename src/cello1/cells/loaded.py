"""Tables of an AnnData in memory, read by the rules for files: symbols, donor groups, contexts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix

from cello1.cells.context import FIELDS, group_context
from cello1.cells.genes import Symbols
from cello1.cells.h5ad.categories import Columns, as_categories
from cello1.cells.h5ad.matrix import Chunk
from cello1.cells.h5ad.read import Values
from cello1.cells.obs import BATCH_COLUMNS, group_cells, no_batch
from cello1.cells.rank import top_genes
from cello1.cells.symbols import SYMBOL_COLUMNS, TYPE_COLUMNS, Chosen, choose_symbols
from cello1.errors import InputError


@dataclass(frozen=True)
class Expression:
    """The chosen matrix of an AnnData.

    Attributes
    ----------
    name, values
        Which matrix (``X``, ``raw.X`` or a layer), and whether it holds counts.
    matrix
        Cells x genes, CSR.
    symbols
        The genes, indexed for ranking.
    """

    name: str
    values: Values
    matrix: csr_matrix = field(repr=False)
    symbols: Symbols = field(repr=False)


@dataclass(frozen=True)
class DonorGroup:
    """The cells of one donor, batch and tissue.

    Attributes
    ----------
    key
        (donor, batch, tissue); None where there is no such column.
    members
        Positions of its cells, ascending.
    context
        What is known of the donor, as prose.
    meta
        The same as fields of a puzzle.
    """

    key: tuple[str | None, str | None, str | None]
    members: npt.NDArray[np.intp] = field(repr=False)
    context: str
    meta: dict[str, Any]


def rank_rows(
    matrix: csr_matrix, symbols: Symbols, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Rank the genes of the rows of a matrix; see :func:`cello1.cells.genes.top_genes`."""
    chunk = Chunk(0, matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    return top_genes(chunk, symbols, np.ones(matrix.shape[0], dtype=bool), k)


def donor_groups(
    obs: pd.DataFrame,
    *,
    donor_key: str,
    batch_key: str | None = None,
    organism: str | None = None,
    extra: Mapping[str, str] | None = None,
    whole: bool = False,
) -> list[DonorGroup]:
    """Group cells by donor, batch and tissue, and describe each group.

    Parameters
    ----------
    obs
        Table of observations. Without a column `donor_key` all cells count as one donor.
    donor_key, batch_key
        Columns of obs; by default the batch is the first common batch column.
    organism
        Named in the context unless it is human.
    extra
        Column -> sentence with ``{value}``, added to the context.
    whole
        Put all cells into one group.

    Raises
    ------
    InputError
        When `batch_key` is missing.
    """
    if batch_key is not None and batch_key not in obs:
        raise InputError(f"no obs column {batch_key!r} for batches{obs_columns(obs)}")
    usual = (c for c in BATCH_COLUMNS if c in obs and no_batch(obs[c].array) is None)
    batch_key = batch_key or next(usual, None)
    wanted = {*FIELDS, "organism", *(extra or {})} & set(obs.columns)
    known = Columns({name: as_categories(obs[name].array) for name in sorted(wanted)})
    everyone = np.arange(len(obs))
    organism = organism or known.constant("organism", everyone)
    parts = [
        as_categories(obs[key].array) if key is not None and key in obs and not whole else None
        for key in (donor_key, batch_key, "tissue")
    ]
    nobody: pd.Categorical = pd.Categorical(np.full(len(obs), None, dtype=object))
    groups, keys = group_cells(
        np.ones(len(obs), dtype=bool), nobody if parts[0] is None else parts[0], parts[1], parts[2]
    )
    found = []
    for g, key in enumerate(keys):
        members = np.flatnonzero(groups == g)
        meta = {
            "donor_id": key[0],
            "batch": key[1],
            "tissue": known.constant("tissue", members),
            "disease": known.constant("disease", members),
        }
        context = group_context(known, members, organism, extra or {})
        found.append(DonorGroup(key, members, context, meta))
    return found


def obs_columns(obs: pd.DataFrame) -> str:
    """Name the columns of obs, for messages."""
    return f"; obs has {', '.join(map(str, sorted(obs.columns)[:30])) or 'no columns'}"


def symbols_of(own: pd.DataFrame, var: pd.DataFrame, name: str, organism: str | None) -> Chosen:
    """Return a symbol for every gene; `raw` often has bare ids, which `var` may know."""
    index = [str(n) for n in own.index]
    candidates = {
        key: _texts(dict(enumerate(_spelled(own[key]))), range(len(index)), index)
        for key in SYMBOL_COLUMNS
        if key in own.columns
    }
    key = next((k for k in SYMBOL_COLUMNS if k in var.columns), None)
    if own is not var and not candidates and key is not None:
        known = dict(zip(map(str, var.index), _spelled(var[key]), strict=True))
        candidates[f"{key} of var"] = _texts(known, index, index)
    candidates["var_names"] = pa.array([n.strip() for n in index], pa.string())
    kinds = next((k for k in TYPE_COLUMNS if k in own.columns), None)
    types = None if kinds is None else _spelled(own[kinds])
    return choose_symbols(candidates.items(), types, table=name, organism=organism)


def _spelled(column: pd.Series) -> list[str]:
    given = column.astype(object)
    spelled = given.where(given.notna(), "").astype(str).str.strip()
    return [str(text) for text in spelled]


def _texts(known: Mapping[Any, str], keys: Iterable[Any], names: list[str]) -> pa.StringArray:
    found = [known.get(k) or n for k, n in zip(keys, names, strict=True)]
    return pa.array(found, pa.string())
