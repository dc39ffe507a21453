import pandas as pd
import pytest

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.ontology import term_id
from cello1.solvers.assign import assign_jointly
from cello1.solvers.classical.markers import Markers, read_markers


def test_every_type_of_our_own_table_is_a_term_of_the_cell_ontology():
    types = Markers.from_file().weights
    assert len(types) > 90
    assert [t for t in types if term_id(t) is None] == []


def test_panglaodb_layout(shared):
    table = read_markers(shared / "data" / "markers" / "PanglaoDB_markers.tsv")
    assert len(table) > 170
    assert "MS4A1" in table["B cells"]


def test_sctype_layout_has_negative_markers(shared):
    table = read_markers(shared / "data" / "markers" / "ScTypeDB_full.xlsx")
    assert table["Naive CD8+ T cells"]["CD8A"] == 1.0
    assert any(-1.0 in genes.values() for genes in table.values())


def test_plain_layout_with_weights(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("cell_type,gene,weight\nB cell,MS4A1,2\nB cell,CD3D,-1\n")
    assert read_markers(path) == {"B cell": {"MS4A1": 2.0, "CD3D": -1.0}}


def test_another_layout_is_refused_with_what_was_expected(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"a": [1]}).to_csv(path)
    with pytest.raises(InputError, match="expected cell_type and gene"):
        read_markers(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_markers(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("label", "entry"),
    [
        ("B cell", "B cells"),  # plural
        ("B-lymphocyte", "B cells"),  # synonym
        ("CD8-positive, alpha-beta T cell", "T cells"),  # nearest ancestor
        ("regulatory T cell", "T regulatory cells"),  # synonym or name, not the ancestor
        ("no such type", None),
    ],
)
def test_a_type_finds_its_entry(shared, label, entry):
    markers = Markers.from_file(shared / "data" / "markers" / "PanglaoDB_markers.tsv")
    found = markers.entry(label)
    assert found == entry or (label == "regulatory T cell" and found in (entry, "T cells"))


def test_markers_in_the_list_decide():
    markers = Markers({"B cell": {"MS4A1": 1, "CD79A": 1}, "T cell": {"CD3D": 1, "CD3E": 1}})
    puzzle = Puzzle("", [["RPL1", "CD3D"], ["MS4A1", "RPL2"]], ["B cell", "T cell"])
    assert assign_jointly(markers.scores(puzzle)).tolist() == [1, 0]


def test_negative_markers_speak_against():
    markers = Markers({"B cell": {"MS4A1": 1, "CD3D": -1}, "T cell": {"CD3E": 1}})
    puzzle = Puzzle("", [["MS4A1", "CD3D"], ["MS4A1", "RPL2"]], ["B cell", "T cell"])
    scores = markers.scores(puzzle)
    assert scores[0, 0] < scores[1, 0]
    assert markers.evidence(puzzle.cells[0], "B cell", None) == ["MS4A1"]


def test_a_gene_of_many_types_tells_less():
    table = {t: {"CD74": 1.0, own: 1.0} for t, own in [("a", "A1"), ("b", "B1"), ("c", "C1")]}
    weights = Markers(table).weights["a"]
    assert weights["A1"] > weights["CD74"]


def test_the_table_is_also_where_programs_of_earlier_versions_read_it():
    from importlib.resources import files

    text = (files("cello1.solvers") / "markers.csv").read_text()
    assert text == (files("cello1.atlas") / "markers.csv").read_text()
    assert text.startswith("cell_type,")
