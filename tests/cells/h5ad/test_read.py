"""Which matrix is ranked: found by its values, or named."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from cello1.cells.h5ad.read import open_source
from cello1.cells.make import make_puzzles
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


@pytest.mark.parametrize("part", ["rows", "columns"])
def test_a_matrix_of_another_shape_is_refused(make_cells, save, part):
    path = save(make_cells(donors=1))
    with h5py.File(path, "r+") as file:
        del file["X"]
        shape = (26, 200) if part == "rows" else (27, 199)
        file["X"] = np.ones(shape, dtype=np.float32)
    with pytest.raises(InputError, match=r"X has \d+ (rows|columns) for \d+ (cells|genes)"):
        found(path)
