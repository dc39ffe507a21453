"""Plan all questions to a language model about a data set, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cello1.annotate.batches import MAX_CELLS, Batch, Genes, Pool, draw_batches
from cello1.annotate.clusters import Clusters
from cello1.annotate.data import Data
from cello1.annotate.lists import cell_lists, pseudobulk_lists, specific_lists
from cello1.cells.loaded import DonorGroup
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import AnnotateSettings


@dataclass(frozen=True)
class Plan:
    """The batches to ask, and what they were made from.

    Attributes
    ----------
    clusters
        The cluster of every cell.
    candidates
        The types on offer.
    batches
        All batches; a question may occur twice.
    contexts
        The distinct contexts, in the order of their donors.
    left_out
        Names of clusters that share no donor with another cluster, so that no batch holds them.
    """

    settings: AnnotateSettings
    clusters: Clusters
    candidates: list[str]
    batches: list[Batch]
    contexts: list[str]
    left_out: list[str]

    @property
    def puzzles(self) -> list[Puzzle]:
        """The distinct questions, in order."""
        return list({batch.puzzle.id: batch.puzzle for batch in self.batches}.values())


def make_plan(
    data: Data,
    clusters: Clusters,
    candidates: list[str],
    groups: Sequence[DonorGroup],
    settings: AnnotateSettings,
) -> Plan:
    """Draw the batches; nothing is changed.

    Raises
    ------
    InputError
        When no donor has cells of two clusters.
    """
    pools, genes = _pools(data, clusters, groups, settings)
    batches = draw_batches(
        pools,
        candidates,
        genes,
        size=batch_size(len(clusters.names), len(candidates), settings),
        rounds=settings.rounds,
        each_cell=settings.unit == "cell",
        seed=settings.seed,
    )
    met = {c for batch in batches for c in batch.clusters}
    left_out = [name for c, name in enumerate(clusters.names) if c not in met]
    if not batches:
        raise InputError(
            f"no donor (obs column {settings.donor_key!r}) has cells of two clusters, so a "
            "language model cannot compare them; cluster the donors together, or name another "
            "donor_key"
        )
    contexts = list(dict.fromkeys(batch.puzzle.context for batch in batches))
    return Plan(settings, clusters, candidates, batches, contexts, left_out)


def batch_size(n_clusters: int, n_candidates: int, settings: AnnotateSettings) -> int:
    """Return the largest number of clusters in a batch.

    If labels must be unique, as many as possible. Otherwise about half of them, so that two
    clusters of one type, which cannot both get it within a batch, are often in different batches.
    """
    most = min(n_clusters, n_candidates, MAX_CELLS)
    if settings.batch_size is not None:
        return min(settings.batch_size, most)
    return most if settings.unique else max(2, min(most, -(-n_clusters // 2)))


def _pools(
    data: Data, clusters: Clusters, groups: Sequence[DonorGroup], settings: AnnotateSettings
) -> tuple[list[Pool], Callable[[Pool, int, int, int], Genes]]:
    """Group the usable cells of every donor by cluster, and choose how lists are made."""
    usable: npt.NDArray[np.bool_]
    if settings.rank == "specific":
        usable, genes = specific_lists(data, clusters, settings)
    elif settings.rank == "pseudobulk":
        usable, genes = pseudobulk_lists(data, clusters, settings)
    else:
        usable, genes = cell_lists(data, clusters, settings)
    pools = []
    for group in groups:
        codes = clusters.codes[group.members]
        good = usable[group.members]
        by_cluster = {
            int(c): group.members[good & (codes == c)].tolist()
            for c in np.unique(codes[good & (codes >= 0)])
        }
        if by_cluster:
            key = "\x1e".join(str(part) for part in group.key)
            pools.append(Pool(key, group.context, group.meta, by_cluster))
    return pools, genes
