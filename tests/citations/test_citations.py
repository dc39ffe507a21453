"""What a text cites: 100 hand-labelled sentences, and the cases each rule is for."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pandas as pd
import pytest

from cello1.citations.aliases import read_aliases
from cello1.citations.citations import citations, passage
from cello1.citations.evidence import cited_share, strike, support
from cello1.puzzles.puzzle import Puzzle

TYPES = (
    "B cell", "CD8-positive, alpha-beta T cell", "natural killer cell", "classical monocyte",
    "non-classical monocyte", "dendritic cell", "plasma cell", "platelet", "fibroblast",
    "mast cell",
)  # fmt: skip
ROWS = [
    line.split("\t")
    for line in (Path(__file__).parent / "evidence_sentences.tsv").read_text().splitlines()
    if not line.startswith("#")
]
CITED = {m.split(":")[1].lstrip("!") for _, expected in ROWS for m in expected.split()}
WORDS = {"IMPACT", "CAT", "REST", "SET", "C3", "C4", "KIT", "MAX", "T", "CD4", "CD8A", "CD14"}
VOCABULARY = {g for g in CITED if not g.endswith("*")} | WORDS | {"HLA-DRA", "IGHG1", "COL1A1"}
PUZZLE = Puzzle("x", [("MALAT1",)] * 10, TYPES)


def read(sentence, vocabulary=VOCABULARY, aliases=None):
    found = citations(PUZZLE, sentence, vocabulary, aliases, denied=True)
    return {f"{c.cell}:{'!' if c.denied else ''}{c.gene}" for c in found}


def rates(rows, vocabulary, aliases=None):
    pairs = [(read(sentence, vocabulary, aliases), set(e.split())) for sentence, e in rows]
    hits = sum(len(got & want) for got, want in pairs)
    precision = hits / sum(len(got) for got, _ in pairs)
    return precision, hits / sum(len(want) for _, want in pairs)


def test_hand_labelled_sentences():
    assert len(ROWS) == 100
    for half in (ROWS[:50], ROWS[50:]):  # the rules were mended on the first half only
        precision, recall = rates(half, VOCABULARY)
        assert precision >= 0.97
        assert recall >= 0.97


def test_the_same_among_all_human_genes_and_their_aliases(shared):
    genes = shared / "data" / "genes"
    with gzip.open(genes / "human_genes.csv.gz", "rt") as file:
        symbols = set(pd.read_csv(file)["symbol"].astype(str))
    aliases = read_aliases(genes / "hgnc_aliases.tsv.gz")
    precision, recall = rates(ROWS, VOCABULARY | symbols, aliases)
    assert precision >= 0.97
    assert recall >= 0.97


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Cell 1 expresses C3.", {"1:C3"}),
        ("Cell 1 resembles C3.", set()),
        ("Cell 1: S100A8/9 and CD3D/E/G.", {"1:S100A8", "1:S100A9", "1:CD3D", "1:CD3E", "1:CD3G"}),
        ("Cell 1 shows no CD3D but MS4A1.", {"1:!CD3D", "1:MS4A1"}),
        ("Cell 1 shows not only CD3D but also CD3E.", {"1:CD3D", "1:CD3E"}),
        ("Cell 1 is a CD14+ monocyte.", set()),
        ("Cell 11 shows CD3D.", set()),
        ("B cell: look for MS4A1, CD79A. Cell 2 shows MS4A1.", {"2:MS4A1"}),
        ("NK cells typically express GNLY and NKG7. Cell 2 has GNLY.", {"2:GNLY"}),
        ("Cell 2 would have to show CD3D and TRAC.", set()),
        ("Cell 2 is marked by GNLY, which NK cells usually express.", {"2:GNLY"}),
        ("Cell 2: I would expect CD14, and it is there.", {"2:CD14"}),
        ("Cell 2: I would expect CD14, yet it is absent.", {"2:!CD14"}),
        (
            "Cell 2 lacks T cell markers (e.g., CD3D, CD3E) but has LYZ.",
            {"2:!CD3D", "2:!CD3E", "2:LYZ"},
        ),
        ("Cell 2 is no T cell (LYZ, CD14).", {"2:LYZ", "2:CD14"}),
        ("Cells 2-4 and cell 6 express LYZ.", {"2:LYZ", "3:LYZ", "4:LYZ", "6:LYZ"}),
        ("### Cell 2\n\n- GNLY\n- NKG7", {"2:GNLY", "2:NKG7"}),
        ("Cell 2 is GNLY+ CD3D-.", {"2:GNLY", "2:!CD3D"}),
        ("| Cell | Genes |\n|---|---|\n| 2 | GNLY |", {"2:GNLY"}),
    ],
)
def test_each_rule(sentence, expected):
    assert read(sentence) == expected


def test_genes_that_a_type_would_show_are_kept_apart():
    text = "B cell: look for MS4A1. Cell 2 shows CD79A.\nPlasma cells express MZB1."
    found = citations(PUZZLE, text, {"MS4A1", "CD79A", "MZB1"}, expected=True)
    assert [(c.cell, c.gene, c.expected) for c in found] == [
        (0, "MS4A1", True), (2, "CD79A", False), (2, "MZB1", True),
    ]  # fmt: skip


def test_true_is_what_the_list_says():
    puzzle = Puzzle("x", [("MS4A1", "FCGR3"), ("IGHG1",)], ("B cell", "plasma cell"))
    text = "Cell 1 shows MS4A1, CD3D and CD16; no CD3E.\nCell 2 has IGH* genes, no IGHG1."
    vocabulary = {"MS4A1", "CD3D", "CD3E", "IGHG1", "FCGR3A", "FCGR3"}
    aliases = read_aliases() | {"FCGR3": ("FCGR3A",)}
    found = citations(puzzle, text, vocabulary, aliases, denied=True)
    assert {(c.gene, c.true) for c in found if c.cell == 1} == {
        ("MS4A1", True), ("CD3D", False), ("FCGR3A", True), ("CD3E", True),
    }  # fmt: skip
    assert {(c.gene, c.true) for c in found if c.cell == 2} == {("IGH*", True), ("IGHG1", False)}
    assert not any(c.denied for c in citations(puzzle, text, vocabulary, aliases))


@pytest.mark.parametrize("piece", ["Cell 1 ", "CD3D, ", "B cell or ", "CD3D/", "(", "\n1. B cell"])
def test_endless_text_is_read_in_bounded_time(piece):
    start = time.process_time()
    citations(PUZZLE, piece * 2_000, VOCABULARY, denied=True, expected=True)
    assert time.process_time() - start < 30  # minutes where the time grows with the square


def test_false_citations_are_struck_and_true_ones_stay():
    puzzle = Puzzle("x", [("MS4A1",), ("CD3D",)], ("B cell", "T cell"))
    text = "Cell 1 shows MS4A1 and CD3D, not CD3E."
    found = citations(puzzle, text, {"MS4A1", "CD3D", "CD3E"}, denied=True)
    assert strike(text, found) == "Cell 1 shows MS4A1 and ~~CD3D~~, not CD3E."


def test_a_passage_keeps_to_its_cell():
    text = "Three cells.\nCell 1 is A. It shows X. Its rival is taken by cell 2.\nCell 2 is B."
    assert passage(text, 1, PUZZLE) == "Cell 1 is A. It shows X. Its rival is taken by cell 2."
    assert passage(text, 2, PUZZLE) == "Cell 2 is B."


def test_support_puts_listed_and_specific_genes_first():
    puzzle = Puzzle("x", [("A1", "B1"), ("B1",)], ("B cell", "T cell"))
    found = citations(puzzle, "Cell 1 shows B1, A1 and Z1.", {"A1", "B1", "Z1"})
    items = support(found, {"A1": 0.9, "B1": 1.0}, {"A1": 0.1, "B1": 0.9}, {"A1"})
    assert [(s.gene, s.listed, s.inside, s.marker) for s in items] == [
        ("A1", 1, 0.9, True), ("B1", 1, 1.0, False), ("Z1", 0, None, False),
    ]  # fmt: skip


def test_the_share_of_a_run_is_a_mean_over_responses():
    puzzles = [
        Puzzle("x", [("A1",), ("B1",)], ("B cell", "T cell"), meta={"donor_id": d}) for d in "pq"
    ]
    puzzles[1] = Puzzle("y", [("A1",), ("B1",)], ("B cell", "T cell"), meta={"donor_id": "q"})
    said = ["Cell 1 shows A1.", "Cell 1 shows B1. Cell 2 shows B1."]
    texts = {
        p.id: f"<think>{s}</think>\n<answer>B cell | T cell</answer>"
        for p, s in zip(puzzles, said, strict=True)
    }
    found = cited_share(puzzles, texts)
    assert (found.cited, found.true, found.silent) == (3, 2, 0)
    assert found.share.estimate == pytest.approx(0.75)
    assert cited_share(puzzles, {}) is None
