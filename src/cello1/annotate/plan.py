"""Everything that will be asked about a data set, before anything is sent to anyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cello1.annotate.batches import MAX_CELLS, Batch, Genes, Pool, draw_batches
from cello1.annotate.candidates import read_candidates, tissue_types
from cello1.annotate.clusters import Clusters, leiden, read_clusters
from cello1.annotate.lists import cell_lists, pseudobulk_lists, specific_lists
from cello1.cells.loaded import Expression, Home, homes, read_expression
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import AnnotateSettings


@dataclass(frozen=True)
class Plan:
    """The batches to be asked, and what they were made of.

    Attributes
    ----------
    clusters
        Which cell belongs to which.
    candidates
        The types on offer.
    batches
        What is asked; the same question may stand there twice.
    contexts
        The different contexts, in the order of their donors.
    left_out
        Names of clusters that share no donor with another one, so that no batch holds them.
    expression
        The values the genes were ranked by.
    """

    settings: AnnotateSettings
    clusters: Clusters
    candidates: list[str]
    batches: list[Batch]
    contexts: list[str]
    left_out: list[str]
    expression: Expression = field(repr=False)

    @property
    def puzzles(self) -> list[Puzzle]:
        """The different questions, in order."""
        return list({batch.puzzle.id: batch.puzzle for batch in self.batches}.values())


def make_plan(
    adata: Any,
    *,
    groupby: str | None,
    leiden_resolution: float | None,
    candidates: str | Path | Iterable[str] | None,
    train: Sequence[Puzzle],
    settings: AnnotateSettings,
    key_added: str,
) -> Plan:
    """Read an AnnData and draw the batches; nothing is changed.

    Parameters are those of :func:`cello1.annotate.run.annotate`; `train` are the puzzles that
    know the types of a tissue, where no candidates are given.

    Raises
    ------
    InputError
        When the data, the clusters or the candidates cannot be used.
    """
    if groupby is not None and leiden_resolution is not None:
        raise UseError("groupby names existing clusters and leiden computes new ones; give one")
    expression = read_expression(adata, settings.layer)
    clusters = (
        read_clusters(adata.obs, groupby)
        if leiden_resolution is None
        else leiden(adata, expression, leiden_resolution, settings.seed, f"{key_added}_leiden")
    )
    places = homes(
        adata.obs,
        donor_key=settings.donor_key,
        batch_key=settings.batch_key,
        organism=_organism(adata),
        extra=settings.context_columns,
        whole=settings.rank == "specific",
    )
    labels = _candidates(candidates, train, places, settings)
    pools, genes = _pools(adata, expression, clusters, places, settings)
    batches = draw_batches(
        pools,
        labels,
        genes,
        size=batch_size(len(clusters.names), len(labels), settings),
        rounds=settings.rounds,
        each_cell=settings.unit == "cell",
        seed=settings.seed,
    )
    met = {c for batch in batches for c in batch.clusters}
    left_out = [name for c, name in enumerate(clusters.names) if c not in met]
    if not batches:
        raise InputError(
            "no donor (obs column "
            f"{settings.donor_key!r}) has cells of two clusters, so nothing can be compared; "
            "cluster the donors together, or name another donor_key"
        )
    contexts = list(dict.fromkeys(batch.puzzle.context for batch in batches))
    return Plan(settings, clusters, labels, batches, contexts, left_out, expression)


def batch_size(n_clusters: int, n_candidates: int, settings: AnnotateSettings) -> int:
    """Return how many clusters a batch shows at most.

    With labels that must be unique, as many as possible. Else about half of them, so that two
    clusters of one type, which cannot both have it within a batch, often do not meet.
    """
    most = min(n_clusters, n_candidates, MAX_CELLS)
    if settings.batch_size is not None:
        return min(settings.batch_size, most)
    return most if settings.unique else max(2, min(most, -(-n_clusters // 2)))


def _candidates(
    given: str | Path | Iterable[str] | None,
    train: Sequence[Puzzle],
    places: Sequence[Home],
    settings: AnnotateSettings,
) -> list[str]:
    if given is None:
        if not train:
            raise UseError(
                "no candidates are named; give a list of cell types or a file with one on each "
                "line, or puzzles that know the types of the tissue"
            )
        tissues = sorted({p.meta["tissue"] for p in places if p.meta["tissue"] is not None})
        given = tissue_types(train, tissues)
    return read_candidates(given, unknown_types=settings.unknown_types)


def _pools(
    adata: Any,
    expression: Expression,
    clusters: Clusters,
    places: Sequence[Home],
    settings: AnnotateSettings,
) -> tuple[list[Pool], Callable[[Pool, int, int, int], Genes]]:
    """Divide the usable cells of every donor by cluster, and choose where lists come from."""
    usable: npt.NDArray[np.bool_]
    if settings.rank == "specific":
        usable, genes = specific_lists(adata, expression, clusters, settings)
    elif settings.rank == "pseudobulk":
        usable, genes = pseudobulk_lists(adata, expression, clusters, settings)
    else:
        usable, genes = cell_lists(adata, expression, clusters, settings)
    pools = []
    for home in places:
        codes = clusters.codes[home.members]
        good = usable[home.members]
        by_cluster = {
            int(c): home.members[good & (codes == c)].tolist()
            for c in np.unique(codes[good & (codes >= 0)])
        }
        if by_cluster:
            key = "\x1e".join(str(part) for part in home.key)
            pools.append(Pool(key, home.context, home.meta, by_cluster))
    return pools, genes


def _organism(adata: Any) -> str | None:
    value = adata.uns.get("organism")
    return value if isinstance(value, str) else None
