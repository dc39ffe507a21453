"""The gene kernel against a slow and plain reference, and what symbols are cleaned of."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cello1.cells.genes import clean_symbol, index_symbols
from cello1.cells.h5ad.matrix import Chunk
from cello1.cells.rank import NEGATIVE, UNREADABLE, top_genes

# Repeated names, a name with a suffix, and names of every class that can be excluded.
SYMBOLS = [
    *"ABCDEFGHabcd", "A", "A", "C", "D", "B_ENSG00000000001",
    "MT-CO1", "MT-ND1", "RPL13A", "RPS27", "MTCO2P22", "AC104389.5",
]  # fmt: skip
CLASSES = {
    "mitochondrial": {"MT-CO1", "MT-ND1"},
    "ribosomal": {"RPL13A", "RPS27"},
    "pseudogene": {"MTCO2P22", "AC104389.5"},
}


def rank(rows, symbols=tuple(SYMBOLS), k=5, exclude=(), dtype=np.float32, wanted=None):
    """Gene names per row, number expressed, faults; `rows` are lists of (column, value)."""
    known = index_symbols(symbols, exclude)
    chunk = Chunk(
        0,
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
        np.array([column for row in rows for column, _ in row], dtype=np.int64),
        np.array([value for row in rows for _, value in row], dtype=dtype),
    )
    wanted = np.ones(len(rows), bool) if wanted is None else np.array(wanted)
    ranks, expressed, faults = top_genes(chunk, known, wanted, k)
    names = [[known.names[r] for r in row if r >= 0] for row in ranks.tolist()]
    return names, expressed.tolist(), faults.tolist()


def slow_rank(row, k, exclude):
    """The same by the words of the rule: highest first, ties by symbol, zeros never."""
    banned = {name for kind in exclude for name in CLASSES[kind]}
    best = {}
    for column, value in row:
        name = SYMBOLS[column].split("_ENSG")[0]
        if name not in banned:
            best[name] = max(value, best.get(name, 0))
    expressed = [name for name in best if best[name] > 0]
    return sorted(expressed, key=lambda name: (-best[name], name))[:k]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 30),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.uint16]),
    exclude=st.sets(st.sampled_from(sorted(CLASSES))).map(tuple),
)
def test_kernel_agrees_with_the_slow_reference(seed, k, dtype, exclude):
    rng = np.random.default_rng(seed)
    high = rng.choice([2, 4, 1000])  # few different values make many ties; zeros are stored too
    rows = []
    for _ in range(8):
        columns = rng.permutation(len(SYMBOLS))[: rng.integers(0, len(SYMBOLS) + 1)].tolist()
        rows.append([(column, int(rng.integers(0, high))) for column in columns])
    names, _, faults = rank(rows, k=k, exclude=exclude, dtype=dtype)
    assert names == [slow_rank(row, k, exclude) for row in rows]
    assert not any(faults)


def test_float64_values_are_not_rounded_before_they_are_compared():
    one = 1.0 + 1e-12
    assert rank([[(0, 1.0), (1, one)]], dtype=np.float64)[0] == [["B", "A"]]


def test_of_repeated_symbols_the_higher_value_counts_even_when_it_comes_after_the_list_is_full():
    full = [(2, 5.0), (3, 5.0), (0, 1.0), (4, 4.0), (12, 9.0)]  # column 12 is A again
    assert rank([full], k=3)[0] == [["A", "C", "D"]]


def test_a_column_stored_twice_in_a_row_is_listed_once():
    (genes,), _, _ = rank([[(4, 1.0), (5, 3.0), (4, 2.0)]])
    assert sorted(genes) == ["E", "F"]


def test_expressed_counts_positive_values_of_genes_that_may_be_listed():
    row = [(0, 1.0), (1, 0.0), (2, 3.0), (SYMBOLS.index("MT-CO1"), 9.0)]
    assert rank([row], exclude=("mitochondrial",))[1] == [2]
    assert rank([row])[1] == [3]


@pytest.mark.parametrize(
    ("value", "fault"),
    [(np.nan, UNREADABLE), (np.inf, UNREADABLE), (-1.0, NEGATIVE), (-np.inf, NEGATIVE)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("symbol", ["A", "MT-CO1"], ids=["listed", "excluded"])
def test_bad_values_are_flagged_in_their_row_only(value, fault, dtype, symbol):
    good = [(i, 9.0) for i in range(8)]
    bad = [*good[1:], (SYMBOLS.index(symbol), value)]
    _, _, faults = rank([good, bad, good], k=3, exclude=("mitochondrial",), dtype=dtype)
    assert faults == [0, fault, 0]


def test_rows_that_are_not_wanted_are_not_looked_at():
    names, expressed, faults = rank([[(0, np.nan)], [(0, 1.0)]], wanted=[False, True])
    assert (names, expressed, faults) == ([[], ["A"]], [0, 1], [0, 0])


@pytest.mark.parametrize("column", [-1, len(SYMBOLS), 2**31 - 1])
def test_a_column_that_does_not_exist_is_a_fault(column):
    assert UNREADABLE in rank([[(column, 1.0)]])[2]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("CSF2RA_ENSG00000198223", "CSF2RA"),
        ("Cd8a_ENSMUSG00000053977.4", "Cd8a"),
        (" TP53 ", "TP53"),
        ("ENSG00000198223", "ENSG00000198223"),
        ("HLA_A", "HLA_A"),
    ],
)
def test_symbols_lose_their_ensembl_suffix(raw, clean):
    assert clean_symbol(raw) == clean


CASES = {
    "mitochondrial": ("MT-CO1 MT-ND4L MT-RNR2 mt-Co1", "MTOR MT2A MT1X MTCO2P22 MTRNR2L1"),
    "ribosomal": (
        "RPL13A RPS27 RPLP0 RPLP1 RPSA RPS4X RPS4Y1 RPL36AL RPL7L1 RPL10L RPS27L MRPL12 MRPS18A",
        "RPLX RPSX RPN1 RPA1 RPAP1 RP2 RPTOR RPS6KA1 RPS6KB1 RPS6KL1 RPS19BP1 MRPX",
    ),
    "pseudogene": (
        "MTCO2P22 MTND4LP30 MTATP6P1 RPL13AP5 RPLP0P6 RPSAP58 RP11-206L10.2 AC104389.5",
        "MT-CO1 RPL13A RPLP0 RPLP1 RPLP2 RPSA RPS19BP1 MT2A PTPRC TP53 GAPDH RP2 RP9 ACTB",
    ),
}


@pytest.mark.parametrize(
    ("kind", "symbol", "excluded"),
    [
        (kind, symbol, excluded)
        for kind, lists in CASES.items()
        for excluded, symbols in zip((True, False), lists, strict=True)
        for symbol in symbols.split()
    ],
)
def test_excluded_classes_hold_what_their_name_says(kind, symbol, excluded):
    assert (index_symbols([symbol, "ACTB"], [kind]).rank[0] < 0) == excluded


def test_excluding_leaves_most_of_the_genome(shared):
    with gzip.open(shared / "data" / "genes" / "human_genes.csv.gz", "rt") as table:
        symbols = sorted({line.strip().split(",")[1] for line in table if ",ENSG" not in line})
    known = index_symbols(symbols, tuple(CLASSES))
    assert known.excluded < 0.12 * len(symbols)
    assert len(known.names) + known.excluded == len(symbols)


@pytest.mark.parametrize("exclude", [(), tuple(CLASSES)])
def test_nothing_but_unnamed_genes_leaves_no_names(exclude):
    assert index_symbols([], exclude).names == []
    known = index_symbols(["", " "], exclude)
    assert (known.names, known.rank.tolist(), known.excluded) == ([], [-1, -1], 2)
