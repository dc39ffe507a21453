"""Label single cells: each is rated by its own genes, compared with all cells of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from cello1.annotate.candidates import NONE, UNKNOWN
from cello1.annotate.clusters import Clusters
from cello1.annotate.data import Data
from cello1.annotate.evidence import Evidence, Knowledge, listed_by
from cello1.annotate.levels import Level, Tree
from cello1.annotate.plan import Plan
from cello1.annotate.pool import count_votes
from cello1.annotate.table import PerCell
from cello1.cells.genes import Symbols
from cello1.cells.rank import rank_chunks
from cello1.runs import Watch
from cello1.solvers.base import Floats


def label_cells(
    data: Data,
    symbols: Symbols,
    knowledge: Knowledge,
    evidence: Evidence,
    clusters: Clusters,
    tree: Tree,
    levels: Sequence[Level],
    *,
    k: int,
    temperature: float,
    other: float,
    least: float,
    watch: Watch,
) -> PerCell:
    """Label every cell that has a cluster, in a second pass over the matrix.

    A cell lists few genes, so the evidence of its cluster is added with the weight of one cell.

    Parameters
    ----------
    data, symbols, knowledge, evidence, clusters
        As for the clusters.
    tree, levels
        The types, and the labels of the clusters.
    k
        Length of the lists.
    temperature, other, least
        As for the clusters, fitted on single cells.
    watch
        Called with (what is being done, share done).
    """
    m, weights, prior = tree.offered, evidence.weights, tree.prior(other)
    names, place = _names(tree)
    broad = sorted(set(tree.broad[:m]))
    to_broad = np.zeros((m, len(broad)))
    to_broad[np.arange(m), [broad.index(tree.broad[j]) for j in range(m)]] = 1.0
    shape = data.n_cells
    label = np.full(shape, place[UNKNOWN])
    coarse, fine, sure = label.copy(), label.copy(), np.full(shape, np.nan)
    inside = clusters.codes >= 0
    is_none = np.array([one.level == "none" for one in levels], dtype=bool)
    for ranked in rank_chunks(data.chunks(), symbols, inside, k):
        rows = np.arange(ranked.rows.start, ranked.rows.stop)
        kept = inside[rows] & (ranked.expressed > 0)
        if not kept.any():
            continue
        lists, at = ranked.ranks[kept], rows[kept]
        own = np.asarray(listed_by(lists, knowledge.places) @ weights) - evidence.base
        scores = own + evidence.pooled[clusters.codes[at]]
        p = softmax(scores / temperature + prior, axis=1) @ tree.share
        wide = p @ to_broad
        best, widest = p.argmax(axis=1), wide.argmax(axis=1)
        p_best, p_wide = p.max(axis=1), wide.max(axis=1)
        of_best = np.array([place[x] for x in tree.labels[:m]])[best]
        of_wide = np.array([place[x] for x in broad])[widest]
        fine[at], coarse[at] = of_best, of_wide
        label[at] = np.where(
            p_best >= least, of_best, np.where(p_wide >= least, of_wide, place[UNKNOWN])
        )
        sure[at] = np.where((p_best < least) & (p_wide >= least), p_wide, p_best)
        nothing = is_none[clusters.codes[at]]
        for column in (label, coarse, fine):
            column[at[nothing]] = place[NONE]
        watch("labelling cells", ranked.rows.stop / data.n_cells)
    return PerCell(names, label, coarse, fine, sure)


def cells_by_votes(
    data: Data,
    plan: Plan,
    records: Mapping[str, Mapping[str, Any]],
    levels: Sequence[Level],
    temperature: float,
    least: float,
) -> PerCell:
    """Label every cell that a language model was asked about by its own answers."""
    m = len(plan.candidates)
    tree = Tree(plan.candidates, m)
    asked = np.unique([cell for batch in plan.batches for cell in batch.cells])
    slot = {cell: i for i, cell in enumerate(asked.tolist())}
    owners = [[slot[cell] for cell in batch.cells] for batch in plan.batches]
    votes = count_votes(plan.batches, owners, len(asked), plan.candidates, records)
    p: Floats = np.asarray(softmax(votes.logits / temperature, axis=1))
    names, place = _names(tree)
    label = np.full(data.n_cells, place[UNKNOWN])
    coarse, fine, sure = label.copy(), label.copy(), np.full(data.n_cells, np.nan)
    for i, cell in enumerate(asked.tolist()):
        if not votes.counts[i]:
            continue
        if levels[plan.clusters.codes[cell]].level == "none":
            label[cell] = coarse[cell] = fine[cell] = place[NONE]
            continue
        found = tree.settle(p[i], least)
        if found.label not in place:
            place[found.label] = len(names)
            names.append(found.label)
        label[cell], coarse[cell] = place[found.label], place[found.coarse]
        fine[cell], sure[cell] = place[found.fine], found.confidence
    return PerCell(names, label, coarse, fine, sure)


def _names(tree: Tree) -> tuple[list[str], dict[str, int]]:
    m = tree.offered
    names = list(dict.fromkeys([*tree.labels[:m], *tree.broad[:m], NONE, UNKNOWN]))
    return names, {name: i for i, name in enumerate(names)}
