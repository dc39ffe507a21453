"""Evidence for every type from the genes of a cluster, compared with all other cells.

Classical solvers are linear: a type has a weight for every gene, and a cell is rated by the sum
over its list. So the rating of a cluster follows from how often its cells list each gene, and the
comparison with all other cells is a difference of such shares. It is deterministic: there are no
random choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import softmax

from cello1.annotate.data import FEW
from cello1.annotate.levels import kinds_of
from cello1.atlas.atlas import Atlas
from cello1.atlas.genes import current, is_housekeeping
from cello1.atlas.tissues import system
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import label_key
from cello1.scoring.ontology import term_id, term_label
from cello1.solvers.base import Floats
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.classical.markers import Markers

# Fitted by `benchmarks/annotate_fit.py` on simulated clusters of many tissues, pancreas and two
# donors of blood. Weight of a cluster's own level beside its difference from all clusters: in a
# data set of one kind of cells differences alone carry no information.
OWN_LEVEL = 0.1
# Weight of the logarithm of a share of votes beside pooled evidence. Where a cluster holds cells
# of two types, the pooled evidence fits neither, but most of its cells fit one.
VOTE = 3.0
# Temperature of a single vote: a cell's vote is shared by types that fit it almost equally.
TIE = 0.5
# Prior votes, shared among all types.
DOUBT = 4.0
# How far the ratings of the types are scaled to equal spread: 0 not at all, 1 fully.
EVEN = 0.3
# How much better a cell must fit a type that is not on offer to vote for it.
UNASKED = 1.0
# Genes that a cluster lists more than others must have at least this share of the pooled evidence
# for a type (of 735 clusters of the studies for fitting, rated right, 1 to 2 % are below it). Where
# cells list nothing known, what they lack would speak for all types that lack it, too.
SPOKEN = 0.1
# Number of cells whose votes are held in memory at a time.
BLOCK = 4_096
# Below this share of the solver's genes measured, the fitted confidence does not transfer.
PANEL = 0.5


# Types found in every tissue: blood cells, and stromal cells and those around vessels.
IN_BLOOD = (
    "B cell", "plasma cell", "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell",
    "regulatory T cell", "natural killer cell", "classical monocyte", "non-classical monocyte",
    "conventional dendritic cell", "plasmacytoid dendritic cell", "neutrophil", "erythrocyte",
    "platelet",
)  # fmt: skip
IN_TISSUES = (
    "macrophage",
    "mast cell",
    "endothelial cell",
    "endothelial cell of lymphatic vessel",
    "pericyte",
    "smooth muscle cell",
    "fibroblast",
)


@dataclass(frozen=True)
class Knowledge:
    """The weights of a classical solver, for the genes of a data set.

    Attributes
    ----------
    labels
        The L types: first the candidates, then others that may be present instead.
    weights
        Weight of every gene for every type, shape (G, L).
    known
        Which types the solver has any weights for, shape (L,).
    places
        Weight of a gene at each rank of a list, shape (k, G).
    genes, measured
        Number of genes with a weight for any type, and how many of them the data measure.
    name
        Name of the solver.
    """

    labels: list[str]
    weights: Floats = field(repr=False)
    known: npt.NDArray[np.bool_]
    places: npt.NDArray[np.float32] = field(repr=False)
    genes: int
    measured: int
    name: str

    @property
    def transfers(self) -> bool:
        """Return whether the data measure enough of the genes for the fitted confidence."""
        return self.measured >= PANEL * self.genes


def telling(genes: Sequence[str]) -> list[str]:
    """Return the current symbol of every gene; empty for those that nearly all cells express."""
    names = [current(gene) for gene in genes]
    return ["" if is_housekeeping(name) else name for name in names]


def knows(expert: Any, label: str) -> bool:
    """Return whether an expert has any data on a type."""
    if isinstance(expert, Markers):
        return expert.entry(label) is not None
    if isinstance(expert, Centroids):
        return label_key(label) in expert.types
    return bool(_atlas(expert).knows(label).how != "not at all")


def sources_of(expert: Any, labels: Iterable[str]) -> dict[str, str]:
    """Return the sources of an expert's data on types, as text."""
    found = {}
    for label in sorted(labels):
        if isinstance(expert, Markers):
            if (entry := expert.entry(label)) is not None:
                near = f" of {entry}" if label_key(entry) != label_key(label) else ""
                found[label] = f"the markers{near} ({expert.settings['markers']})"
        elif not isinstance(expert, Centroids):
            how, through = _atlas(expert).knows(label)
            some = ", ".join(through[:3]) + (f" and {len(through) - 3} more" * (len(through) > 3))
            words = {"source": "", "relative": "the relatives ", "markers only": "the markers of "}
            if how in words:
                found[label] = f"{words[how]}{some}"
    return found


def tissue_candidates(expert: Any, tissues: Sequence[str]) -> tuple[list[str], str]:
    """Return the types an expert knows in some tissues, and those found in every tissue.

    Without a tissue, all types it knows.
    """
    if isinstance(expert, Markers):
        return sorted(expert.weights), "all that the table of markers knows"
    if isinstance(expert, Centroids):
        return sorted(expert.types), "all that the puzzles show"
    atlas = _atlas(expert)
    wanted = {system(tissue) for tissue in tissues} - {None}
    columns = [c for source in atlas.sources if source.is_table for c in source.columns]
    there = {c.key for c in columns if system(c.tissue) in wanted}
    names = {c.key: (term_label(c.term) if c.term else None) or c.label for c in columns}
    if not wanted or not there:
        where = f"nothing is known of {', '.join(tissues)}" if tissues else "no tissue is named"
        return sorted(set(names.values())), f"all that the atlas knows, for {where}"
    found = {names[key] for key in there} | set(IN_BLOOD)
    if wanted == {"blood"}:
        return sorted(found), f"those of {', '.join(tissues)}"
    found |= set(IN_TISSUES)
    return sorted(found), f"those of {', '.join(tissues)} and what is found everywhere"


def know(
    expert: Any,
    candidates: Sequence[str],
    symbols: Sequence[str],
    k: int,
    *,
    tissue: str | None = None,
    others: bool = True,
) -> Knowledge:
    """Return the weights of an expert.

    Parameters
    ----------
    expert
        `markers`, `centroids` or the atlas.
    candidates
        The types on offer.
    symbols
        The G genes of the data.
    k
        Length of the lists.
    tissue
        Tissue of the cells, if there is only one.
    others
        Add the types that the expert knows besides the candidates.

    Raises
    ------
    InputError
        When none of its genes is measured.
    """
    if isinstance(expert, Markers | Centroids):
        genes, labels, table, known = _of_table(expert, candidates, others)
    else:
        genes, labels, table, known = _of_atlas(expert, candidates, tissue, others)
    place = {symbol: i for i, symbol in enumerate(symbols)}
    at = np.array([place.get(gene, -1) for gene in genes], dtype=np.intp)
    measured = at >= 0
    weights = np.zeros((len(symbols), len(labels)))
    weights[at[measured]] = table[measured]
    if not measured.any():
        raise InputError(
            f"0 of {len(symbols):,} genes are known to {expert.name} (the data have "
            f"{', '.join(map(repr, symbols[:3]))}, ...); expected symbols of human genes such as "
            "CD3D: put them into var_names or var['feature_name']"
        )
    own = places_of(expert, symbols, k)
    return Knowledge(labels, weights, known, own, len(genes), int(measured.sum()), expert.name)


def places_of(expert: Any, symbols: Sequence[str], k: int) -> npt.NDArray[np.float32]:
    """Return the weight of a gene at each rank of a list, shape (k, G)."""
    places = np.ones((k, len(symbols)), dtype=np.float32)
    if isinstance(expert, Markers):
        # A marker at the top of the list has twice the weight of one at its end.
        known = {current(gene) for weights in expert.weights.values() for gene in weights}
        at = [i for i, symbol in enumerate(symbols) if symbol in known]
        places[:, at] = 2.0 - np.arange(k)[:, None] / k
    elif not isinstance(expert, Centroids):
        atlas = _atlas(expert)
        place = {gene: g for g, gene in enumerate(atlas.genes)}
        at = [i for i, symbol in enumerate(symbols) if symbol in place]
        places[:, at] = atlas.places(k)[:, [place[symbols[i]] for i in at]]
    return places


def _of_table(
    expert: Markers | Centroids, candidates: Sequence[str], others: bool
) -> tuple[list[str], list[str], Floats, npt.NDArray[np.bool_]]:
    """Return genes, types, weights (genes x types), and which types are known."""
    if isinstance(expert, Markers):
        table, every = _of_markers(expert), list(expert.weights)
        offered = [expert.entry(label) for label in candidates]
    else:
        table, every = _of_centroids(expert), list(expert.types)
        keys = [label_key(label) for label in candidates]
        offered = [key if key in expert.types else None for key in keys]
    rest = [kind for kind in every if others and kind not in offered]
    entries = [*offered, *rest]
    genes = sorted({current(gene) for weights in table.values() for gene in weights})
    place = {gene: i for i, gene in enumerate(genes)}
    weights = np.zeros((len(genes), len(entries)))
    for j, entry in enumerate(entries):
        for gene, weight in table.get(entry, {}).items() if entry is not None else ():
            weights[place[current(gene)], j] = weight
    known = np.array([entry is not None for entry in entries], dtype=bool)
    return genes, [*candidates, *rest], weights, known


def _of_atlas(
    expert: Any, candidates: Sequence[str], tissue: str | None, others: bool
) -> tuple[list[str], list[str], Floats, npt.NDArray[np.bool_]]:
    atlas = _atlas(expert)
    terms = {term_id(label) or label_key(label) for label in candidates}
    rest = [term_label(key) or key for key in atlas.keys if others and key not in terms]
    labels = [*candidates, *rest]
    rows = atlas.rows(labels, tissue=tissue).astype(np.float64)
    known = np.array([atlas.knows(label).how != "not at all" for label in labels], dtype=bool)
    return list(atlas.genes), labels, rows.T, known


def _atlas(expert: Any) -> Atlas:
    """Return the atlas of an expert.

    Raises
    ------
    UseError
        When it has none, so that it cannot rate cells by their genes.
    """
    found = getattr(expert, "atlas", None)
    if not isinstance(found, Atlas):
        raise UseError(f"{expert.name} cannot annotate: it does not rate cells by their genes")
    return found


def _of_markers(expert: Markers) -> dict[str, dict[str, float]]:
    # Long marker lists are hit more often by chance.
    return {
        kind: {g: w / math.sqrt(1 + math.log(len(genes))) for g, w in genes.items()}
        for kind, genes in expert.weights.items()
        if genes
    }


def _of_centroids(expert: Centroids) -> dict[str, dict[str, float]]:
    names = list(expert.genes)
    return {
        kind: dict(zip(names, expert.model.weights[:, j].tolist(), strict=True))
        for kind, j in expert.types.items()
    }


@dataclass(frozen=True)
class Evidence:
    """Evidence for L types in K clusters.

    Attributes
    ----------
    scores
        Log-evidence: pooled evidence and votes together, shape (K, L).
    pooled
        Sum over genes of (share of cells that list it, minus that of cells of all kinds) times its
        weight, shape (K, L).
    votes
        Share of the cells' votes, shape (K, L); a cell votes for the type it fits best.
    listed, common
        Share of cells that list a gene, shape (K, G), and what that is compared with, shape (G,).
    base, weights
        Rating that a list is compared with, shape (L,), and weights scaled over types, (G, L).
    """

    scores: Floats
    pooled: Floats = field(repr=False)
    votes: Floats = field(repr=False)
    listed: Floats = field(repr=False)
    common: Floats = field(repr=False)
    base: Floats = field(repr=False)
    weights: Floats = field(repr=False)

    def apart(self, k: int) -> Floats:
        """Return the share of cells of a cluster that list a gene, minus the usual one, (G,)."""
        return np.asarray(self.listed[k] - self.common)

    def speaks(self, offered: int) -> npt.NDArray[np.bool_]:
        """Return in which clusters genes speak for any candidate, not only against others, (K,)."""
        positive = np.maximum(self.weights[:, :offered], 0.0)
        each = (np.maximum(self.apart(k), 0.0) @ positive for k in range(len(self.listed)))
        spoken = np.array(list(each))
        pooled = self.pooled[:, :offered]
        return np.asarray(((pooled > 0) & (spoken >= SPOKEN * pooled)).any(axis=1))


def weigh(
    listed: Floats,
    everyone: Floats,
    voters: npt.NDArray[np.int32],
    owners: npt.NDArray[np.intp],
    knowledge: Knowledge,
    offered: int,
) -> Evidence:
    """Compare every cluster with what all cells have in common, and let its cells vote.

    A single cluster has nothing to be compared with; only its own level counts.

    Parameters
    ----------
    listed, everyone, voters, owners
        As :class:`cello1.annotate.data.Counted` has them.
    knowledge
        The weights of the genes.
    offered
        Number of candidates; they are the first types.
    """
    weights = np.where(knowledge.known, knowledge.weights, 0.0)
    cells = listed_by(voters, knowledge.places)
    rated = Rated(
        listed @ weights, everyone @ weights, np.asarray(cells @ weights.astype(np.float32)), owners
    )
    found = combine(rated, knowledge.known, kinds_of(knowledge.labels, offered), offered)
    common = everyone if found.counts is None else cells.T @ found.counts
    common = (1.0 - _level(len(listed))) * common
    weights *= found.even  # a copy; another would be as large
    return Evidence(
        found.scores, found.pooled, found.votes, listed, common, common @ weights, weights
    )


@dataclass(frozen=True)
class Rated:
    """Ratings of L types.

    Attributes
    ----------
    own, everyone
        Mean rating of the cells of each cluster, shape (K, L), and over all clusters, shape (L,).
    cells, owners
        Ratings of the cells that vote, shape (V, L), and the cluster of each, shape (V,).
    """

    own: Floats
    everyone: Floats
    cells: npt.NDArray[np.float32] = field(repr=False)
    owners: npt.NDArray[np.intp] = field(repr=False)


@dataclass(frozen=True)
class Combined:
    """Pooled evidence and votes together.

    Attributes
    ----------
    scores, pooled, votes
        As :class:`Evidence` has them, shape (K, L).
    even
        Factor by which the ratings of each type are scaled, shape (L,).
    counts
        How much each cell that votes counts in what all cells have in common, shape (V,), with sum
        1; None where clusters count instead.
    """

    scores: Floats
    pooled: Floats
    votes: Floats
    even: Floats
    counts: Floats | None


def combine(
    rated: Rated, known: npt.NDArray[np.bool_], kinds: npt.NDArray[np.intp], offered: int
) -> Combined:
    """Combine the pooled evidence of clusters with the votes of their cells.

    Clusters are compared with what all cells have in common. Of a data set of mostly one kind of
    cells, or of clusters that mix kinds, the mean of all would look like that kind, and hide it. So
    the cells vote twice: after the first vote, which compares them with the mean of all clusters,
    every broad type counts alike.

    Parameters
    ----------
    rated
        Ratings of all types.
    known
        Which types can be rated, shape (L,).
    kinds
        Broad types (:func:`cello1.annotate.levels.kinds_of`), shape (L,).
    offered
        Number of candidates; they are the first types.
    """
    level = _level(len(rated.own))
    # Types known only by relatives have small weights, so that no cell would vote for them.
    spread = _spread(rated.cells)
    usual = np.median(spread[:offered][spread[:offered] > 0]) if spread[:offered].any() else 1.0
    even = np.where(spread > 0, (np.maximum(spread, usual / 10) / usual) ** -EVEN, 1.0)

    def votes(common: Floats) -> Iterator[tuple[slice, Floats]]:
        handicap = np.where(known, (1.0 - level) * common * even, np.inf)
        handicap[offered:] += UNASKED
        for some in (slice(i, i + BLOCK) for i in range(0, len(rated.owners), BLOCK)):
            yield some, softmax((rated.cells[some] * even - handicap) / TIE, axis=1)

    broad = np.eye(kinds.max() + 1)[kinds] * (kinds >= 0)[:, None]
    of_kind = np.concatenate([given @ broad for _, given in votes(rated.everyone)])
    # A cell counts for one kind: rests of its vote would make each kind look like the others.
    of_kind *= of_kind == of_kind.max(axis=1, keepdims=True)
    number = of_kind.sum(axis=0)
    usable = number > 0
    counts, common = None, rated.everyone
    if level < 1 and usable.any():
        # Kinds of very few cells count for less, as small clusters do.
        weight = number[usable] / (number[usable] + FEW)
        counts = (of_kind[:, usable] / number[usable]) @ (weight / weight.sum())
        # At once, all ratings would be copied as double precision.
        common = np.zeros_like(rated.everyone)
        for i in range(0, len(counts), BLOCK):
            common += counts[i : i + BLOCK] @ rated.cells[i : i + BLOCK]
    pooled = (rated.own - (1.0 - level) * common) * even
    given = np.zeros_like(pooled)
    for some, share in votes(common):
        np.add.at(given, rated.owners[some], share)
    total = given.sum(axis=1, keepdims=True)
    scores = pooled + VOTE * np.log((given + DOUBT / given.shape[1]) / (total + DOUBT))
    return Combined(scores, pooled, given / np.maximum(total, 1e-12), even, counts)


def _spread(cells: npt.NDArray[np.float32]) -> Floats:
    """Return the standard deviation of ratings, shape (L,), without a copy of them."""
    mean, square = cells.mean(axis=0, dtype=np.float64), np.zeros(cells.shape[1])
    for i in range(0, len(cells), BLOCK):
        square += ((cells[i : i + BLOCK] - mean) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(square / max(len(cells), 1)))


def _level(clusters: int) -> float:
    """Return the weight of a cluster's own level beside its difference from the others."""
    return 1.0 if clusters == 1 else OWN_LEVEL


def listed_by(lists: npt.NDArray[np.int32], places: npt.NDArray[np.float32]) -> csr_matrix:
    """Return the weights of the genes of lists by rank, shape (lists, G); a list ends at -1."""
    there = lists >= 0
    at = np.broadcast_to(np.arange(lists.shape[1]), lists.shape)[there]
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    shape = (len(lists), places.shape[1])
    return csr_matrix((places[at, lists[there]], lists[there], indptr), shape)
