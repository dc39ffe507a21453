"""However a matrix is stored, the same rows come out, in chunks of any size."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from cello1.cells.h5ad.matrix import _open_array, open_matrix, row_chunks, sample_values
from cello1.errors import InputError

ROWS, COLUMNS = 37, 23


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.poisson(0.7, (ROWS, COLUMNS)).astype(np.float32)
    values[[0, 5, 6, ROWS - 1]] = 0  # rows without any value, also first and last
    values[:, [0, 9, COLUMNS - 1]] = 0
    return values


@pytest.fixture(
    params=["csr", "csc", "dense", "dense gzip", "csr gzip", "csc gzip", "csr int64 indptr", "int"]
)
def stored(request, truth, tmp_path):
    """One matrix written by anndata in one of the ways in which files hold it."""
    kind, *how = request.param.split(maxsplit=1)
    values = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}.get(kind, np.array)(truth)
    if kind == "int":
        values = sp.csr_matrix(truth.astype(np.int32))
    if how == ["int64 indptr"]:
        values.indptr, values.indices = values.indptr.astype("i8"), values.indices.astype("i8")
    path = tmp_path / "x.h5ad"
    ad.AnnData(values).write_h5ad(path, compression="gzip" if how == ["gzip"] else None)
    with h5py.File(path) as file:
        yield open_matrix("X", file["X"])


def dense(chunks, columns=COLUMNS):
    """Stack chunks again, checking that they are consecutive CSR pieces."""
    parts, at = [], 0
    for chunk in chunks:
        rows = len(chunk.indptr) - 1
        assert chunk.start == at
        assert rows > 0
        assert chunk.indptr[0] == 0
        at += rows
        parts.append(
            sp.csr_matrix((chunk.data, chunk.indices, chunk.indptr), (rows, columns)).toarray()
        )
    return np.concatenate(parts)


@pytest.mark.parametrize("values", [1, 7, COLUMNS, 100, 10_000])
def test_chunks_of_any_size_hold_all_rows(stored, truth, values):
    assert stored.shape == truth.shape
    np.testing.assert_array_equal(dense(row_chunks(stored, values)), truth)


def test_chunks_stay_within_their_budget_unless_one_row_is_larger(stored):
    for chunk in row_chunks(stored, 40):
        assert len(chunk.data) <= 40 or stored.kind == "csc" or len(chunk.indptr) == 2
    assert len(list(row_chunks(stored, 40))) > 5


def test_a_chunk_is_whole_until_the_one_after_the_next_is_read(stored, truth):
    chunks = row_chunks(stored, 40)
    before = next(chunks)
    for after in chunks:
        assert (
            dense([before._replace(start=0)]).tolist() == truth[before.start : after.start].tolist()
        )
        before = after


def test_the_sample_holds_values_of_the_matrix(stored, truth):
    sample = sample_values(stored)
    assert set(sample[sample != 0].tolist()) == set(truth[truth != 0].tolist())
    assert len(sample_values(stored, limit=8 * 3)) <= 8 * max(3, COLUMNS)


def test_an_old_file_says_its_format_in_other_words(truth, tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        group, matrix = file.create_group("X"), sp.csr_matrix(truth)
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", truth.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
        np.testing.assert_array_equal(dense(row_chunks(open_matrix("X", group))), truth)


def _backwards(indptr):
    indptr[[5, 20]] = indptr[[20, 5]]


def _beyond(indptr):
    indptr[-1] += 1


def _below(indptr):
    indptr[0] = -1


@pytest.mark.parametrize("damage", [_backwards, _beyond, _below])
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_damaged_pointers_are_refused(damage, kind, truth, tmp_path):
    ad.AnnData(kind(truth)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        indptr = file["X/indptr"][:]
        damage(indptr)
        file["X/indptr"][:] = indptr
        with pytest.raises(InputError, match="X is damaged"):
            list(row_chunks(open_matrix("X", file["X"])))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_arrays_that_are_too_short_are_refused(part, kind, truth, tmp_path):
    ad.AnnData(kind(truth)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        short = file["X"][part][:-1]
        del file["X"][part]
        file["X"][part] = short
        with pytest.raises(InputError, match="X is damaged"):
            list(row_chunks(open_matrix("X", file["X"])))


@pytest.mark.parametrize("row", [-1, ROWS, 10**6])
def test_a_column_major_matrix_with_rows_that_do_not_exist_is_refused(row, truth, tmp_path):
    ad.AnnData(sp.csc_matrix(truth)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        file["X/indices"][3] = row
        with pytest.raises(InputError, match="X is damaged"):
            list(row_chunks(open_matrix("X", file["X"])))


@pytest.mark.parametrize("what", ["words", "cube", "group", "other sparse", "no data"])
def test_what_is_no_matrix_is_refused_by_name(what, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if what == "words":
            file["X"] = np.array([[b"a", b"b"]])
        elif what == "cube":
            file["X"] = np.zeros((2, 2, 2))
        else:
            group = file.create_group("X")
            group.attrs["encoding-type"] = "csr_matrix" if what == "no data" else "coo_matrix"
            if what == "group":
                del group.attrs["encoding-type"]
        with pytest.raises(InputError, match=r"expected|damaged"):
            open_matrix("layers/odd", file["X"])


def test_what_is_not_packed_is_read_without_a_chunk_cache(truth, tmp_path):
    ad.AnnData(sp.csr_matrix(truth)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        matrix = open_matrix("X", file["X"])
        for name in ("data", "indices"):
            array = _open_array(matrix.node, name)
            assert array.chunks
            assert array.id.get_access_plist().get_chunk_cache()[1] == 0
