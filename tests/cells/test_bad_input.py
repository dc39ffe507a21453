"""Bad files: one clear line each that says how to mend it, and the good file's puzzles stay."""

from __future__ import annotations

import re
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cello1.cells.build import build
from cello1.cells.make import make_puzzles
from cello1.errors import InputError
from cello1.puzzles.table import read_puzzles


def set_value(value):
    def spoil(adata):
        adata.X = adata.X.toarray()
        adata.X[5, 3] = value

    return spoil


def set_far_value(value):
    """Put the value where no sample of the matrix looks: only ranking the genes can meet it."""

    def spoil(adata):
        values = np.ones((20_000, 60), dtype=np.float32)
        values[10_100, 30] = value
        obs = pd.concat([adata.obs] * (20_000 // adata.n_obs + 1), ignore_index=True)[:20_000]
        obs.index = [f"c{i}" for i in range(20_000)]
        return ad.AnnData(values, obs, adata.var[:60])

    return spoil


def all_zero(adata):
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)


def few_genes(adata):
    x = adata.X.toarray() + 1
    x[:, 30:] = 0
    adata.X = x


def column(name, values):
    def spoil(adata):
        adata.obs[name] = values(adata) if callable(values) else values

    return spoil


def without(name):
    return lambda adata: adata.obs.drop(columns=name, inplace=True)


def type_codes(adata):
    return adata.obs["cell_type"].astype("category").cat.codes.to_numpy()


def rename(label):
    return column("cell_type", lambda adata: adata.obs["cell_type"].replace("B cell", label))


def many_labels(adata):
    n = 50_000
    obs = pd.DataFrame({"cell_type": [f"type {i}" for i in range(n)], "donor_id": "D0"})
    obs.index = obs.index.astype(str)
    return ad.AnnData(sp.csr_matrix(np.ones((n, 1), dtype=np.float32)), obs)


def duplicate_names(adata):
    adata.obs_names = ["twice", "twice", *adata.obs_names[2:]]


SPOILED = {
    "no donor column": (without("donor_id"), r"no obs column 'donor_id'.*has .*sex.*--donor-key"),
    "no cell types": (without("cell_type"), r"no obs column 'cell_type'.*has .*--cell-type-key"),
    "one type per donor": (
        column("donor_id", lambda adata: "donor of " + adata.obs["cell_type"].astype(str)),
        r"single cell type.*--donor-key",
    ),
    "NaN": (set_value(np.nan), r"X holds 1 NaN.*put them into X"),
    "NaN out of sight": (set_far_value(np.nan), r"X holds NaN.*row 10100 \(cell 'c10100'\).*mend"),
    "infinite": (set_value(np.inf), r"X holds 1 NaN or infinite.*put them into X"),
    "negative": (set_value(-1), r"X holds negative values.*put them into X"),
    "negative out of sight": (set_far_value(-2), r"X holds negative values in row 10100.*mend"),
    "all rows zero": (all_zero, r"X holds zeros only.*put them into X"),
    "30 expressed genes": (few_genes, r"no cell expresses 50 genes.*30.*--min-genes 30"),
    "types as integers": (column("cell_type", type_codes), r"'cell_type' holds numbers.*map them"),
    "types as integer categories": (
        column("cell_type", lambda adata: pd.Categorical(type_codes(adata))),
        r"'cell_type' holds numbers \(0, 1, .*map them to names",
    ),
    "types as digits": (column("cell_type", lambda a: type_codes(a).astype(str)), r"numbers.*map"),
    "label with |": (rename("B | plasma"), r"'B \| plasma' holds '\|'.*rename"),
    "label with newline": (rename("B\ncell"), r"'B\\ncell' holds '\\n'.*rename"),
    "label with tag": (rename("</answer>B cell"), r"holds '</answer>'.*rename"),
    "label with tag in capitals": (rename("B <THINK> cell"), r"holds '<THINK>'.*rename"),
    "50,000 labels": (
        many_labels,
        r"50,000 different values such as 'type 0'.*names of cell types",
    ),
    "duplicate obs names": (duplicate_names, r"such as 'twice'.*obs_names_make_unique"),
}


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_hdf5(path):
    path.write_text("barcode,gene,count\n" * 99)


def empty(path):
    path.write_bytes(b"")


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["matrix"] = np.eye(3)


def writer_killed(path):
    """What a program leaves that was killed while it wrote the file."""
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        file.create_group("var")
        shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def overwritten(name):
    """Zero the header of one object inside, as a bad disk or a bad copy does."""

    def spoil(path):
        with h5py.File(path) as file:
            address = h5py.h5o.get_info(file[name].id).addr
        with path.open("r+b") as file:
            file.seek(address)
            file.write(bytes(16))

    return spoil


BROKEN = {
    "truncated": (truncated, r"is truncated.*copy or download it again"),
    "not HDF5": (no_hdf5, r"no HDF5 file.*expected an \.h5ad.*again"),
    "empty": (empty, r"bad\.h5ad.*expected an \.h5ad.*again"),
    "other HDF5": (other_hdf5, r"no obs and var tables.*write it again"),
    "writer killed": (writer_killed, r"bad\.h5ad.*again"),
    **{
        f"damaged {name}": (overwritten(name), r"damaged|no obs and var tables.*write it again")
        for name in ("obs", "obs/cell_type", "obs/_index", "var/feature_name", "X", "X/data")
    },
}


def assert_clear(text, pattern):
    assert re.search(pattern, text), text
    assert "\n" not in text
    assert "unexpected" not in text
    assert len(text) < 600


@pytest.fixture(params=[*SPOILED, *BROKEN])
def bad(request, make_cells, save):
    """A bad file, and what must be said of it."""
    adata = make_cells()
    spoil, message = (SPOILED | BROKEN)[request.param]
    if request.param in SPOILED:
        adata = spoil(adata) or adata
    path = save(adata, "bad")
    if request.param in BROKEN:
        spoil(path)
    return path, message


def test_a_bad_file_fails_with_one_clear_line_and_the_good_one_is_kept(
    bad, make_cells, save, small, tmp_path
):
    path, message = bad
    good = save(make_cells(seed=1))
    built = build([path, good], tmp_path / "out", small(split="none"))
    first, second = built.reports
    assert (first.dataset, first.status, second.status) == ("bad", "failed", "built")
    assert_clear(first.message, message)
    assert not built.ok
    assert read_puzzles(tmp_path / "out" / "all.parquet") == make_puzzles(good, small())[0]


def test_a_bad_file_alone_raises_one_error(bad, small, tmp_path):
    path, message = bad
    with pytest.raises(InputError) as error:
        build([path], tmp_path / "out", small())
    assert_clear(str(error.value), message)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("signature", [b"SNOD", b"HEAP", b"TREE", b"GCOL"])
def test_no_damage_to_the_tables_inside_a_file_ends_in_another_error(
    make_cells, save, small, signature
):
    """HDF5 marks its inner tables by name; each one in turn is overwritten."""
    path = save(make_cells())
    whole, refused = path.read_bytes(), 0
    for spot in re.finditer(signature, whole):
        path.write_bytes(whole[: spot.start()] + b"\xff" * 8 + whole[spot.start() + 8 :])
        try:
            make_puzzles(path, small())
        except InputError:
            refused += 1
    assert refused > 0
