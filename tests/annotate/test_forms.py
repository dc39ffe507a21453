"""Data of any size and form: stored, backed, lazy, a view, with raw, of mouse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest
from blood import TYPES, blood
from scipy.sparse import csc_matrix

import cello1 as co
from cello1.annotate.data import open_data
from cello1.annotate.files import annotate_file
from cello1.errors import InputError, UseError

OPTIONS = {"groupby": "cluster", "candidates": TYPES, "solver": "markers"}


def labels(cells, key="cello1"):
    return co.get.annotation(cells, key)["label"].tolist()


def notes(cells):
    return json.loads(cells.uns["cello1"]["notes"])


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "float32", "int"])
def test_any_matrix_in_memory(cells, form):
    cells.X = {
        "csr": lambda x: x,
        "csc": csc_matrix,
        "dense": lambda x: x.toarray(),
        "float32": lambda x: x.astype(np.float32),
        "int": lambda x: x.astype(np.int64),
    }[form](cells.X)
    co.tl.annotate(cells, **OPTIONS)
    assert labels(cells) == TYPES


def test_a_view_and_one_that_is_backed(cells, tmp_path):
    view = cells[cells.obs["donor_id"] == "D0"]
    co.tl.annotate(view, **OPTIONS)
    assert labels(view) == TYPES
    cells.write_h5ad(tmp_path / "in.h5ad")
    backed = anndata.read_h5ad(tmp_path / "in.h5ad", backed="r")
    co.tl.annotate(backed, **OPTIONS)
    assert backed.isbacked
    assert labels(backed) == TYPES
    backed.file.close()


@pytest.mark.parametrize("rows", ["step", "mask", "shuffled"])
def test_a_view_of_a_backed_one_is_never_read_whole(cells, rows, tmp_path, monkeypatch):
    from cello1.annotate import data as module

    cells.write_h5ad(tmp_path / "in.h5ad")
    whole = anndata.read_h5ad(tmp_path / "in.h5ad", backed="r")
    chosen = {
        "step": np.arange(cells.n_obs) % 2 == 0,
        "mask": (cells.obs["donor_id"] == "D1").to_numpy(),
        "shuffled": np.random.default_rng(0).permutation(cells.n_obs)[:60],
    }[rows]
    part = whole[chosen, cells.var_names[::-1]]
    kind, read = type(whole.X), []
    take = kind.__getitem__

    def watched(self, wanted):
        read.append(take(self, wanted))
        return read[-1]

    monkeypatch.setattr(kind, "__getitem__", watched)
    monkeypatch.setattr(module, "CHUNK_VALUES", 7 * cells.n_vars)
    with pytest.raises(UseError, match="a view of a file"):
        co.tl.annotate(part, **OPTIONS)
    with open_data(part) as data:
        assert read
        read.clear()
        chunks = list(data.chunks())
    assert len(chunks) == len(read) > 3
    assert max(block.shape[0] for block in read) <= 7
    copy = co.tl.annotate(part, copy=True, **OPTIONS)
    assert not copy.isbacked
    assert copy.obs["cello1"].astype(str).tolist() == copy.obs["cell_type"].astype(str).tolist()
    alone = co.tl.annotate(cells[chosen], copy=True, **OPTIONS)
    assert copy.obs["cello1"].tolist() == alone.obs["cello1"].tolist()
    whole.file.close()


def test_dask_arrays_are_read_in_chunks(cells):
    array = pytest.importorskip("dask.array", reason="needs dask")
    cells.X = array.from_array(cells.X.toarray(), chunks=(7, -1))
    co.tl.annotate(cells, **OPTIONS)
    assert labels(cells) == TYPES


class Lazy:
    """An array that is computed in chunks of rows, as those of dask are; it notes which."""

    def __init__(self, values, sizes, computed=None, rows=slice(None)):
        self.values, self.rows = values, rows
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, 2
        self.chunks, self.computed = (tuple(sizes), (values.shape[1],)), computed

    def __getitem__(self, rows):
        return Lazy(self.values, self.chunks[0], self.computed, rows)

    def compute(self):
        first, last, _ = self.rows.indices(self.shape[0])
        bounds = np.cumsum([0, *self.chunks[0]])
        touched = (bounds[:-1] < last) & (bounds[1:] > first)
        self.computed.extend(np.flatnonzero(touched).tolist())
        return self.values[self.rows]


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("sizes", [(40, 30, 10), (1,) * 80, (3, 70, 7), (80,)])
def test_every_chunk_of_a_lazy_array_is_computed_once(cells, form, sizes, monkeypatch):
    from cello1.annotate import data as module

    monkeypatch.setattr(module, "CHUNK_VALUES", 4 * cells.n_vars)
    dense, computed = cells.X[:80].toarray(), []
    values = dense if form == "dense" else cells.X[:80]
    chunks = list(module._row_blocks(Lazy(values, sizes, computed)))
    assert computed == list(range(len(sizes)))
    found = np.zeros_like(dense)
    for chunk in chunks:
        for i in range(len(chunk.indptr) - 1):
            span = slice(chunk.indptr[i], chunk.indptr[i + 1])
            found[chunk.start + i, chunk.indices[span]] = chunk.data[span]
    np.testing.assert_array_equal(found, dense)


def test_a_chunk_that_is_too_large_for_memory_is_computed_in_pieces(cells, monkeypatch):
    from cello1.annotate import data as module

    monkeypatch.setattr(module, "CHUNK_VALUES", 2 * cells.n_vars)
    monkeypatch.setattr(module, "LARGEST_CHUNK", 8 * cells.n_vars)
    computed = []
    list(module._row_blocks(Lazy(cells.X[:80].toarray(), (30, 50), computed)))
    assert computed == [0] * 4 + [1] * 7


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_a_backed_matrix_is_read_as_its_file_is(cells, form, tmp_path, monkeypatch):
    if form == "csc":
        cells.X = csc_matrix(cells.X)
    cells.write_h5ad(tmp_path / "in.h5ad")
    backed = anndata.read_h5ad(tmp_path / "in.h5ad", backed="r")
    sliced = []
    with open_data(backed) as data:
        monkeypatch.setattr(type(backed.X), "__getitem__", lambda self, rows: sliced.append(rows))
        chunks = [(c.start, c.indices.copy(), c.data.copy()) for c in data.chunks()]
    assert not sliced
    assert sum(len(numbers) for _, _, numbers in chunks) == cells.X.nnz
    backed.file.close()


def test_raw_is_read_where_x_has_only_some_of_its_genes(cells):
    cells.raw = cells.copy()
    some = cells[:, [g for g in cells.var_names if g.startswith("HK")]].copy()
    co.tl.annotate(some, **OPTIONS)
    assert labels(some) == TYPES
    assert some.uns["cello1"]["values"] == "raw.X (counts)"
    assert any(note.startswith("raw.X is read: it has 100 genes") for note in notes(some))


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_copy_is_written_and_nothing_else_changes(cells, kind, tmp_path):
    pytest.importorskip("zarr")
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    cells.layers["other"] = cells.X * 2
    cells.obsm["X_pca"] = np.zeros((cells.n_obs, 3))
    cells.uns["text"] = "kept"
    getattr(cells, f"write_{kind}")(source)
    annotate_file(source, out, **OPTIONS)
    read = getattr(anndata, f"read_{kind}")
    before, after = read(source), read(out)
    assert labels(after) == TYPES
    new = [f"cello1{end}" for end in ("", "_ontology_term_id", "_confidence", "_coarse", "_fine")]
    assert list(after.obs) == [*before.obs, *new]
    pd.testing.assert_frame_equal(after.obs[list(before.obs)], before.obs)
    assert (after.X != before.X).nnz == 0
    assert (after.layers["other"] != before.layers["other"]).nnz == 0
    assert after.uns["text"] == "kept"
    annotate_file(out, tmp_path / f"again.{kind}", **OPTIONS)
    assert list(read(tmp_path / f"again.{kind}").obs) == list(after.obs)


def test_a_zarr_store_becomes_no_h5ad(cells, tmp_path):
    with pytest.raises(UseError, match=r"ends in .zarr"):
        annotate_file(tmp_path / "in.zarr", tmp_path / "out.h5ad", **OPTIONS)
    with pytest.raises(UseError, match="the input itself"):
        annotate_file(tmp_path / "in.h5ad", tmp_path / "in.h5ad", **OPTIONS)


def test_labels_for_r(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    annotate_file(
        tmp_path / "in.h5ad", tmp_path / "out.h5ad", labels=tmp_path / "labels.csv", **OPTIONS
    )
    table = pd.read_csv(tmp_path / "labels.csv", index_col="barcode", dtype={"cluster": str})
    after = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert table.index.tolist() == after.obs_names.tolist()
    assert table["label"].tolist() == after.obs["cello1"].tolist()
    assert table["ontology_term_id"].str.startswith("CL:").all()
    np.testing.assert_allclose(table["confidence"], after.obs["cello1_confidence"], atol=1e-5)


def test_one_cluster_is_judged_by_its_own_level():
    cells = blood(["B cell"])
    co.tl.annotate(cells, **OPTIONS)
    assert labels(cells) == ["B cell"]


def test_three_hundred_clusters():
    cells = blood(TYPES * 75, donors=1, cells=3)
    co.tl.annotate(cells, **OPTIONS)
    assert (cells.obs["cello1"].astype(str) == cells.obs["cell_type"].astype(str)).mean() > 0.97


def test_a_cell_of_its_own_moves_nobody_else(cells):
    co.tl.annotate(cells, **OPTIONS)
    before = cells.obs["cello1"].astype(str)
    cells.obs["cluster"] = cells.obs["cluster"].cat.add_categories("alone")
    cells.obs.loc[cells.obs_names[0], "cluster"] = "alone"
    co.tl.annotate(cells, **OPTIONS)
    after = cells.obs["cello1"].astype(str)
    assert (before[1:] == after[1:]).all()


def test_no_seed_matters(cells):
    one = co.tl.annotate(cells, copy=True, seed=0, **OPTIONS)
    two = co.tl.annotate(cells, copy=True, seed=7, **OPTIONS)
    pd.testing.assert_frame_equal(one.obs, two.obs)


def test_mouse_is_asked_about_and_mapped_by_symbol(cells):
    cells.var_names = [name.capitalize() for name in cells.var_names]
    with pytest.raises(InputError, match="organism mouse"):
        co.tl.annotate(cells, **OPTIONS)
    co.tl.annotate(cells, organism="mouse", **OPTIONS)
    assert labels(cells) == TYPES
    assert any("of 100 have one" in note for note in notes(cells))
    cells.uns["organism"] = "Mus musculus"
    with pytest.raises(InputError, match=r"the data say Mus musculus.*--organism mouse"):
        co.tl.annotate(cells, **OPTIONS)
    cells.uns["organism"] = "Danio rerio"
    with pytest.raises(InputError, match="only human and mouse"):
        co.tl.annotate(cells, **OPTIONS)
    with pytest.raises(UseError, match="expected human or mouse"):
        co.tl.annotate(cells, organism="zebrafish", **OPTIONS)


def test_clusters_are_found_under_usual_names(cells):
    cells.obs["RNA_snn_res.0.8"] = cells.obs["cluster"]
    del cells.obs["cluster"]
    options = {k: v for k, v in OPTIONS.items() if k != "groupby"}
    co.tl.annotate(cells, **options)
    assert cells.uns["cello1"]["groupby"] == "RNA_snn_res.0.8"
    assert "clusters are those of obs column 'RNA_snn_res.0.8' (4)" in notes(cells)


def test_killed_while_writing_it_leaves_nothing_behind(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from cello1.annotate import files\n"
        "def stop(file, found):\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.read()\n"
        "files._add = stop\n"
        "files.annotate_file(Path('in.h5ad'), Path('out.h5ad'), groupby='cluster',\n"
        f"    candidates={TYPES!r}, solver='markers')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    assert not (tmp_path / "out.h5ad").exists()
    assert list(tmp_path.glob(".out.h5ad.*"))
    time.sleep(0.1)
    annotate_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", **OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]
