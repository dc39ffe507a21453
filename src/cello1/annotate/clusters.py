"""Which cell belongs to which cluster: an existing column, or Leiden computed by scanpy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.cells.h5ad.categories import as_categories
from cello1.cells.loaded import Expression, obs_columns
from cello1.errors import InputError, UseError

# Far more than any tissue has types: a column with more values holds something else.
MAX_CLUSTERS = 500
_VARIABLE_GENES, _COMPONENTS, _NEIGHBOURS = 2_000, 50, 15


@dataclass(frozen=True)
class Clusters:
    """The clusters of a data set.

    Attributes
    ----------
    names
        Of the K clusters, in the order of their categories.
    codes
        The cluster of every cell, -1 for none, shape (cells,).
    key
        Where they stand, or are to stand, in obs.
    computed
        They are new and not yet in obs.
    """

    names: list[str]
    codes: npt.NDArray[np.intp]
    key: str
    computed: bool = False


def read_clusters(obs: pd.DataFrame, groupby: str | None) -> Clusters:
    """Read the clusters from a column of obs.

    Raises
    ------
    UseError
        When no column is named.
    InputError
        When it is missing, holds measurements or cell names, has an empty category, or one
        cluster only.
    """
    if groupby is None:
        raise UseError(
            f"no clusters are named{obs_columns(obs)}; name the column of the clusters with "
            "groupby, or have Leiden clusters computed with leiden=1.0 (their resolution)"
        )
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
    values = as_categories(column.array)
    names = [str(name) for name in values.categories]
    if len(names) > MAX_CLUSTERS:
        raise InputError(
            f"obs column {groupby!r} has {len(names):,} different values such as {names[0]!r}; "
            f"expected clusters, at most {MAX_CLUSTERS}: is it a column of cell names? Else "
            "cluster more coarsely"
        )
    codes = np.asarray(values.codes, dtype=np.intp)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise InputError(
            f"cluster {empty[0]!r} of obs column {groupby!r} has no cells; drop such categories: "
            f"adata.obs[{groupby!r}] = adata.obs[{groupby!r}].cat.remove_unused_categories()"
        )
    if len(names) < 2:
        raise InputError(
            f"obs column {groupby!r} has {len(names)} cluster(s); a batch compares at least two: "
            "cluster more finely, for example with leiden=1.0"
        )
    return Clusters(names, codes, groupby)


def leiden(adata: Any, expression: Expression, resolution: float, seed: int, key: str) -> Clusters:
    """Compute Leiden clusters on a copy; `adata` is not changed.

    The neighbour graph of `adata` is used if it has one. Else values are normalised to 10,000 a
    cell if they are counts, then come log1p, 2,000 variable genes, 50 components, 15 neighbours.

    Raises
    ------
    InputError
        When igraph is not installed, there are too few cells, or only one cluster is found.
    """
    import scanpy as sc
    from anndata import AnnData

    if not resolution > 0:
        raise UseError(f"the resolution of Leiden is {resolution}; expected a number above 0")
    if adata.n_obs < 3:
        raise InputError(f"{adata.n_obs} cells cannot be clustered; expected at least 3")
    if "connectivities" in adata.obsp:
        cells = AnnData(obs=pd.DataFrame(index=adata.obs_names))
        graph = adata.obsp["connectivities"]
    else:
        cells = _graph(AnnData(expression.matrix.astype(np.float32), obs=adata.obs[[]].copy()),
                       expression.values == "counts", seed)  # fmt: skip
        graph = cells.obsp["connectivities"]
    try:
        sc.tl.leiden(
            cells, resolution=resolution, random_state=seed, adjacency=graph, flavor="igraph",
            n_iterations=2, directed=False,
        )  # fmt: skip
    except ImportError as error:
        raise InputError(
            "Leiden needs igraph, which is not installed; pip install igraph, or name an obs "
            "column of clusters with groupby"
        ) from error
    if cells.obs["leiden"].nunique() < 2:
        raise InputError(
            f"Leiden finds one cluster only at resolution {resolution}; a batch compares at least "
            "two: raise the resolution"
        )
    found = read_clusters(cells.obs, "leiden")
    return Clusters(found.names, found.codes, key, computed=True)


def _graph(cells: Any, counts: bool, seed: int) -> Any:
    """Build the neighbour graph the usual way of scanpy."""
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant genes and small data sets; nothing to mend
        if counts:
            sc.pp.normalize_total(cells, target_sum=1e4)
            sc.pp.log1p(cells)
        if cells.n_vars > _VARIABLE_GENES:
            sc.pp.highly_variable_genes(cells, n_top_genes=_VARIABLE_GENES)
            cells = cells[:, cells.var["highly_variable"]].copy()
        components = min(_COMPONENTS, cells.n_obs - 1, cells.n_vars - 1)
        sc.pp.pca(cells, n_comps=components, random_state=seed)
        sc.pp.neighbors(cells, n_neighbors=min(_NEIGHBOURS, cells.n_obs - 1), random_state=seed)
    return cells
