"""The Cell Ontology: the term of a label, and whether one type contains another.

A puzzle with `T cell` and `regulatory T cell` on offer is ambiguous, since both are right for
one of its cells. The ontology ships inside the package cellxgene-ontology-guide; nothing is
downloaded.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

_ROOT = "CL:0000000"  # cell
BoolMatrix = npt.NDArray[np.bool_]


@cache
def _parser() -> Any:
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    return OntologyParser()


@cache
def _terms_by_name() -> dict[str, str]:
    """Lower-cased label or synonym -> term id; labels win over synonyms of other terms."""
    parser = _parser()
    labels = {
        label: term
        for label, term in parser.get_term_label_to_id_map("CL").items()
        if label and not parser.is_term_deprecated(term)
    }
    names: dict[str, str] = {}
    for _, term in sorted(labels.items()):
        for synonym in parser.get_term_synonyms(term):
            names.setdefault(synonym.casefold(), term)
    names.update({label.casefold(): term for label, term in sorted(labels.items())})
    return names


def term_id(label: str) -> str | None:
    """Return the Cell Ontology id of a label, synonym or id, or None when it is not known.

    Case, outer blanks and a plural s do not count: `B cells` is `CL:0000236`. A deprecated id is
    replaced by its successor in the ontology.
    """
    name = label.strip().casefold()
    if name.startswith("cl:"):
        return _current(name.upper())
    names = _terms_by_name()
    return names.get(name) or names.get(name.removesuffix("s"))


def term_label(term: str) -> str | None:
    """Return the label of a term id, or None when the ontology does not have it."""
    parser = _parser()
    return str(parser.get_term_label(term)) if parser.is_valid_term_id(term, "CL") else None


def synonyms(label: str) -> list[str]:
    """Return the synonyms of a label; none if it is unknown."""
    term = term_id(label)
    return [] if term is None else [str(name) for name in _parser().get_term_synonyms(term)]


@cache
def labels() -> dict[str, str]:
    """Return the label of every current term, by its id."""
    parser = _parser()
    found = parser.get_term_label_to_id_map("CL").items()
    return {t: x for x, t in sorted(found) if x and not parser.is_term_deprecated(t)}


def _current(term: str) -> str | None:
    parser = _parser()
    if not parser.is_valid_term_id(term, "CL"):
        return None
    return parser.get_term_replacement(term) if parser.is_term_deprecated(term) else term


@cache
def ancestors(term: str) -> frozenset[str]:
    """Return all ancestors of a term, without itself; empty if it is unknown."""
    parser = _parser()
    if not parser.is_valid_term_id(term, "CL"):
        return frozenset()
    return frozenset(parser.get_term_ancestors(term)) - {term}


def above_of(key: str) -> frozenset[str]:
    """Return the ancestors of a key; none if it is not a term."""
    return ancestors(key) if key.startswith("CL:") else frozenset()


@cache
def _below() -> dict[str, int]:
    """Term -> number of current terms below it, itself among them."""
    parser = _parser()
    number: dict[str, int] = {}
    for term in parser.get_term_label_to_id_map("CL").values():
        if not parser.is_term_deprecated(term):
            for upper in (term, *ancestors(term)):
                number[upper] = number.get(upper, 0) + 1
    return number


def information(term: str) -> float:
    """Return how specific a term is, from 0 (`cell`) to 1 (a type without subtypes).

    1 - log(number of types below it, itself included) / log(number of types).
    """
    number = _below()
    return 1.0 - math.log(number.get(term, 1)) / math.log(number[_ROOT])


def likeness(a: Sequence[str], b: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the similarity of types by the ontology, within [0, 1], shape (len(a), len(b)).

    Lin's measure (1998): twice the information of the most specific common ancestor (or of the
    terms themselves), over the sum of both. Equal keys are 1; a key that is not a term is
    similar to nothing else.
    """
    places: dict[str, int] = {}
    sets = [
        [places.setdefault(t, len(places)) for t in sorted({key, *above_of(key)})]
        for key in (*a, *b)
    ]
    says = np.array([information(t) if t.startswith("CL:") else 1.0 for t in places])
    inside = np.zeros((len(sets), len(places)), dtype=np.float32)
    for row, members in zip(inside, sets, strict=True):
        row[members] = says[members]
    own = np.array([says[places[key]] for key in (*a, *b)])
    left, right = inside[: len(a)], inside[len(a) :]
    alike = np.zeros((len(a), len(b)))
    for i, row in enumerate(left):
        shared = np.minimum(right, row).max(axis=1, initial=0)
        alike[i] = 2 * shared / np.maximum(own[i] + own[len(a) :], 1e-9)
        alike[i, [j for j, key in enumerate(b) if key == a[i]]] = 1.0
    return alike


def suggestions(label: str, n: int = 2) -> list[str]:
    """Return up to `n` names of the ontology that are spelled much like one that is not there."""
    close = difflib.get_close_matches(label.casefold(), _terms_by_name(), n, 0.75)
    names = [term_label(_terms_by_name()[name]) for name in close]
    return [name for name in dict.fromkeys(names) if name is not None]


# Roots of lineages, more specific ones first: a term belongs to the first above it.
LINEAGES = {
    "CL:0000542": "lymphocyte",
    "CL:0000766": "myeloid leukocyte",
    "CL:0000764": "erythroid lineage cell",
    "CL:0000763": "myeloid cell",
    "CL:0000988": "hematopoietic cell",
    "CL:0002319": "neural cell",
    "CL:0000115": "endothelial cell",
    "CL:0000066": "epithelial cell",
    "CL:0000187": "muscle cell",
    "CL:0002320": "connective tissue cell",
    "CL:0000586": "germ cell",
}


# Dendritic cells stand beside monocytes and macrophages, as mononuclear phagocytes; the ontology
# calls only some of them myeloid leukocytes as well (Langerhans cells, but not their parent).
_PHAGOCYTE, _MYELOID = "CL:0000113", "CL:0000766"


def lineage(term: str) -> str | None:
    """Return the lineage of a term, or None when it is under none of `LINEAGES`."""
    over = {term, *ancestors(term)}
    if _PHAGOCYTE in over:
        over.add(_MYELOID)
    return next((name for root, name in LINEAGES.items() if root in over), None)


def distance(a: str, b: str) -> int | None:
    """Return the number of is-a steps between two terms via their nearest common ancestor.

    None if they share none, or one is unknown.
    """
    up, down = steps_up(a), steps_up(b)
    return min((up[t] + down[t] for t in up.keys() & down.keys()), default=None)


@cache
def steps_up(term: str) -> dict[str, int]:
    """Return every ancestor of a term and itself, with the fewest is-a steps to it."""
    parser = _parser()
    if not parser.is_valid_term_id(term, "CL"):
        return {}
    return {term: 0, **parser.get_term_ancestors_with_distances(term)}


def above(terms: Sequence[str | None]) -> BoolMatrix:
    """Return which of K terms stands above which, shape (K, K), directed and transitive.

    ``[i, j]`` is true when term i is an ancestor of term j; of equal terms the earlier one stands
    above the later, so that two names of one type are nested as well. Unknown terms (None) stand
    above nothing.
    """
    return np.array(
        [
            [
                a is not None and b is not None and (a in ancestors(b) or (a == b and i < j))
                for j, b in enumerate(terms)
            ]
            for i, a in enumerate(terms)
        ],
        dtype=bool,
    ).reshape(len(terms), len(terms))


def largest_unnested(order: BoolMatrix) -> int:
    """Return how many of K types can share a puzzle if no two may be nested.

    `order` is (part of) a result of :func:`above`. This is a largest antichain of a partial
    order: by Dilworth's theorem K minus a maximum matching of the pairs (upper, lower).
    """
    if not order.any():
        return len(order)
    matched = maximum_bipartite_matching(csr_array(order.astype(np.int8)))
    return int(len(order) - (matched >= 0).sum())
