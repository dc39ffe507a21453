import pytest

from cello1.citations.names import Names, find_cells, plain
from cello1.puzzles.puzzle import Puzzle


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("Cell 3 is", [(3,)]),
        ("cells 3 and 5", [(3, 5)]),
        ("Cells 2-4, all", [(2, 3, 4)]),
        ("Cells 1, 2 and 4", [(1, 2, 4)]),
        ("Cell 1 or Cell 3", [(1, 3)]),
        ("Cell 1, Cell 3", [(1,), (3,)]),
        ("Cell 2: 5 genes", [(2,)]),
        ("cell #4", [(4,)]),
        ("the second cell", [(2,)]),
        ("the second cell type", []),
        ("Cell 99", []),
        ("a T cell 2 of them", [(2,)]),
        ("CD4+ T cells", []),
    ],
)
def test_cells_are_found_by_number_list_and_range(text, cells):
    assert [mention.cells for mention in find_cells(text, 6)] == cells


LUNG = (
    "classical monocyte",
    "non-classical monocyte",
    "endothelial cell of lymphatic vessel",
    "pulmonary artery endothelial cell",
    "fibroblast of lung",
    "CD4-positive, alpha-beta T cell",
    "CD8-positive, alpha-beta T cell",
    "natural killer cell",
    "type B pancreatic cell",
)


@pytest.fixture(scope="module")
def names():
    return Names(Puzzle("Lung.", [["A"]] * len(LUNG), LUNG))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("CD4+ T cells", 5),
        ("a CD8 T cell", 6),
        ("CD8-positive T-cell", 6),
        ("T cell", None),
        ("monocyte", None),
        ("nonclassical monocytes", 1),
        ("a non-classical one", None),
        ("lung fibroblasts", 4),
        ("fibroblast-like", None),
        ("lymphatic endothelium", 2),
        ("endothelial cell", None),
        ("NK cells", 7),
        ("\u03b2 cell", 8),
        ("**natural  killer cell**", 7),
        ("CD14+ monocyte", 0),
    ],
)
def test_types_are_found_by_their_usual_names_when_only_one_can_be_meant(names, text, label):
    assert [mention.label for mention in names.find(plain(text))] == ([label] * (label is not None))


def test_a_gene_on_the_lists_is_never_the_name_of_a_type():
    puzzle = Puzzle("x", [["NK", "A"], ["B"]], ["natural killer cell", "B cell"])
    assert Names(puzzle).find("NK is high") == []
