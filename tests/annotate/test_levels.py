"""The level of the ontology that the evidence carries, and types that are not on offer."""

from __future__ import annotations

import numpy as np
import pytest

from cello1.annotate.candidates import close_names, read_candidates, understand
from cello1.annotate.levels import BROAD, Tree, broad_type, probabilities
from cello1.errors import InputError
from cello1.scoring.ontology import term_id, term_label

NAIVE = "naive thymus-derived CD4-positive, alpha-beta T cell"
MEMORY, CD8 = "CD4-positive, alpha-beta memory T cell", "CD8-positive, alpha-beta T cell"
NK, B, PLASMA = "natural killer cell", "B cell", "plasma cell"


def settle(chances, labels, offered=None, least=0.5, **options):
    p = np.array(chances, dtype=float)
    return Tree(labels, offered or len(labels)).settle(p / p.sum(), least, **options)


def test_a_sure_candidate_is_the_label():
    found = settle([8, 1, 1], [NAIVE, CD8, B])
    assert (found.label, found.level, found.fine) == (NAIVE, "type", NAIVE)
    assert found.confidence == pytest.approx(0.8)
    assert found.runner_up == CD8
    assert found.coarse == "T cell"
    assert found.coarse_confidence == pytest.approx(0.9)


def test_subtypes_that_cannot_be_told_apart_give_their_common_ancestor():
    found = settle([4, 4, 1, 1], [NAIVE, MEMORY, CD8, B])
    assert found.label == "CD4-positive, alpha-beta T cell"
    assert found.level == "ancestor"
    assert found.confidence == pytest.approx(0.8)
    assert found.fine == NAIVE
    found = settle([3, 3, 3, 1], [NAIVE, MEMORY, CD8, B], least=0.85)
    assert found.coarse == "T cell"
    assert found.confidence == pytest.approx(0.9)
    assert term_id(found.label) is not None


def test_a_wider_candidate_takes_what_its_subtypes_have():
    found = settle([3, 4, 3], ["T cell", CD8, B], least=0.6)
    assert (found.label, found.level) == ("T cell", "type")
    assert found.confidence == pytest.approx(0.7)


def test_what_no_level_carries_is_unknown():
    found = settle([1, 1, 1], [NAIVE, B, "fibroblast"], least=0.9)
    assert (found.label, found.level) == ("unknown", "unknown")


def test_a_type_that_is_not_on_offer_is_none_of_these():
    labels = [B, NK, "hepatocyte"]
    found = settle([1, 1, 8], labels, offered=2)
    assert (found.label, found.level) == ("none of these", "none")
    # A subtype of a candidate counts for it, a close relative for its broad type.
    assert settle([1, 1, 8], ["T cell", NK, CD8], offered=2).label == "T cell"
    near = settle([2, 1, 7], [B, NK, PLASMA], offered=2, least=0.5)
    assert near.coarse == broad_type(B)
    assert near.level in ("ancestor", "type")
    assert near.fine_confidence == pytest.approx(0.2 + 0.45 * 0.7)
    assert settle([0, 1, 9], [B, NK, PLASMA], offered=2, least=0.2).confidence < 0.5


def test_a_type_of_the_same_lineage_gives_an_unsure_sibling_or_an_ancestor():
    # Pericytes are no fibroblasts, but connective tissue as well.
    found = settle([1, 1, 8], ["fibroblast", "endothelial cell", "pericyte"], offered=2, least=0.2)
    assert found.label == "fibroblast"
    assert found.confidence < 0.5
    # Two candidates of the lineage are as likely, so one is surer of their ancestor than of them.
    labels = ["neutrophil", "mast cell", B, "hepatocyte", "plasmacytoid dendritic cell"]
    found = settle([1, 1, 1, 1, 9], labels, offered=4, least=0.4)
    assert found.label == "myeloid leukocyte"
    assert settle([1, 1, 1, 1, 9], labels, offered=4, least=0.2).confidence < 0.5


def test_nothing_better_than_chance_is_none_of_these():
    assert settle([8, 2], [B, NK], allowed=False).label == "none of these"


def test_probabilities_prefer_what_is_on_offer():
    tree = Tree([B, NK, "hepatocyte"], 2)
    p = probabilities(np.zeros((1, 3)), tree.prior(0.1), 1.0)
    np.testing.assert_allclose(p, [[1 / 2.1, 1 / 2.1, 0.1 / 2.1]])
    assert probabilities(np.zeros((1, 3)), tree.prior(0.0), 1.0)[0, 2] == 0


MUSCLES = [
    "smooth muscle cell", "enteric smooth muscle cell", "smooth muscle cell of prostate",
    "vascular associated smooth muscle cell",
]  # fmt: skip


def test_many_sorts_of_a_type_that_is_not_on_offer_do_not_outvote_a_candidate():
    scores = np.array([[2.0, 0.0, *[2.0] * len(MUSCLES)]])
    for others in (MUSCLES[:1], MUSCLES):
        labels = ["fibroblast", NK, *others]
        tree = Tree(labels, 2)
        p = probabilities(scores[:, : len(labels)], tree.prior(0.4), 1.0)
        assert tree.settle(p[0], 0.2).label == "fibroblast"
    # Where they fit much better, the cluster is none of these all the same.
    scores[0, 2:] += 3.0
    p = probabilities(scores, tree.prior(0.4), 1.0)
    assert tree.settle(p[0], 0.2).label == "none of these"


def test_sorts_of_a_candidate_keep_their_prior():
    tree = Tree(["T cell", "fibroblast", NAIVE, MEMORY, CD8, *MUSCLES], 2)
    prior = np.exp(tree.prior(0.1))
    np.testing.assert_allclose(prior[:5], [1, 1, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(prior[5:], 0.1 / 2)


def test_broad_types_are_terms_of_the_ontology():
    assert all(term_label(term) for term in BROAD)
    assert broad_type("pancreatic A cell") == broad_type("type B pancreatic cell")
    assert broad_type("my own type") == "my own type"


@pytest.mark.parametrize(
    ("label", "broad"),
    [
        ("basal cell", "epithelial cell"),
        ("respiratory basal cell", "epithelial cell"),
        ("extravillous trophoblast", "epithelial cell"),
        ("primordial germ cell", "germ cell"),
        ("kidney collecting duct cell", "epithelial cell"),  # as most of its subtypes
        ("salivary gland cell", "epithelial cell"),
        ("cell of skeletal muscle", "muscle cell"),
        ("mural cell", "pericyte"),
        ("ciliated cell", "epithelial cell"),  # though most of its subtypes are ependyma
        ("malignant cell", "malignant cell"),
        ("melanocyte", "melanocyte"),
    ],
)
def test_a_type_under_no_broad_type_has_that_of_its_kin(label, broad):
    assert broad_type(label) == broad


def test_a_type_under_no_broad_type_can_fall_back_on_that_of_its_kin():
    labels = ["cell of skeletal muscle", "cardiac muscle cell", NK, "smooth muscle cell"]
    found = settle([3, 2, 2, 3], labels, offered=3, least=0.6)
    assert (found.label, found.level) == ("muscle cell", "ancestor")
    assert found.confidence == pytest.approx(0.8)
    # And where the broad type is on offer, it counts for that.
    assert settle([1, 1, 8], ["epithelial cell", NK, "basal cell"], offered=2).confidence == 0.9


def test_a_basal_cell_counts_for_the_epithelium_on_offer():
    found = settle([1, 1, 8], ["basal cell of prostate epithelium", NK, "basal cell"], offered=2)
    assert found.fine == "basal cell of prostate epithelium"
    assert found.coarse == "epithelial cell"


@pytest.mark.parametrize(
    ("label", "broad"),
    [
        ("pancreatic D cell", "endocrine cell"),  # neurons as well, by the ontology
        ("chromaffin cell", "endocrine cell"),
        ("club cell", "epithelial cell"),  # progenitors as well
        ("hematopoietic stem cell", "hematopoietic precursor cell"),
        ("classical monocyte", "monocyte"),
        ("microglial cell", "macrophage"),
        ("ependymal cell", "glial cell"),
        ("mononuclear phagocyte", "leukocyte"),
        ("stromal cell", "connective tissue cell"),
    ],
)
def test_a_type_of_two_broad_types_belongs_to_what_biologists_call_it(label, broad):
    assert broad_type(label) == broad


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("NK", NK),
        ("NK cells", NK),
        ("CD14 Mono", "CD14-positive monocyte"),
        ("CD14+ Monocytes", "CD14-positive monocyte"),
        ("FCGR3A+ Monocytes", "CD14-low, CD16-positive monocyte"),
        ("CD16-positive monocyte", "CD14-low, CD16-positive monocyte"),
        ("cDC2", "CD1c-positive myeloid dendritic cell"),
        ("pDC", "plasmacytoid dendritic cell"),
        ("Treg", "regulatory T cell"),
        ("B naive", "naive B cell"),
        ("CD4 TCM", "central memory CD4-positive, alpha-beta T cell"),
        ("Naive CD4 T", NAIVE),
        ("alpha", "pancreatic A cell"),
        ("AT2", "pulmonary alveolar type 2 cell"),
        ("B cell", "B cell"),
        ("my own type", None),
    ],
)
def test_names_of_the_field_are_understood(name, label):
    found = understand(name)
    assert found == label
    if label is not None:
        assert term_id(label) is not None


def test_every_short_name_leads_to_the_ontology():
    from cello1.annotate.candidates import _short_names

    for name, label in _short_names().items():
        assert term_label(term_id(label) or "") == label, name


def test_close_names_are_sensible():
    assert close_names("NK proliferating") == [NK]
    assert close_names("natural kiler cell")[0] == NK
    with pytest.raises(InputError, match=r"'xyz' is not.*'natural kiler cell' is not.*did you"):
        read_candidates(["B cell", "xyz", "natural kiler cell"])


def test_two_names_of_one_type_are_one_candidate():
    found = read_candidates(["NK", "NK cells", "B cell"])
    assert found.labels == [NK, "B cell"]
    assert found.given == {NK: "NK"}


@pytest.mark.parametrize(
    ("offered", "strange"), [("megakaryocyte", "platelet"), ("platelet", "megakaryocyte")]
)
def test_a_platelet_counts_for_its_megakaryocyte_and_back(offered, strange):
    found = settle([1, 1, 8], [offered, NK, strange], offered=2)
    assert (found.label, found.level) == (offered, "type")
    both = settle([1, 8, 1], [offered, strange, NK])
    assert both.label == strange
