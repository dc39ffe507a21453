"""What stands for a cluster in a batch: one of its cells, a sum of them, or its own genes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from cello1.annotate.batches import Genes, Pool
from cello1.annotate.clusters import Clusters
from cello1.cells.loaded import Expression, rank_cells, rank_rows
from cello1.errors import InputError
from cello1.recipes import AnnotateSettings
from cello1.runs import named_rng

PSEUDOBULK_CELLS = 50
Mask = npt.NDArray[np.bool_]
GenesOf = Callable[[Pool, int, int, int], Genes]


def cell_lists(
    adata: Any, expression: Expression, clusters: Clusters, settings: AnnotateSettings
) -> tuple[Mask, GenesOf]:
    """Rank the genes of every cell; shallow cells are used only where a cluster has no others.

    Returns
    -------
    usable
        Cells that may be drawn, shape (cells,).
    genes
        (pool, cluster, cell, number of the draw) -> gene list.

    Raises
    ------
    InputError
        When no cell of a cluster expresses any gene.
    """
    members = np.flatnonzero(clusters.codes >= 0)
    ranks, expressed = rank_cells(expression, members, settings.top_genes, adata.obs_names)
    slot = np.full(adata.n_obs, -1)
    slot[members] = np.arange(len(members))
    usable = np.zeros(adata.n_obs, dtype=bool)
    for c, name in enumerate(clusters.names):
        mine = np.flatnonzero(clusters.codes[members] == c)
        deep = mine[expressed[mine] >= settings.min_genes]
        any_gene = mine[expressed[mine] > 0]
        if not len(any_gene):
            raise InputError(
                f"no cell of cluster {name!r} expresses any gene in {expression.name}; drop these "
                "cells, or name another matrix with layer"
            )
        # When cells themselves are labelled, every one that says anything is asked about.
        good = deep if len(deep) and settings.unit == "cluster" else any_gene
        usable[members[good]] = True
    names = expression.symbols.names

    def genes(pool: Pool, cluster: int, cell: int, turn: int) -> Genes:
        return tuple(names[r] for r in ranks[slot[cell]].tolist() if r >= 0)

    return usable, genes


def pseudobulk_lists(
    adata: Any, expression: Expression, clusters: Clusters, settings: AnnotateSettings
) -> tuple[Mask, GenesOf]:
    """Sum the counts of up to 50 cells of the cluster and donor, drawn anew for every batch.

    Raises
    ------
    InputError
        When there are no counts to sum.
    """
    if expression.values != "counts":
        raise InputError(
            f"a pseudobulk sums raw counts, but {expression.name} holds log-normalised values; "
            "put the counts into layers['counts'], or use rank='cells' or rank='specific'"
        )
    usable, _ = cell_lists(adata, expression, clusters, settings)
    names = expression.symbols.names

    def genes(pool: Pool, cluster: int, cell: int, turn: int) -> Genes:
        rng = named_rng(settings.seed, pool.key, cluster, turn)
        members = np.asarray(pool.cells[cluster])
        drawn = rng.choice(members, min(PSEUDOBULK_CELLS, len(members)), replace=False)
        total = csr_matrix(expression.matrix[np.sort(drawn)].sum(axis=0))
        ranks, _, _ = rank_rows(total, expression.symbols, settings.top_genes)
        return tuple(names[r] for r in ranks[0].tolist() if r >= 0)

    return usable, genes


def specific_lists(
    adata: Any, expression: Expression, clusters: Clusters, settings: AnnotateSettings
) -> tuple[Mask, GenesOf]:
    """List the genes that set a cluster apart from the rest, strongest first.

    An existing result of scanpy's `rank_genes_groups` for these clusters is used; else its t-test
    is computed on a copy.

    Raises
    ------
    InputError
        When nothing sets a cluster apart.
    """
    usable, _ = cell_lists(adata, expression, clusters, settings)
    result = adata.uns.get("rank_genes_groups")
    known = result is not None and result["params"].get("groupby") == clusters.key
    if known and result["params"].get("reference") == "rest":
        raw = result["params"].get("use_raw") and adata.raw is not None
        index = adata.raw.var_names if raw else adata.var_names
    else:
        result, index = _rank_genes(expression, clusters), None
    of_column = _column_symbols(adata, expression, index)
    lists = []
    for name in clusters.names:
        scores = np.asarray(result["scores"][name])
        found = [of_column.get(str(g), "") for g in np.asarray(result["names"][name])[scores > 0]]
        genes = [g for g in dict.fromkeys(found) if g][: settings.top_genes]
        if not genes:
            raise InputError(f"no gene sets cluster {name!r} apart; use rank='cells'")
        lists.append(tuple(genes))

    def genes_of(pool: Pool, cluster: int, cell: int, turn: int) -> Genes:
        return lists[cluster]

    return usable, genes_of


def _rank_genes(expression: Expression, clusters: Clusters) -> Any:
    """Run scanpy's t-test on normalised values; genes are named by their column."""
    import pandas as pd
    import scanpy as sc
    from anndata import AnnData

    inside = clusters.codes >= 0
    names = np.array(clusters.names, dtype=object)[clusters.codes[inside]]
    obs = pd.DataFrame(
        {"cluster": pd.Categorical(names, categories=clusters.names)},
        index=np.flatnonzero(inside).astype(str),
    )
    copy = AnnData(expression.matrix[inside].astype(np.float32), obs=obs)
    if expression.values == "counts":
        sc.pp.normalize_total(copy, target_sum=1e4)
        sc.pp.log1p(copy)
    else:
        copy.uns["log1p"] = {"base": None}
    small = [n for n in clusters.names if (names == n).sum() < 2]
    if small:
        raise InputError(
            f"cluster {small[0]!r} has a single cell, so its own genes cannot be tested; merge it "
            "with another or use rank='cells'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(copy, "cluster", method="t-test", use_raw=False)
    return copy.uns["rank_genes_groups"]


def _column_symbols(adata: Any, expression: Expression, index: Any) -> dict[str, str]:
    """Name of a gene in a test result -> its symbol."""
    names, rank = expression.symbols.names, expression.symbols.rank
    symbols = [names[r] if r >= 0 else "" for r in rank.tolist()]
    if index is None:
        return {str(i): s for i, s in enumerate(symbols)}
    own = adata.raw.var_names if expression.name == "raw.X" else adata.var_names
    known = dict(zip(map(str, own), symbols, strict=True))
    return {str(name): known.get(str(name), str(name)) for name in index}
