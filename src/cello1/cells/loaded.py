"""An AnnData in memory, read like a file: values, symbols, groups, contexts.

The same rules as for files (:mod:`cello1.cells.h5ad.read`): counts are preferred to normalised
values, whatever the matrix is called, and everything that cannot be used raises one `InputError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_matrix, issparse

from cello1.cells.context import FIELDS, group_context
from cello1.cells.genes import Symbols, index_symbols
from cello1.cells.h5ad.categories import Columns, as_categories
from cello1.cells.h5ad.matrix import Chunk
from cello1.cells.h5ad.read import COUNT_LAYERS, Values, look_at
from cello1.cells.obs import BATCH_COLUMNS, group_cells, no_batch
from cello1.cells.rank import top_genes
from cello1.cells.symbols import SYMBOL_COLUMNS, TYPE_COLUMNS, Chosen, choose_symbols
from cello1.errors import InputError, brief

_SAMPLE = 200_000
_BLOCK_ROWS = 4_096


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
        The genes, ready for ranking.
    notes
        What a reader must know of them: what is no gene, which column was taken and why.
    """

    name: str
    values: Values
    matrix: csr_matrix = field(repr=False)
    symbols: Symbols = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Home:
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


def read_expression(adata: Any, layer: str | None = None) -> Expression:
    """Find the matrix to rank genes by, and the symbols of its genes.

    Parameters
    ----------
    adata
        An AnnData in memory.
    layer
        ``X``, ``raw.X`` or the name of a layer; by default the first matrix of raw counts, else
        the first without negative values.

    Raises
    ------
    InputError
        When no matrix can be used, a layer of counts holds other values, or genes have no symbols.
    """
    if adata.isbacked:
        raise InputError("the AnnData is backed by a file; load it with adata.to_memory()")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"the AnnData has {adata.n_obs} cells and {adata.n_vars} genes")
    name, values, stored = _choose(_matrices(adata), layer)
    table = adata.raw.var if name == "raw.X" else adata.var
    where = "raw.var" if name == "raw.X" else "var"
    genes = symbols_of(table, adata.var, where, _organism(adata))
    matrix = csr_matrix(stored)
    return Expression(name, values, matrix, index_symbols(genes.symbols), genes.told())


def rank_cells(
    expression: Expression, cells: npt.NDArray[np.intp], k: int, names: pd.Index
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Rank the genes of some cells.

    Parameters
    ----------
    expression
        The matrix.
    cells
        Their positions, shape (C,).
    k
        Length of the lists.
    names
        Of all observations, for messages.

    Returns
    -------
    ranks
        Positions in ``expression.symbols.names``, filled up with -1, shape (C, k).
    expressed
        Number of expressed genes, shape (C,).

    Raises
    ------
    InputError
        When a cell has negative or infinite values.
    """
    ranks, expressed = [], []
    for start in range(0, len(cells), _BLOCK_ROWS):
        block = cells[start : start + _BLOCK_ROWS]
        lists, counts, faults = rank_rows(expression.matrix[block], expression.symbols, k)
        if faults.any():
            odd = names[block[int(np.argmax(faults > 0))]]
            raise InputError(
                f"{expression.name} holds negative, NaN or infinite values in cell {brief(odd)}; "
                "expected counts or log-normalised values: name another matrix with layer"
            )
        ranks.append(lists)
        expressed.append(counts)
    if not ranks:
        return np.empty((0, k), np.int32), np.empty(0, np.int32)
    return np.vstack(ranks), np.concatenate(expressed)


def rank_rows(
    matrix: csr_matrix, symbols: Symbols, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Rank the genes of the rows of a matrix; see :func:`cello1.cells.genes.top_genes`."""
    chunk = Chunk(0, matrix.indptr.astype(np.int64), matrix.indices, matrix.data)
    return top_genes(chunk, symbols, np.ones(matrix.shape[0], dtype=bool), k)


def homes(
    obs: pd.DataFrame,
    *,
    donor_key: str,
    batch_key: str | None = None,
    organism: str | None = None,
    extra: Mapping[str, str] | None = None,
    whole: bool = False,
) -> list[Home]:
    """Group cells by donor, batch and tissue, and describe each group.

    Parameters
    ----------
    obs
        Of the AnnData. Without a column `donor_key` all cells count as one donor.
    donor_key, batch_key
        Columns; without `batch_key`, the first of the usual ones.
    organism
        Named in the context unless it is human.
    extra
        Column -> sentence with ``{value}`` for the context.
    whole
        Put all cells into one division.

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
        found.append(Home(key, members, context, meta))
    return found


def obs_columns(obs: pd.DataFrame) -> str:
    """Name the columns of obs, for messages."""
    return f"; obs has {', '.join(map(str, sorted(obs.columns)[:30])) or 'no columns'}"


def _matrices(adata: Any) -> dict[str, Any]:
    """Return all matrices, those most likely to hold counts first."""
    nodes = {name: adata.layers[name] for name in COUNT_LAYERS if name in adata.layers}
    if adata.raw is not None:
        nodes["raw.X"] = adata.raw.X
    if adata.X is not None:
        nodes["X"] = adata.X
    return nodes | {name: adata.layers[name] for name in sorted(adata.layers)}


def _choose(nodes: Mapping[str, Any], layer: str | None) -> tuple[str, Values, Any]:
    if layer is not None and layer not in nodes:
        raise InputError(f"no matrix {layer!r} in the AnnData; it has {', '.join(nodes)}")
    found = {}
    for name in nodes if layer is None else [layer]:
        kind = look_at(_sample(nodes[name]))
        if kind == "counts":
            return name, "counts", nodes[name]
        if layer in COUNT_LAYERS and kind == "normalised":
            raise InputError(
                f"layer {layer!r} should hold raw counts but holds fractions (log-normalised "
                "values?); put the counts there, or name the layer of normalised values, such as X"
            )
        found[name] = kind
    for name, kind in found.items():
        if kind == "normalised":
            return name, "normalised", nodes[name]
    what = "; ".join(f"{name} {kind}" for name, kind in found.items())
    raise InputError(
        f"no usable expression values: {what or 'the AnnData has no matrix'}. Expected counts or "
        "log-normalised values: put them into X, raw.X or layers['counts']"
    )


def _sample(matrix: Any) -> npt.NDArray[Any]:
    values: Any = matrix
    values = values.data if issparse(matrix) else np.asarray(values).ravel()
    return np.asarray(values[:: max(1, len(values) // _SAMPLE)])


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


def _organism(adata: Any) -> str | None:
    told = adata.uns.get("organism")
    if isinstance(told, str):
        return told
    met = list(adata.obs["organism"].unique()) if "organism" in adata.obs else []
    return str(met[0]) if len(met) == 1 and not pd.isna(met[0]) else None
