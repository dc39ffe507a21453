import pytest

from cello1.puzzles.puzzle import Puzzle
from cello1.report.marked import ABSENT, MARKER, MOST_CHARACTERS, SUPPORTED, marked
from cello1.solvers.classical.markers import Markers

PUZZLE = Puzzle("", [["MS4A1", "RPL3"], ["CD3D", "RPL5"]], ["B cell", "T cell"], None)
GENES = frozenset({"MS4A1", "CD3D", "RPL3", "RPL5", "LYZ"})
TABLE = Markers({"B cell": {"MS4A1": 1.0, "LYZ": -1.0}, "T cell": {"CD3D": 1.0}})


def marks(text, given=("B cell", "T cell")):
    return marked(PUZZLE, text, given, GENES, TABLE)


def test_genes_are_checked_against_the_list_of_their_cell():
    pieces = marks("So Cell 1: MS4A1, RPL3 and LYZ.\ncell 2: MS4A1?")
    assert pieces == [
        "So ", ["Cell 1", 1], ": ", ["MS4A1", 1, MARKER], ", ", ["RPL3", 1, SUPPORTED], " and ",
        ["LYZ", 1, ABSENT], ".\n", ["cell 2", 2], ": ", ["MS4A1", 2, ABSENT], "?",
    ]  # fmt: skip


def test_a_known_marker_is_one_of_the_type_given():
    assert ["MS4A1", 1, SUPPORTED] in marks("Cell 1 has MS4A1.", ("T cell", "B cell"))
    assert ["MS4A1", 1, SUPPORTED] in marks("Cell 1 has MS4A1.", (None, None))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no cell at all, MS4A1",
        "Cell 1 and Cell 2: MS4A1. Cell 1 has RPL3; Cell 2 no MS4A1 but CD3D.\n\nCell 9: LYZ",
        "\U0001f9ec Cell 1: MS4A1\r\nCell 2: the B cell MS4A1",
        "Cell 1\nCell 1" * 50,
    ],
)
def test_the_pieces_are_the_text(text):
    assert "".join(p if isinstance(p, str) else str(p[0]) for p in marks(text)) == text


def test_places_of_citations_are_where_the_genes_stand():
    text = (
        "Cell 1 has MS4A1, no T cell. Cell 2: B cell or CD3D, lacking LYZ. Cell 1 or Cell 2: RPL3."
    )
    assert [p for p in marks(text) if isinstance(p, list) and len(p) == 3] == [
        ["MS4A1", 1, MARKER], ["CD3D", 2, MARKER], ["RPL3", 1, SUPPORTED],
    ]  # fmt: skip
    assert marks("Cell 1 has no CD3D. Cell 2 has CD3D.")[-2] == ["CD3D", 2, MARKER]


def test_an_endless_text_is_cut_and_says_so():
    pieces = marks("x" * (MOST_CHARACTERS + 1))
    assert pieces == ["x" * MOST_CHARACTERS + " [cut here]"]
