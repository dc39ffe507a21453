from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cello1.scoring.ontology import (
    LINEAGES,
    above,
    ancestors,
    distance,
    largest_unnested,
    suggestions,
    term_id,
    term_label,
)

LABELS = [
    "cell",
    "T cell",
    "regulatory T cell",
    "CD8-positive, alpha-beta T cell",
    "B cell",
    "naive B cell",
    "plasma cell",
    "monocyte",
    "classical monocyte",
    "dendritic cell",
    "natural killer cell",
    "epithelial cell of lung",
    "not a type",
    "B cells",
]
TERMS = [term_id(label) for label in LABELS]


@pytest.mark.parametrize(
    ("label", "term"),
    [
        ("T cell", "CL:0000084"),
        (" t CELL ", "CL:0000084"),
        ("T-lymphocyte", "CL:0000084"),
        ("B cells", "CL:0000236"),
        ("Treg", "CL:0000815"),
        ("red blood cell", "CL:0000232"),
        ("alveolus of lung epithelial cell", "CL:0000322"),
        ("activated nonsense", None),
        ("", None),
        ("s", None),
    ],
)
def test_a_label_a_synonym_or_a_plural_leads_to_its_current_term(label, term):
    assert term_id(label) == term


def test_a_term_leads_back_to_its_label():
    assert term_label("CL:0000815") == "regulatory T cell"
    assert term_label("CL:9999999") is None
    assert term_label("UBERON:0002048") is None


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        ("T cell", "regulatory T cell"),
        ("lymphocyte", "regulatory T cell"),
        ("B cell", "naive B cell"),
        ("monocyte", "classical monocyte"),
        ("cell", "neuron"),
    ],
)
def test_a_type_contains_its_subtypes_and_not_the_other_way_round(upper, lower):
    assert term_id(upper) in ancestors(term_id(lower))
    assert term_id(lower) not in ancestors(term_id(upper))
    assert above([term_id(lower), term_id(upper)]).tolist() == [[False, False], [True, False]]


def test_unrelated_and_unknown_types_are_not_nested():
    assert not above([term_id("T cell"), term_id("B cell"), None, None]).any()
    assert ancestors("CL:9999999") == frozenset()
    assert above([]).shape == (0, 0)


def test_two_names_of_one_type_are_nested_once():
    assert above([term_id("B cell"), term_id("B cells")]).tolist() == [
        [False, True],
        [False, False],
    ]


def test_the_order_of_real_types_is_transitive_and_has_no_cycle():
    order = above(TERMS)
    assert order.any()
    assert not (order & order.T).any()
    assert not np.diag(order).any()
    assert not (((order.astype(int) @ order.astype(int)) > 0) & ~order).any()


def test_the_nested_pairs_found_by_hand_are_nested(shared):
    with (shared / "data" / "profiles" / "ancestor_pairs.csv").open() as file:
        pairs = [(row["cell_type"], row["kept_ancestor"]) for row in csv.DictReader(file)]
    assert len(pairs) > 20
    for lower, upper in pairs:
        assert above([term_id(upper), term_id(lower)])[0, 1], (upper, lower)


def by_brute_force(order) -> int:
    """Try every subset of types, the largest first."""
    k = len(order)
    for size in range(k, 0, -1):
        for chosen in combinations(range(k), size):
            if not order[np.ix_(chosen, chosen)].any():
                return size
    return 0


@st.composite
def partial_orders(draw):
    k = draw(st.integers(0, 8))
    order = np.zeros((k, k), dtype=bool)
    for i, j in combinations(range(k), 2):
        order[i, j] = draw(st.booleans())
    for middle in range(k):
        order |= np.outer(order[:, middle], order[middle])
    shuffled = np.array(draw(st.permutations(range(k))), dtype=int)
    return order[np.ix_(shuffled, shuffled)]


@given(partial_orders())
def test_the_largest_unnested_set_is_that_of_brute_force(order):
    assert largest_unnested(order) == by_brute_force(order)


def test_the_largest_unnested_set_of_real_types():
    order = above(TERMS)
    assert largest_unnested(order) == by_brute_force(order)


def test_ids_and_spellings_lead_to_terms():
    assert term_id("CL:0000236") == term_id("cl:0000236") == "CL:0000236"
    assert term_id("CL:9999999") is None
    assert suggestions("natural kiler cell") == ["natural killer cell", "pro-NK cell"]
    assert suggestions("xyzzy") == []


def test_distances_are_those_of_the_ontology_package():
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    names = ["B cell", "natural killer cell", "classical monocyte", "hepatocyte", "platelet"]
    terms = [term_id(name) for name in names]
    parser = OntologyParser()
    for a, b in combinations(terms, 2):
        assert distance(a, b) == distance(b, a) == parser.get_distance_between_terms(a, b)
    assert distance(terms[0], terms[0]) == 0
    assert distance("CL:0000624", "CL:0000625") == 2
    assert distance("CL:0000236", "CL:9999999") is None


@pytest.mark.parametrize(
    ("label", "truth", "expected"),
    [
        ("B cells", "CL:0000236", "exact"),
        ("monocyte", "classical monocyte", "ancestor"),
        ("classical monocyte", "monocyte", "descendant"),
        ("B cell", "natural killer cell", "same lineage"),
        ("leukocyte", "classical monocyte", "other"),  # an ancestor, but many steps up
        ("B cell", "hepatocyte", "other"),
        ("none of these", "B cell", "not in the ontology"),
    ],
)
def test_relations_are_told_apart(label, truth, expected, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from relations import relation

    assert relation(label, truth) == expected


def test_roots_of_lineages_are_what_they_are_called():
    assert {root: term_label(root) for root in LINEAGES} == LINEAGES
