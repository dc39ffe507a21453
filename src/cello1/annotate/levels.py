"""Choose the level of a label: a candidate, or a common ancestor where the evidence is too weak.

Types are terms of the Cell Ontology. Where the evidence cannot separate the subtypes of a type,
their common ancestor is the answer, with the sum of their probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from cello1.annotate.candidates import NONE, UNKNOWN
from cello1.puzzles.puzzle import label_key
from cello1.scoring.ontology import LINEAGES, ancestors, distance, lineage, term_id, term_label
from cello1.scoring.ontology import labels as all_labels
from cello1.solvers.base import Floats

# Broad types; a type belongs to the first one above it: what secretes hormones is endocrine before
# it is a neuron, and anything is a progenitor only if it is nothing else.
BROAD = (
    "CL:0000084",  # T cell
    "CL:0000945",  # lymphocyte of B lineage
    "CL:0001065",  # innate lymphoid cell
    "CL:0000576",  # monocyte
    "CL:0000235",  # macrophage
    "CL:0000451",  # dendritic cell
    "CL:0000094",  # granulocyte
    "CL:0000097",  # mast cell
    "CL:0000764",  # erythroid lineage cell
    "CL:0000233",  # platelet
    "CL:0000556",  # megakaryocyte
    "CL:0008001",  # hematopoietic precursor cell
    "CL:0000738",  # leukocyte
    "CL:0000115",  # endothelial cell
    "CL:0000057",  # fibroblast
    "CL:0000669",  # pericyte
    "CL:0000187",  # muscle cell
    "CL:0000136",  # adipocyte
    "CL:0000077",  # mesothelial cell
    "CL:0000586",  # germ cell
    "CL:0000163",  # endocrine cell
    "CL:0000540",  # neuron
    "CL:0000125",  # glial cell
    "CL:0002320",  # connective tissue cell
    "CL:0000066",  # epithelial cell
    "CL:0011026",  # progenitor cell
)
# Share of a close relative's probability that goes to a candidate: below a half, so that such a
# label never has a high confidence.
RELATIVE = 0.45
# Terms too general to be an answer, such as "cell".
_TOP = frozenset(("CL:0000000", "CL:0000003", "CL:0000255", "CL:0000548"))
# Broad types of what the ontology puts under none of them, only under these.
_ROOTS = {
    "CL:0000036": "CL:0000066",  # epithelial fate stem cell, such as basal cells: epithelial cell
    "CL:0000351": "CL:0000066",  # trophoblast cell: epithelial cell
    "CL:0000064": "CL:0000066",  # ciliated cell: epithelial cell
    "CL:0005026": "CL:0000066",  # hepatoblast: epithelial cell
    "CL:0000039": "CL:0000586",  # germ line cell: germ cell
}
# What is a piece of another type, though the ontology does not call it a subtype: RNA tells a
# platelet from a megakaryocyte by its amount at most, and data sets use one word or the other.
_PIECES = {"CL:0000233": "CL:0000556"}


@dataclass(frozen=True)
class Level:
    """The answer for one cluster.

    Attributes
    ----------
    label, confidence
        The label, and its probability.
    coarse, coarse_confidence
        The broad type, and its probability.
    fine, fine_confidence
        The candidate that fits best, and its probability.
    runner_up, runner_up_probability
        The second-best candidate, and its probability.
    level
        ``type`` (a candidate), ``ancestor`` (of several candidates), ``none`` or ``unknown``.
    """

    label: str
    confidence: float
    coarse: str
    coarse_confidence: float
    fine: str
    fine_confidence: float
    runner_up: str
    runner_up_probability: float
    level: str


class Tree:
    """The types on offer and those that may be present instead, in the Cell Ontology.

    Parameters
    ----------
    labels
        All types; the first `offered` of them are the candidates.
    offered
        Their number, M.
    """

    def __init__(self, labels: Sequence[str], offered: int) -> None:
        self.labels, self.offered = list(labels), offered
        self.terms = [term_id(label) for label in labels]
        self.above = [_above(term) for term in self.terms]
        self.broad = [broad_type(label) for label in labels]
        self.share = self._shares()
        # Share of a type that counts for no single candidate, only for their broad type.
        self.left = 1.0 - self.share.sum(axis=1)

    def _shares(self) -> Floats:
        """Return the share of each type's probability that goes to each candidate, shape (L, M).

        A subtype of a candidate counts for it. An ancestor of several candidates counts for them
        equally. A close relative, of the same broad type, counts in part for the candidates of
        that type: the candidate may mean it, but not with certainty. Where none is of that type,
        it counts as much for those of the same lineage. Any other type counts for none.
        """
        lineages = [None if term is None else lineage(term) for term in self.terms]
        share = np.zeros((len(self.labels), self.offered))
        share[: self.offered] = np.eye(self.offered)
        for h in range(self.offered, len(self.labels)):
            term = self.terms[h]
            if term is None:
                continue
            over = [c for c in range(self.offered) if self.terms[c] in self.above[h]]
            if over:  # the most specific of them
                deepest = max(over, key=lambda c: len(self.above[c]))
                share[h, deepest] = 1.0
                continue
            under = [c for c in range(self.offered) if term in self.above[c]]
            if under and term not in _TOP:
                share[h, under] = 1.0 / len(under)
                continue
            kin = [c for c in range(self.offered) if self.broad[c] == self.broad[h]]
            if not kin and lineages[h] is not None:
                kin = [c for c in range(self.offered) if lineages[c] == lineages[h]]
            share[h, kin] = RELATIVE / max(len(kin), 1)
        return share

    def prior(self, other: float) -> Floats:
        """Return the logarithm of the prior of every type, up to a constant, shape (L,).

        Candidates have a prior of 1, other types one of `other`. Those that count for no candidate
        share it with their broad type: ten sorts of smooth muscle must not have ten times the say
        of the one sort of fibroblast on offer. They differ, too, so it is divided by the square
        root of their number.
        """
        found = np.zeros(len(self.labels))
        if other <= 0:
            found[self.offered :] = -np.inf
            return found
        found[self.offered :] = np.log(other)
        strange = np.flatnonzero(~self.share.any(axis=1))
        number = Counter(self.broad[h] for h in strange)
        found[strange] -= 0.5 * np.log([number[self.broad[h]] for h in strange])
        return found

    def settle(
        self, p: Floats, least: float, *, chosen: int | None = None, allowed: bool = True
    ) -> Level:
        """Choose the level for one cluster.

        Parameters
        ----------
        p
            Probability of every type, shape (L,).
        least
            The lowest probability that a label may have.
        chosen
            The assigned candidate, where labels are unique.
        allowed
            Whether any candidate fits better than chance.
        """
        m = self.offered
        fine = p @ self.share
        order = np.argsort(-fine, kind="stable")
        best = int(order[0]) if chosen is None else chosen
        second = int(order[1] if order[0] == best else order[0])
        broad = self._broad(p, fine)
        coarse = self.broad[best] if chosen is not None else max(broad, key=lambda b: (broad[b], b))
        in_none = float(sum(
            p[h] for h in range(m, len(p))
            if not self.share[h].any() and self.broad[h] not in self.broad[:m]
        ))  # fmt: skip
        facts = (
            coarse, min(1.0, broad[coarse]), self.labels[best], float(fine[best]),
            self.labels[second], float(fine[second]),
        )  # fmt: skip
        if not allowed or in_none >= broad[coarse]:
            return Level(NONE, in_none if allowed else float(fine[best]), *facts, "none")
        inside = [j for j in order.tolist() if self.broad[j] == coarse]
        if chosen is None and inside and inside[0] != best:
            # The broad type is decided first: several close subtypes together outweigh one outlier.
            best = inside[0]
            second = next(j for j in order.tolist() if j != best)
            facts = (
                coarse, min(1.0, broad[coarse]), self.labels[best], float(fine[best]),
                self.labels[second], float(fine[second]),
            )  # fmt: skip
        if fine[best] >= least or (chosen is not None and least <= 0):
            return Level(self.labels[best], float(fine[best]), *facts, "type")
        for label, mass in self._wider(best, p, fine):
            if mass >= least:
                is_candidate = label_key(label) in {label_key(x) for x in self.labels[:m]}
                return Level(label, mass, *facts, "type" if is_candidate else "ancestor")
        return Level(UNKNOWN, float(fine[best]), *facts, "unknown")

    def _broad(self, p: Floats, fine: Floats) -> dict[str, float]:
        """Return the probability of every broad type among the candidates.

        Close relatives of the candidates count for it, although they are not on offer.
        """
        found: dict[str, float] = {}
        for j in range(self.offered):
            found[self.broad[j]] = found.get(self.broad[j], 0.0) + float(fine[j])
        for h in range(self.offered, len(p)):
            if self.broad[h] in found:
                found[self.broad[h]] += float(p[h] * self.left[h])
        return found

    def _wider(self, best: int, p: Floats, fine: Floats) -> list[tuple[str, float]]:
        """Return ancestors that a candidate shares with others, the nearest first."""
        term = self.terms[best]
        if term is None:
            return []
        found: dict[str, tuple[int, int, float]] = {}
        for node in self.above[best] - {term} - _TOP:
            if not _is_said(node):
                continue
            under = [j for j in range(self.offered) if node in self.above[j]]
            rest = [
                h for h in range(self.offered, len(p))
                if self.left[h] > 0 and node in self.above[h]
            ]  # fmt: skip
            if len(under) < 2 and not rest:
                continue
            mass = float(fine[under].sum() + p[rest] @ self.left[rest])
            found[node] = (len(under) + len(rest), distance(node, term) or 0, mass)
        order = sorted(found, key=lambda n: (found[n][0], found[n][1], n))
        return [(str(term_label(node)), min(1.0, found[node][2])) for node in order]


def broad_type(label: str) -> str:
    """Return the broad type of a label or term: one of `BROAD`, its lineage, or itself.

    A type that the ontology puts under none of them has that of most of its subtypes.
    """
    term = term_id(label)
    if term is None:
        return label
    return _broad_above(term) or _broad_below(term) or label


def _broad_above(term: str) -> str | None:
    over = {term, *ancestors(term)}
    found = next((root for root in BROAD if root in over), None)
    if found is None and (above := lineage(term)) is not None:
        return above
    found = found or next((broad for root, broad in _ROOTS.items() if root in over), None)
    return None if found is None else term_label(found)


@cache
def _broad_below(term: str) -> str | None:
    below = [_broad_above(other) for other in all_labels() if term in ancestors(other)]
    most, number = Counter(below).most_common(1)[0] if below else (None, 0)
    return most if 2 * number > len(below) else None


def kinds_of(labels: Sequence[str], offered: int) -> npt.NDArray[np.intp]:
    """Return the broad type of each type as a number, -1 where no candidate has it, shape (L,).

    The candidates are the first `offered` labels.
    """
    broad = [broad_type(label) for label in labels]
    names = sorted(set(broad[:offered]))
    return np.array([names.index(b) if b in names else -1 for b in broad], dtype=np.intp)


def _above(term: str | None) -> frozenset[str]:
    """Return a term, its ancestors, its broad type, and what it is a piece of."""
    if term is None:
        return frozenset()
    found = {term, *ancestors(term), *({_PIECES[term]} if term in _PIECES else ())}
    if (broad := term_id(broad_type(term))) is not None:
        found |= {broad, *ancestors(broad)}
    return frozenset(found)


def _is_said(term: str) -> bool:
    """Return whether a term is specific enough to be a label: "motile cell" is not."""
    return term in LINEAGES or any(root in ancestors(term) | {term} for root in BROAD)


def probabilities(scores: Floats, prior: Floats, temperature: float) -> Floats:
    """Return the probability of every type, rows summing to 1, shape (K, L).

    Parameters
    ----------
    scores
        Log-evidence, shape (K, L).
    prior
        Logarithm of the prior (:meth:`Tree.prior`), shape (L,).
    temperature
        Divisor of the evidence.
    """
    return np.asarray(softmax(scores / temperature + prior, axis=1))


def better_elsewhere(p: Floats, offered: int) -> dict[int, list[int]]:
    """Return the types that are not on offer but more probable than all others together.

    Parameters
    ----------
    p
        Probability of every type, shape (K, L).
    offered
        Number of candidates; they come first.

    Returns
    -------
    dict
        Type -> its clusters.
    """
    found: dict[int, list[int]] = {}
    for k, best in enumerate(p.argmax(axis=1).tolist()):
        if best >= offered and p[k, best] > 0.5:
            found.setdefault(best, []).append(k)
    return found


def better_than_chance(scores: Floats, offered: int) -> npt.NDArray[np.bool_]:
    """Return which clusters fit any candidate better than the average cell does, shape (K,)."""
    return np.asarray(scores[:, :offered].max(axis=1) > 0)
