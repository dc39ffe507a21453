"""Which matrix is ranked, and what its columns are called."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cello1.cells.genes import index_symbols
from cello1.cells.make import make_puzzles
from cello1.cells.read import open_source
from cello1.errors import InputError


def normalised(adata):
    return sp.csr_matrix(np.log1p(adata.X.toarray() * 0.37))


def scaled(adata):
    dense = adata.X.toarray()
    return (dense - dense.mean(0)) / (dense.std(0) + 1)


def found(path, layer=None):
    with open_source(path, layer) as source:
        return source.matrix.name, source.values


def _in_x(adata):
    adata.layers["log"] = normalised(adata)


def _in_raw(adata):
    adata.raw = adata
    adata.X = normalised(adata)


def _in_layer(adata):
    adata.layers["umi"] = adata.X
    adata.X = normalised(adata)


def _in_layer_beside_raw(adata):
    _in_layer(adata)
    adata.raw = adata


def _log_beside_scaled(adata):
    log, adata.X = normalised(adata), normalised(adata)
    adata.raw = adata
    adata.X = scaled(ad.AnnData(log))


def _log_only(adata):
    adata.X = normalised(adata)


def _misnamed(adata):
    adata.layers["counts"] = normalised(adata)


def _with_mask(adata):
    _log_only(adata)
    adata.layers["a mask"] = np.ones(adata.shape, dtype=bool)


@pytest.mark.parametrize(
    ("arrange", "matrix", "values"),
    [
        (_in_x, "X", "counts"),
        (_in_raw, "raw.X", "counts"),
        (_in_layer, "umi", "counts"),
        (_in_layer_beside_raw, "umi", "counts"),
        (_log_beside_scaled, "raw.X", "normalised"),
        (_log_only, "X", "normalised"),
        (_misnamed, "X", "counts"),
        (_with_mask, "X", "normalised"),
    ],
)
def test_raw_counts_are_found_by_value_and_preferred(make_cells, save, arrange, matrix, values):
    adata = make_cells()
    arrange(adata)
    assert found(save(adata)) == (matrix, values)


def test_what_was_used_is_recorded_in_every_puzzle(make_cells, save, small):
    adata = make_cells()
    _in_raw(adata)
    puzzles, report = make_puzzles(save(adata), small(exclude_genes=("ribosomal",)))
    assert (report.matrix, report.values, report.symbols) == ("raw.X", "counts", "feature_name")
    genes = {"matrix": "raw.X", "values": "counts", "top": 50, "excluded": ["ribosomal"]}
    assert all(p.meta["genes"] == genes for p in puzzles)


@pytest.mark.parametrize("layer", ["X", "raw.X", "log"])
def test_a_named_matrix_is_used_whatever_else_there_is(make_cells, save, layer):
    adata = make_cells()
    adata.raw = adata
    adata.layers["log"] = normalised(adata)
    assert found(save(adata), layer) == (layer, "normalised" if layer == "log" else "counts")


def test_an_unknown_layer_is_refused_with_those_there_are(make_cells, save):
    with pytest.raises(InputError, match=r"no matrix 'umi'.*it has X"):
        found(save(make_cells()), "umi")


def test_scaled_values_alone_are_refused(make_cells, save):
    adata = make_cells()
    adata.X = scaled(adata)
    with pytest.raises(InputError, match=r"X holds negative values.*put them into"):
        found(save(adata))


def test_x_may_be_missing_when_a_layer_is_there(make_cells, save):
    adata = make_cells()
    adata.layers["counts"] = adata.X
    adata.X = None
    assert found(save(adata)) == ("counts", "counts")


def symbols(path):
    with open_source(path) as source:
        return source.symbols, source.symbols_from


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
        _in_raw(adata)
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
    path = save(adata)
    assert found(path) == ("raw.X", "counts")
    assert symbols(path)[0] == [f"GENE{i}" for i in range(50, 200)]


def test_repeated_symbols_are_one_gene(make_cells, save, small):
    adata = make_cells()
    adata.var["feature_name"] = [f"GENE{i // 2}" for i in range(200)]
    puzzles, _ = make_puzzles(save(adata), small())
    assert all(len(set(cell)) == len(cell) for p in puzzles for cell in p.cells)
    assert len(index_symbols(adata.var["feature_name"]).names) == 100


@pytest.mark.parametrize("part", ["rows", "columns"])
def test_a_matrix_of_another_shape_is_refused(make_cells, save, part):
    path = save(make_cells(donors=1))
    with h5py.File(path, "r+") as file:
        del file["X"]
        shape = (26, 200) if part == "rows" else (27, 199)
        file["X"] = np.ones(shape, dtype=np.float32)
    with pytest.raises(InputError, match=r"X has \d+ (rows|columns) for \d+ (cells|genes)"):
        found(path)
