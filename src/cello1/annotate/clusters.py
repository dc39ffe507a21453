"""Assign cells to clusters: a column of obs, or Leiden computed by scanpy."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from cello1.annotate.data import Data
from cello1.cells.h5ad.categories import as_categories
from cello1.cells.loaded import obs_columns
from cello1.errors import InputError, UseError
from cello1.runs import Watch

# More than any tissue has types: a column with more values holds something else.
MAX_CLUSTERS = 500
# Names under which clusterings are found in obs, the usual ones first.
USUAL = (
    "leiden", "louvain", "seurat_clusters", "cell_cluster", "cell_clusters", "cluster",
    "clusters", "cluster_id", "Cluster", "Clusters", "phenograph", "clustering",
)  # fmt: skip
_ALIKE = re.compile(
    r"(leiden|louvain|cluster)[_.\- ]|_snn_res\.|[_.](leiden|louvain|clusters?)$", re.I
)
_VARIABLE_GENES, _COMPONENTS, _NEIGHBOURS = 2_000, 50, 15
# Number of cells on which variable genes are selected; those genes of all cells are held in memory.
_CHOOSING = 50_000


@dataclass(frozen=True)
class Clusters:
    """The clusters of a data set.

    Attributes
    ----------
    names
        Names of the K clusters, in the order of their categories.
    codes
        The cluster of every cell, -1 for none, shape (cells,).
    key
        Their column of obs, existing or to be added.
    computed
        Whether they are new and not yet in obs.
    note
        How they were found, where the user did not name them.
    """

    names: list[str]
    codes: npt.NDArray[np.intp]
    key: str
    computed: bool = False
    note: str | None = None


def find_clusters(
    data: Data,
    groupby: str | None,
    resolution: float | None,
    *,
    seed: int,
    key: str,
    watch: Watch,
) -> Clusters:
    """Find the clusters: the named column, else Leiden if requested, else a column that obs has.

    Raises
    ------
    UseError
        When both are requested.
    InputError
        When a column cannot be used.
    """
    if groupby is not None and resolution is not None:
        raise UseError("groupby names existing clusters and leiden computes new ones; give one")
    if groupby is not None:
        return read_clusters(data.obs, groupby)
    if resolution is None and (named := named_clusters(data)) is not None:
        return named
    found = leiden(data, resolution or 1.0, seed, f"{key}_leiden", watch)
    if resolution is not None:
        return found
    note = (
        f"obs has no clusters, so Leiden clusters were computed at resolution 1 "
        f"({len(found.names)})"
    )
    return Clusters(found.names, found.codes, found.key, True, note)


def named_clusters(data: Data) -> Clusters | None:
    """Return the clusters that obs has under one of the usual names, or None."""
    for name in _clusterings(data.obs):
        try:
            found = read_clusters(data.obs, name)
        except InputError:
            continue
        note = f"clusters are those of obs column {name!r} ({len(found.names)})"
        return Clusters(found.names, found.codes, name, note=note)
    return None


def _clusterings(obs: pd.DataFrame) -> list[str]:
    alike = sorted(str(c) for c in obs.columns if _ALIKE.search(str(c)))
    return list(dict.fromkeys([*(c for c in USUAL if c in obs), *alike]))


def read_clusters(obs: pd.DataFrame, groupby: str) -> Clusters:
    """Read the clusters from a column of obs; categories without cells are dropped.

    Raises
    ------
    InputError
        When the column is missing, or holds measurements or cell names.
    """
    if groupby not in obs:
        raise InputError(
            f"no obs column {groupby!r} with clusters{obs_columns(obs)}; name one of them with "
            "groupby, or have Leiden clusters computed with leiden=1.0"
        )
    column = obs[groupby]
    if pd.api.types.is_float_dtype(column) and not (column.dropna() % 1 == 0).all():
        raise InputError(
            f"obs column {groupby!r} holds measurements (such as {column.dropna().iloc[0]:.4g}); "
            "expected the names or numbers of clusters"
        )
    values = as_categories(column.array).remove_unused_categories()
    names = [str(name) for name in values.categories]
    if len(names) > MAX_CLUSTERS:
        raise InputError(
            f"obs column {groupby!r} has {len(names):,} different values such as {names[0]!r}; "
            f"expected clusters, at most {MAX_CLUSTERS}: is it a column of cell names? Else "
            "cluster more coarsely"
        )
    if not names:
        raise InputError(f"obs column {groupby!r} names no cluster: all of its values are missing")
    return Clusters(names, np.asarray(values.codes, dtype=np.intp), groupby)


def leiden(data: Data, resolution: float, seed: int, key: str, watch: Watch) -> Clusters:
    """Compute Leiden clusters; the data are not changed.

    A neighbour graph stored in the data is used. Otherwise counts are normalised to 10,000 per
    cell, followed by log1p, 2,000 variable genes (selected on up to 50,000 cells), 50 principal
    components and 15 neighbours.

    Raises
    ------
    InputError
        When igraph is not installed, or there are too few cells.
    """
    import scanpy as sc
    from anndata import AnnData

    if not resolution > 0:
        raise UseError(f"the resolution of Leiden is {resolution}; expected a number above 0")
    if data.n_cells < 3:
        raise InputError(f"{data.n_cells} cells cannot be clustered; expected at least 3")
    watch("clustering", 0.0)
    cells = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(data.n_cells).astype(str)))
    graph = data.graph()
    if graph is None:
        graph = _graph(data, seed, watch)
    try:
        with _quiet():
            sc.tl.leiden(
                cells, resolution=resolution, random_state=seed, adjacency=graph,
                flavor="igraph", n_iterations=2, directed=False,
            )  # fmt: skip
    except ImportError as error:
        raise InputError(
            "Leiden needs igraph, which is not installed; pip install igraph, or name an obs "
            "column of clusters with groupby"
        ) from error
    watch("clustering", 1.0)
    found = read_clusters(cells.obs, "leiden")
    return Clusters(found.names, found.codes, key, computed=True)


def _graph(data: Data, seed: int, watch: Watch) -> Any:
    """Build the neighbour graph by scanpy's usual steps."""
    import scanpy as sc
    from anndata import AnnData

    counts = data.values == "counts"
    some = np.unique(np.linspace(0, data.n_cells - 1, min(_CHOOSING, data.n_cells)).astype(np.intp))
    with _quiet():
        cells = AnnData(data.rows(some).astype(np.float32))
        if counts:
            sc.pp.normalize_total(cells, target_sum=1e4)
            sc.pp.log1p(cells)
        variable = np.ones(cells.n_vars, dtype=bool)
        if cells.n_vars > _VARIABLE_GENES:
            sc.pp.highly_variable_genes(cells, n_top_genes=_VARIABLE_GENES)
            variable = cells.var["highly_variable"].to_numpy()
            cells = cells[:, variable].copy()
        watch("clustering", 0.2)
        if len(some) < data.n_cells:
            cells = AnnData(_normalised(data, variable, counts))
        watch("clustering", 0.4)
        components = min(_COMPONENTS, cells.n_obs - 1, cells.n_vars - 1)
        sc.pp.pca(cells, n_comps=components, random_state=seed)
        sc.pp.neighbors(cells, n_neighbors=min(_NEIGHBOURS, cells.n_obs - 1), random_state=seed)
    watch("clustering", 0.8)
    return cells.obsp["connectivities"]


def _normalised(data: Data, columns: npt.NDArray[np.bool_], counts: bool) -> csr_matrix:
    """Return the log-normalised values of some genes of all cells, read in chunks."""
    from scipy.sparse import vstack

    parts = []
    for chunk in data.chunks():
        shape = (len(chunk.indptr) - 1, len(columns))
        block = csr_matrix((chunk.data, chunk.indices, chunk.indptr), shape=shape)
        own = csr_matrix(block[:, columns], dtype=np.float32)
        if counts:
            total = np.maximum(np.asarray(block.sum(axis=1)).ravel(), 1.0)
            own.data *= np.repeat((1e4 / total).astype(np.float32), np.diff(own.indptr))
            own.data = np.log1p(own.data)
        parts.append(own)
    return csr_matrix(vstack(parts, format="csr"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and progress output of other libraries."""
    logger = logging.getLogger("scanpy")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
