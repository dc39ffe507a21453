"""Lists and tables as people and their programs leave them read as what they mean."""

from __future__ import annotations

import gzip

import pytest

from cello1.annotate.candidates import read_candidates
from cello1.atlas.markers import read_markers
from cello1.citations.aliases import read_aliases
from cello1.errors import InputError
from cello1.recipes.annotate import AnnotateSolveSettings
from cello1.recipes.read import checked
from cello1.texts import read_lines, read_table, read_text

TYPES = ["B cell", "CD4-positive, alpha-beta T cell", "mast cell"]
WAYS = {
    "plain": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "of an old Mac": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "gzipped": lambda text: gzip.compress(text.encode()),
    "without an end": lambda text: text.rstrip("\n").encode(),
    "with blanks": lambda text: ("\n\n" + text.replace("\n", " \t\n\n") + "   \n").encode(),
}


@pytest.fixture(params=sorted(WAYS))
def write(request, tmp_path):
    def written(name, text):
        (tmp_path / name).write_bytes(WAYS[request.param](text))
        return tmp_path / name

    return written


def test_candidates_read_the_same_however_they_were_saved(write):
    path = write("types.txt", "# of blood\n" + "\n".join(TYPES) + "\n")
    assert read_lines(path, "a list") == TYPES
    assert read_candidates(path).labels == TYPES


@pytest.mark.parametrize("comma", [",", "\t", ";"])
def test_markers_read_the_same_however_they_were_saved(write, comma):
    rows = [("cell_type", "gene", "weight"), ("B cell", "CD79A", "1"), (" B cell", "CD3E", "-2")]
    path = write("m.csv", "\n".join(comma.join(row) for row in rows) + "\n")
    assert read_markers(path) == {"B cell": {"CD79A": 1.0, "CD3E": -2.0}}


def test_aliases_read_the_same_however_they_were_saved(write):
    text = "symbol\talias_symbol\tprev_symbol\nMS4A1\tB1|Bp35\t\nPTPRC\tLCA9\tCD45x\n"
    assert read_aliases(write("hgnc.tsv", text))["LCA9"] == ("PTPRC",)


@pytest.mark.parametrize(
    "genes", ['"CD79A,MS4A1"', "CD79A;MS4A1", "CD79A | MS4A1", "cd79a ms4a1", "Cd79a/Ms4a1"]
)
def test_several_genes_in_one_field_and_other_cases_are_the_genes_meant(tmp_path, genes):
    for header in ("cell_type,gene", "Cell_Type,Gene", " cell type ,GENE", "Cell-type,gene"):
        (tmp_path / "m.csv").write_text(f"{header}\nB cell,{genes}\n")
        assert read_markers(tmp_path / "m.csv")["B cell"]
    (tmp_path / "m.csv").write_text(f"cell_type,gene\nB cell,{genes}\n")
    assert read_markers(tmp_path / "m.csv") == {"B cell": {"CD79A": 1.0, "MS4A1": 1.0}}


def test_names_of_no_gene_stay_as_they_are(tmp_path):
    (tmp_path / "m.csv").write_text("cell_type,gene\nB cell,marker_x\n")
    assert read_markers(tmp_path / "m.csv") == {"B cell": {"marker_x": 1.0}}


def test_quoted_lines_and_empty_fields(tmp_path):
    (tmp_path / "types.txt").write_text('"B cell"\n"CD4-positive, alpha-beta T cell"\n')
    assert read_lines(tmp_path / "types.txt", "a list") == TYPES[:2]
    (tmp_path / "t.csv").write_text("a , b\n1,\n,\nNA,x \n")
    table = read_table(tmp_path / "t.csv", "a table")
    assert table.to_dict("list") == {"a": ["1", "NA"], "b": ["", "x"]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"B cell\nna\xefve B cell\n", r"line 2 has b'\\xef'.*save it as UTF-8"),
        (b"\x00\x01\x02", "zero bytes"),
        (b"\x1f\x8b torn", "cannot be read"),
        (b"PK\x03\x04" + bytes(20), "no text"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(tmp_path, content, told):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_text(tmp_path / "x.txt", "a list of types")


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_what_is_not_there_is_told(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be read.*expected a list"):
        read_text(tmp_path / name, "a list")


@pytest.mark.parametrize("weight", ["high", "1,5x", "nan", "inf"])
def test_a_weight_that_is_no_number_is_told_with_its_line(tmp_path, weight):
    (tmp_path / "m.csv").write_text(
        f'cell_type,gene,weight\nB cell,CD19,1\nB cell,CD79A,"{weight}"\n'
    )
    with pytest.raises(InputError, match=f"weight '{weight}' in line 3"):
        read_markers(tmp_path / "m.csv")


def test_a_table_of_markers_asks_the_markers_and_is_never_passed_over(tmp_path):
    table = tmp_path / "m.csv"
    assert checked(AnnotateSolveSettings, {"markers": table}).solver == "markers"
    assert checked(AnnotateSolveSettings, {}).solver == "atlas"
    with pytest.raises(InputError, match="markers cannot be used with solver atlas"):
        checked(AnnotateSolveSettings, {"markers": table, "solver": "atlas"})
