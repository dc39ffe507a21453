"""Gene lists that show a cluster to a language model: one cell, a pseudobulk, or its own genes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from cello1.annotate.batches import Genes, Pool
from cello1.annotate.clusters import Clusters
from cello1.annotate.data import Data
from cello1.cells.genes import index_symbols
from cello1.cells.loaded import Expression, rank_rows
from cello1.cells.rank import rank_chunks
from cello1.errors import InputError
from cello1.recipes import AnnotateSettings
from cello1.runs import named_rng

PSEUDOBULK_CELLS = 50
Mask = npt.NDArray[np.bool_]
GenesOf = Callable[[Pool, int, int, int], Genes]


def cell_lists(data: Data, clusters: Clusters, settings: AnnotateSettings) -> tuple[Mask, GenesOf]:
    """Rank the genes of every cell; cells with few genes are used only where there are no others.

    Returns
    -------
    usable
        Cells that may be drawn, shape (cells,).
    genes
        (pool, cluster, cell, number of the draw) -> gene list.
    """
    symbols = index_symbols(data.genes)
    inside = clusters.codes >= 0
    members = np.flatnonzero(inside)
    ranks = np.full((len(members), settings.top_genes), -1, dtype=np.int32)
    expressed = np.zeros(len(members), dtype=np.int32)
    slot = np.cumsum(inside) - 1
    for ranked in rank_chunks(data.chunks(), symbols, inside, settings.top_genes):
        rows = np.arange(ranked.rows.start, ranked.rows.stop)
        keep = inside[rows]
        ranks[slot[rows[keep]]] = ranked.ranks[keep]
        expressed[slot[rows[keep]]] = ranked.expressed[keep]
    usable = np.zeros(data.n_cells, dtype=bool)
    for c in range(len(clusters.names)):
        mine = np.flatnonzero(clusters.codes[members] == c)
        deep = mine[expressed[mine] >= settings.min_genes]
        any_gene = mine[expressed[mine] > 0]
        # When single cells are labelled, every cell that expresses anything is asked about.
        good = deep if len(deep) and settings.unit == "cluster" else any_gene
        usable[members[good]] = True
    names = symbols.names

    def genes(pool: Pool, cluster: int, cell: int, turn: int) -> Genes:
        return tuple(names[r] for r in ranks[slot[cell]].tolist() if r >= 0)

    return usable, genes


def pseudobulk_lists(
    data: Data, clusters: Clusters, settings: AnnotateSettings
) -> tuple[Mask, GenesOf]:
    """Sum the counts of up to 50 cells of the cluster and donor, a new draw for every batch.

    Raises
    ------
    InputError
        When there are no counts to sum.
    """
    if data.values != "counts":
        raise InputError(
            f"a pseudobulk sums raw counts, but {data.matrix} holds log-normalised values; "
            "put the counts into layers['counts'], or use rank='cells' or rank='specific'"
        )
    usable, _ = cell_lists(data, clusters, settings)
    expression = data.expression()
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
    data: Data, clusters: Clusters, settings: AnnotateSettings
) -> tuple[Mask, GenesOf]:
    """List the genes that distinguish a cluster from the rest by scanpy's t-test, strongest first.

    Raises
    ------
    InputError
        When no gene distinguishes a cluster.
    """
    usable, _ = cell_lists(data, clusters, settings)
    expression = data.expression()
    result = _rank_genes(expression, clusters)
    names, rank = expression.symbols.names, expression.symbols.rank.tolist()
    lists = []
    for name in clusters.names:
        scores = np.asarray(result["scores"][name])
        columns = np.asarray(result["names"][name])[scores > 0]
        found = [names[rank[int(c)]] for c in columns if rank[int(c)] >= 0]
        genes = list(dict.fromkeys(found))[: settings.top_genes]
        if not genes:
            raise InputError(f"no gene sets cluster {name!r} apart; use rank='cells'")
        lists.append(tuple(genes))

    def genes_of(pool: Pool, cluster: int, cell: int, turn: int) -> Genes:
        return lists[cluster]

    return usable, genes_of


def _rank_genes(expression: Expression, clusters: Clusters) -> Any:
    """Run scanpy's t-test on normalised values; genes are named by their column number."""
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
