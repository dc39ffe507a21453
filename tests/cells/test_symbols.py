"""What the genes of a matrix are called, wherever their symbols stand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cello1.cells.h5ad.read import open_source
from cello1.cells.make import make_puzzles
from cello1.errors import InputError


def normalised(adata):
    return sp.csr_matrix(np.log1p(adata.X.toarray() * 0.37))


def symbols(path):
    with open_source(path) as source:
        return source.symbols.to_pylist(), source.symbols_from


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_name", "symbol"])
@pytest.mark.parametrize("encoding", ["category", object])
def test_symbols_come_from_a_symbol_column(make_cells, save, column, encoding):
    adata = make_cells()
    adata.var = adata.var.rename(columns={"feature_name": column}).astype(encoding)
    assert symbols(save(adata)) == ([f"GENE{i}" for i in range(200)], column)


def test_feature_name_wins_over_other_columns(make_cells, save):
    adata = make_cells()
    adata.var["gene_symbols"] = "other"
    assert symbols(save(adata))[1] == "feature_name"


def test_symbols_come_from_var_names_without_a_column(make_cells, save):
    adata = make_cells()
    adata.var = pd.DataFrame(index=adata.var["feature_name"].to_numpy())
    assert symbols(save(adata)) == ([f"GENE{i}" for i in range(200)], "var_names")


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
    assert symbols(save(adata))[0][:3] == ["ENSG00000000000", "ENSG00000000001", "GENE2"]


def test_ensembl_suffixes_are_stripped_from_the_puzzles(make_cells, save, small):
    adata = make_cells()
    adata.var["feature_name"] = adata.var["feature_name"].astype(str) + "_ENSG00000198223"
    puzzles, _ = make_puzzles(save(adata), small())
    assert {g for p in puzzles for c in p.cells for g in c} <= {f"GENE{i}" for i in range(200)}


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
    assert names[:150] == [f"GENE{i}" for i in range(150)]
    assert names[199] == ("GENE199" if knows == "its own symbols" else "ENSG00000000199")


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
    assert symbols(save(adata))[0][:2] == ["ENSG00000000000", "GENE1"]


def test_raw_may_have_fewer_genes_than_x(make_cells, save):
    adata = make_cells()
    small = adata[:, 50:].copy()
    adata.X = normalised(adata)
    adata.raw = small
    assert symbols(save(adata))[0] == [f"GENE{i}" for i in range(50, 200)]


def test_repeated_symbols_are_one_gene(make_cells, save, small):
    adata = make_cells()
    adata.var["feature_name"] = [f"GENE{i // 2}" for i in range(200)]
    puzzles, _ = make_puzzles(save(adata), small())
    assert all(len(set(cell)) == len(cell) for p in puzzles for cell in p.cells)
