"""What the genes of a matrix are called, wherever their symbols stand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cello1.annotate.data import open_data
from cello1.cells.genes import index_symbols
from cello1.cells.h5ad.matrix import open_matrix
from cello1.cells.h5ad.read import find_symbols, open_h5ad, open_source
from cello1.cells.make import make_puzzles
from cello1.cells.symbols import human_genes, symbols_by_id
from cello1.errors import InputError


def normalised(adata):
    return sp.csr_matrix(np.log1p(adata.X.toarray() * 0.37))


def symbols(path):
    with open_source(path) as source:
        return source.symbols.to_pylist(), source.symbols_from


def loaded_symbols(adata):
    with open_data(adata) as data:
        return data.expression().symbols


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_name", "symbol"])
@pytest.mark.parametrize("encoding", ["category", object])
def test_symbols_come_from_a_symbol_column(make_cells, save, column, encoding):
    adata = make_cells()
    adata.var = adata.var.rename(columns={"feature_name": column}).astype(encoding)
    assert symbols(save(adata)) == ([f"ZNF{i}" for i in range(200)], column)


def test_feature_name_wins_over_other_columns(make_cells, save):
    adata = make_cells()
    adata.var["gene_symbols"] = "other"
    assert symbols(save(adata))[1] == "feature_name"


def test_symbols_come_from_var_names_without_a_column(make_cells, save):
    adata = make_cells()
    adata.var = pd.DataFrame(index=adata.var["feature_name"].to_numpy())
    assert symbols(save(adata)) == ([f"ZNF{i}" for i in range(200)], "var_names")


@pytest.mark.parametrize("place", ["X", "raw.X"])
def test_ensembl_ids_alone_are_refused_with_the_cure(make_cells, save, place):
    adata = make_cells()
    adata.var = adata.var[[]]
    if place == "raw.X":
        adata.raw = adata
        adata.X = normalised(adata)
    with pytest.raises(InputError, match=r"ENSG00000000000.*adata\.var\['feature_name'\] ="):
        symbols(save(adata))


def test_a_gene_without_symbol_keeps_its_id(make_cells, save):
    adata = make_cells()
    adata.var["feature_name"] = [None, "", *adata.var["feature_name"][2:]]
    assert symbols(save(adata))[0][:3] == ["ENSG00000000000", "ENSG00000000001", "ZNF2"]


def test_ensembl_suffixes_are_stripped_from_the_puzzles(make_cells, save, small):
    adata = make_cells()
    adata.var["feature_name"] = adata.var["feature_name"].astype(str) + "_ENSG00000198223"
    puzzles, _ = make_puzzles(save(adata), small())
    assert {g for p in puzzles for c in p.cells for g in c} <= {f"ZNF{i}" for i in range(200)}


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols"])
@pytest.mark.parametrize("knows", ["its own symbols", "ids only"])
def test_raw_may_have_more_genes_than_x(make_cells, save, column, knows):
    """Symbols that only var knows serve the same genes in raw; the others keep their ids."""
    full = make_cells()
    full.var = full.var.rename(columns={"feature_name": column})
    adata = full[:, :150].copy()
    adata.X = normalised(adata)
    adata.raw = full if knows == "its own symbols" else ad.AnnData(full.X, full.obs, full.var[[]])
    names, _ = symbols(save(adata))
    assert names[:150] == [f"ZNF{i}" for i in range(150)]
    assert names[199] == ("ZNF199" if knows == "its own symbols" else "ENSG00000000199")


def test_raw_without_most_symbols_is_refused_as_ensembl_ids_alone_are(make_cells, save):
    full = make_cells()
    adata = full[:, :20].copy()
    adata.X = normalised(adata)
    adata.raw = ad.AnnData(full.X, full.obs, full.var[[]])
    with pytest.raises(InputError, match=r"adata\.(raw\.)?var\['feature_name'\] ="):
        symbols(save(adata))


def test_a_gene_of_raw_whose_symbol_var_lacks_keeps_its_id(make_cells, save):
    adata = make_cells()
    bare = ad.AnnData(adata.X, adata.obs, adata.var[[]])
    adata.X = normalised(adata)
    adata.raw = bare
    adata.var["feature_name"] = [None, *adata.var["feature_name"][1:]]
    assert symbols(save(adata))[0][:2] == ["ENSG00000000000", "ZNF1"]


def test_raw_may_have_fewer_genes_than_x(make_cells, save):
    adata = make_cells()
    small = adata[:, 50:].copy()
    adata.X = normalised(adata)
    adata.raw = small
    assert symbols(save(adata))[0] == [f"ZNF{i}" for i in range(50, 200)]


def test_repeated_symbols_are_one_gene(make_cells, save, small):
    adata = make_cells()
    adata.var["feature_name"] = [f"ZNF{i // 2}" for i in range(200)]
    puzzles, _ = make_puzzles(save(adata), small())
    assert all(len(set(cell)) == len(cell) for p in puzzles for cell in p.cells)


def named(adata, names, **columns):
    """Give the genes other names; columns of var beside them."""
    adata.var = pd.DataFrame({k: list(v) for k, v in columns.items()}, index=list(names))
    return adata


def real_symbols(n=200):
    return sorted(symbol for symbol in human_genes() if symbol.isalpha())[:n]


def test_the_candidate_that_knows_most_genes_wins_whatever_it_is_called(make_cells, save, small):
    """Ensembl ids in a column called gene_name, symbols in the index."""
    ids = [f"ENSG{i:011d}" for i in range(200)]
    path = save(named(make_cells(), real_symbols(), gene_name=ids))
    assert symbols(path) == (real_symbols(), "var_names")
    (note,) = make_puzzles(path, small())[1].notes
    assert "taken from var_names: 100% of its names are known human genes, 0% of gene_name" in note


def test_ensembl_ids_are_read_by_the_table_that_comes_along(make_cells, save):
    ids = {symbol: number for number, symbol in symbols_by_id().items()}
    wanted = [name for name in real_symbols(400) if name in ids][:200]
    path = save(named(make_cells(), [f"{ids[name]}.7" for name in wanted]))
    assert symbols(path) == (wanted, "var_names (200 of 200 Ensembl ids read as symbols)")


@pytest.mark.parametrize("prefix", ["GRCh38_", "hg19_", "GRCh38___", "human-", "GRCh38-2020-A_"])
def test_a_prefix_of_all_names_is_taken_off_and_told(make_cells, save, prefix):
    found = symbols(save(named(make_cells(), [prefix + name for name in real_symbols()])))
    assert found == (real_symbols(), f"var_names (without the prefix {prefix})")


@pytest.mark.parametrize("form", ["{name}_{id}", "{id}_{name}", "{name} ({id}.3)", "{name} [{id}]"])
def test_ids_beside_symbols_are_taken_off(make_cells, save, form):
    names = [form.format(name=n, id=f"ENSG{i:011d}") for i, n in enumerate(real_symbols())]
    assert symbols(save(named(make_cells(), names)))[0] == real_symbols()


@pytest.mark.parametrize("prefix", ["", "mm10_"])
def test_genes_of_mice_are_no_human_ones_though_some_are_spelled_alike(make_cells, save, prefix):
    alike = ["C3", "F8", "H19", "C2", "T"]
    names = [*alike, *(name.capitalize() for name in real_symbols(195))]
    with pytest.raises(InputError, match="of 200 gene names in var_names are known human genes"):
        symbols(save(named(make_cells(), [prefix + name for name in names])))


def test_genes_of_mice_beside_human_ones_keep_their_prefix_and_are_left_out(make_cells, save):
    human = [f"GRCh38_{name}" for name in real_symbols(100)]
    mouse = ["mm10_C3", "mm10_F8", *(f"mm10_{n.capitalize()}" for n in real_symbols(98))]
    found, origin = symbols(save(named(make_cells(), [*human, *mouse])))
    assert origin == "var_names (without the prefix GRCh38_)"
    assert found == [*real_symbols(100), *[""] * 100]


def test_genes_of_another_species_beside_human_ones_are_left_out(make_cells, save, small):
    human = [f"GRCh38_{name}" for name in real_symbols(120)]
    path = save(named(make_cells(), [*human, *(f"mm10___Gene{i}" for i in range(80))]))
    puzzles, report = make_puzzles(path, small())
    assert report.notes == [
        "80 columns that are no genes are left out: genes of other species (80)"
    ]
    assert {g for p in puzzles for c in p.cells for g in c} <= set(real_symbols(120))


OTHERS = {
    "spike-ins": [f"ERCC-{i:05}" for i in range(9)],
    "antibodies": ["CD3_TotalSeqB", "CD19-ADT", "adt_CD4", "CD56_prot"],
    "hashtags": ["HTO_1", "Hashtag2", "CMO301", "hashtag-3"],
    "guides": ["sgRNA_TP53_1", "NonTargeting-2", "guide_12", "TP53_sg3"],
    "dates that a spreadsheet made of symbols": ["1-Mar", "Sep-02", "2021-09-01", "10-sep"],
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("loaded", [False, True])
def test_what_is_no_gene_by_its_name_is_left_out_and_counted(make_cells, save, small, kind, loaded):
    adata = make_cells()
    odd = OTHERS[kind]
    dense = adata.X.toarray()
    dense[:, : len(odd)] = 9_999  # they would lead every list
    adata.X = sp.csr_matrix(dense)
    named(adata, [*odd, *real_symbols(200 - len(odd))])
    told = f"{len(odd)} columns that are no genes are left out: {kind} ({len(odd)})"
    if loaded:
        with open_data(adata) as data:
            assert data.notes == [told]
            assert not set(odd) & set(data.expression().symbols.names)
        return
    puzzles, report = make_puzzles(save(adata), small())
    assert report.notes == [told]
    assert not {g for p in puzzles for c in p.cells for g in c} & set(odd)


@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
@pytest.mark.parametrize("gene", ["Gene Expression", "gene expression", "Gene"])
def test_rows_that_say_they_are_no_genes_are_left_out_whatever_their_names(
    make_cells, save, small, column, gene
):
    adata = make_cells()
    kinds = [gene] * 180 + ["Antibody Capture"] * 15 + ["CRISPR Guide Capture"] * 5
    names = real_symbols()  # antibodies are often named as their gene
    path = save(named(adata, names, **{column: kinds}))
    puzzles, report = make_puzzles(path, small())
    assert "Antibody Capture (15), CRISPR Guide Capture (5)" in report.notes[0]
    assert {g for p in puzzles for c in p.cells for g in c} <= set(names[:180])


def test_biotypes_of_genes_are_all_kept(make_cells, save, small):
    kinds = ["protein_coding"] * 100 + ["lncRNA"] * 50 + ["IG_C_gene"] * 50
    path = save(named(make_cells(), real_symbols(), feature_type=kinds))
    assert make_puzzles(path, small())[1].notes == []


@pytest.mark.parametrize(
    ("change", "look"),
    [
        (str.capitalize, "mouse spelling"),
        (str.lower, "lower case"),
        (lambda name: str(abs(hash(name)) % 10_000), "numbers"),
        (lambda name: f"ILMN_{len(name)}{name}", "probes"),
        (lambda name: f"chr1:{len(name)}-99{len(name)}", "peaks"),
        (lambda name: f"ENSMUSG{abs(hash(name)) % 10**11:011d}", "Ensembl id"),
        (lambda name: f"gene<{name}>", "expected symbols such as CD3E"),
    ],
)
def test_names_that_are_no_human_genes_are_refused_with_what_they_look_like(
    make_cells, save, change, look
):
    adata = named(make_cells(), [change(name) for name in real_symbols()])
    adata.var_names_make_unique(join="_")
    for read in (lambda: symbols(save(adata)), lambda: loaded_symbols(adata)):
        with pytest.raises(InputError, match=look) as told:
            read()
        assert "adata.var" in str(told.value)


@pytest.mark.parametrize("where", ["uns", "obs"])
def test_genes_of_a_declared_species_are_taken_as_they_are(make_cells, save, where):
    adata = named(make_cells(), [name.capitalize() for name in real_symbols()])
    del adata.uns["organism"]
    if where == "uns":
        adata.uns["organism"] = "Mus musculus"
    else:
        adata.obs["organism"] = "Mus musculus"
    assert symbols(save(adata))[0] == [name.capitalize() for name in real_symbols()]


def test_files_and_loaded_cells_have_the_same_genes(make_cells, save):
    adata = named(make_cells(), [f"GRCh38_{n}" for n in real_symbols()], features=["x"] * 200)
    with open_source(save(adata)) as source:
        stored = index_symbols(source.symbols)
    loaded = loaded_symbols(adata)
    assert (stored.names, stored.rank.tolist()) == (loaded.names, loaded.rank.tolist())


@pytest.mark.parametrize("known", [0, 1, 3_000, 6_000])
def test_of_many_names_a_sample_tells_whether_they_are_read(known, tmp_path):
    """Beside a column of symbols that knows few."""
    genes = sorted(human_genes())
    index = [*genes[:known], *(f"peak{i}" for i in range(6_000 - known))]
    column = [*genes[-60:], *(f"clone{i}" for i in range(5_940))]
    var = pd.DataFrame({"gene_name": column}, index)
    ad.AnnData(sp.csr_matrix(np.ones((1, 6_000), "f4")), var=var).write_h5ad(tmp_path / "x.h5ad")
    with open_h5ad(tmp_path / "x.h5ad") as file:
        chosen = find_symbols(file, open_matrix("X", file["X"]), None)
    assert chosen.origin == ("var_names" if known > 60 else "gene_name")
