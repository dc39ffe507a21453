"""Every way in which anndata 0.6 to 0.13 and writers in R store a file reads as the same cells."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from cello1.cells.build import build
from cello1.cells.doctor import examine
from cello1.cells.h5ad.read import open_source, open_table
from cello1.errors import InputError
from cello1.puzzles.table import read_puzzles

TEXT = h5py.string_dtype()
# The current anndata cannot read these itself, or reads codes in place of names.
OURS_ALONE = {
    "compound tables", "codes by place", "old sparse", "duplicates", "index attribute",
    "shape as a row",
}  # fmt: skip


def mark(node, kind, version="0.2.0"):
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version


def masked(group, name, values, mask, kind):
    """Replace an array by a group of values and mask."""
    if name in group:
        del group[name]
    node = group.create_group(name)
    mark(node, kind, "0.1.0")
    text = kind == "nullable-string-array"
    node.create_dataset("values", data=values, dtype=TEXT if text else None)
    mark(node["values"], "string-array" if text else "array")
    node["mask"] = np.asarray(mask, dtype=bool)
    mark(node["mask"], "array")


def plain(file):
    pass


def shape_as_row(file):
    """As R has it: a matrix of one row, of numbers that need not be whole by their type."""
    if isinstance(file["X"], h5py.Group):
        file["X"].attrs["shape"] = np.array([file["X"].attrs["shape"]], dtype=np.float64)


def anndata_013(file):
    """Index, columns and categories of text as pandas 3 has them."""
    for table in (file["obs"], file["var"]):
        for name in list(table):
            node = table[name]
            if isinstance(node, h5py.Dataset) and node.dtype == TEXT:
                masked(table, name, node[:], np.zeros(len(node)), "nullable-string-array")
            elif isinstance(node, h5py.Group) and "categories" in node:
                names = node["categories"][:]
                if names.dtype == object:
                    masked(node, "categories", names, np.zeros(len(names)), "nullable-string-array")


def gaps(file):
    """Numbers, truth and text of which some is missing."""
    obs, n = file["obs"], len(file["obs/_index"])
    mask = np.arange(n) % 5 == 0
    masked(obs, "number", np.arange(n), mask, "nullable-integer")
    masked(obs, "truth", mask, ~mask, "nullable-boolean")
    masked(obs, "note", [f"n{i % 3}" for i in range(n)], mask, "nullable-string-array")
    obs.attrs["column-order"] = [*obs.attrs["column-order"], "number", "truth", "note"]
    obs.attrs["column-order"] = list(dict.fromkeys(obs.attrs["column-order"]))


def _old_codes(file, link):
    """Codes whose names lie in a group of their own, as anndata 0.7 wrote them."""
    for table in (file["obs"], file["var"]):
        mark(table, "dataframe", "0.1.0")
        for name in list(table):
            if name == "__categories" or not isinstance(table[name], h5py.Group):
                continue
            codes, names = table[f"{name}/codes"][:], table[f"{name}/categories"][:]
            del table[name]
            spelled = table.require_group("__categories").create_dataset(
                name, data=names, dtype=TEXT if names.dtype == object else None
            )
            spelled.attrs["ordered"] = np.bool_(False)
            table[name] = codes
            if link:
                table[name].attrs["categories"] = spelled.ref


def anndata_07(file):
    _old_codes(file, link=True)


def codes_by_place(file):
    _old_codes(file, link=False)


def compound_tables(file):
    """One array of records each, as until anndata 0.6; names of categories lie in uns."""
    for name in ("obs", "var"):
        table, fields = file[name], {}
        for key in [table.attrs["_index"], *table.attrs["column-order"]]:
            node = table[key]
            if isinstance(node, h5py.Group):
                file[f"uns/{key}_categories"] = node["categories"][:]
                fields[key] = node["codes"][:]
            elif node.dtype == TEXT:
                fields[key] = node.asstr()[:].astype("S40")
            else:
                fields[key] = node[:]
        records = np.rec.fromarrays(list(fields.values()), names=["index", *list(fields)[1:]])
        del file[name]
        file[name] = np.asarray(records)


def old_sparse(file):
    compound_tables(file)
    x = file["X"]
    for name in list(x.attrs):
        del x.attrs[name]
    x.attrs["h5sparse_format"], x.attrs["h5sparse_shape"] = "csr", (len(file["obs"]), 200)


def _every_attribute(file, change):
    def visit(_, node):
        for name, value in list(node.attrs.items()):
            if isinstance(value, str):
                node.attrs[name] = change(value)

    file.visititems(visit)


def as_bytes(file):
    _every_attribute(file, lambda text: np.bytes_(text))


def index_attribute(file):
    for name in ("obs", "var"):
        file[name].attrs["_index"] = np.array([file[name].attrs["_index"]], dtype=TEXT)


def fixed_length(file):
    """Text of a fixed length, as rhdf5 writes it."""
    for table in (file["obs"], file["var"]):
        for name in list(table):
            node = table[name]
            if isinstance(node, h5py.Dataset) and node.dtype == TEXT:
                values, kept = np.array(node.asstr()[:], dtype="S"), dict(node.attrs)
                del table[name]
                table[name] = values
                table[name].attrs.update(kept)


def no_x(file):
    file["layers/counts"] = file["X"]
    del file["X"]
    file["X"] = h5py.Empty("f4")
    mark(file["X"], "null", "0.1.0")


def duplicates(file):
    obs = file["obs"]
    obs.attrs["column-order"] = [*obs.attrs["column-order"], "tissue", "tissue"]


def seurat_disk(file):
    """`raw.var` has its index and, once more, a column of the name that anndata reserves."""
    file.copy("X", file.require_group("raw"), "X")
    file.copy("var", file["raw"], "var")
    var = file["raw/var"]
    var.move(var.attrs["_index"], "features")
    var.attrs["_index"] = "features"
    var["_index"] = var["features"][:]
    mark(var["_index"], "string-array")
    var.attrs["column-order"] = ["_index", *var.attrs["column-order"]]


def index_is_named(file):
    """The index has the name of a column that matters, but is none."""
    obs = file["obs"]
    obs.move(obs.attrs["_index"], "batch")
    obs.attrs["_index"] = "batch"


ENCODINGS: dict[str, Callable[[h5py.File], None]] = {
    "plain": plain,
    "0.13": anndata_013,
    "gaps": gaps,
    "0.7": anndata_07,
    "codes by place": codes_by_place,
    "compound tables": compound_tables,
    "old sparse": old_sparse,
    "attributes as bytes": as_bytes,
    "shape as a row": shape_as_row,
    "index attribute": index_attribute,
    "fixed length": fixed_length,
    "no X": no_x,
    "duplicates": duplicates,
    "SeuratDisk": seurat_disk,
    "index is named": index_is_named,
}


def cells(make_cells):
    adata = make_cells()
    for name in ("donor_id", "cell_type", "tissue"):
        adata.obs[name] = adata.obs[name].astype("category")
    adata.obs["disease"] = adata.obs["disease"].astype(object)
    adata.obs["score"] = np.linspace(0, 1, adata.n_obs)
    adata.obs["number"] = np.arange(adata.n_obs)
    adata.obs["depth"] = pd.Categorical(np.arange(adata.n_obs) % 3, ordered=True)
    return adata


def listed(values):
    return [None if pd.isna(v) else v for v in np.asarray(values, dtype=object).tolist()]


@pytest.fixture(params=sorted(ENCODINGS))
def encoded(request, make_cells, save):
    path = save(cells(make_cells), "cells")
    with h5py.File(path, "r+") as file:
        ENCODINGS[request.param](file)
    return request.param, path


def test_every_encoding_gives_the_same_puzzles_and_values(encoded, make_cells, save, small):
    kind, path = encoded
    reference = cells(make_cells)
    assert build([path], path.parent / "new", small(split="none")).ok
    build([save(reference, "cells")], path.parent / "ref", small(split="none"))  # over the other
    made = [read_puzzles(path.parent / where / "all.parquet") for where in ("new", "ref")]
    assert [(p.cells, p.answer, p.context) for p in made[0]] == [
        (p.cells, p.answer, p.context) for p in made[1]
    ]
    ids = [p.meta["cell_ids"] for p in made[0]]
    assert ids == [p.meta["cell_ids"] for p in made[1]]
    assert kind  # named in the report of a failure


def test_values_are_those_that_were_stored_and_that_anndata_reads(encoded, make_cells):
    kind, path = encoded
    stored = cells(make_cells).obs
    theirs = None if kind in OURS_ALONE else ad.read_h5ad(path).obs
    with open_source(path) as source:
        assert source.obs.names() == stored.index.tolist()
        assert source.obs.names(np.array([1, 3])) == stored.index[[1, 3]].tolist()
        assert set(stored) <= set(source.obs)
        for name in source.obs:
            values = listed(source.obs.column(name))
            if name in stored and not (kind == "gaps" and name == "number"):
                assert values == listed(stored[name]), name
            if theirs is not None:
                assert values == listed(theirs[name]), name
        assert len(source.symbols) == 200
        assert source.symbols.to_pylist()[:2] == ["ZNF0", "ZNF1"]


def test_doctor_finds_no_fault_with_any(encoded, small):
    _, path = encoded
    found = examine(path, small())
    assert found.problems == []
    assert found.report.puzzles
    assert found.donors == {f"D{d}": (27, 9) for d in range(4)}


def test_what_the_installed_anndata_writes_is_read(make_cells, tmp_path, small):
    """From 0.13 on with pandas 3 that is text as values and mask, by default."""
    adata = cells(make_cells)
    adata.write_h5ad(tmp_path / "new.h5ad")
    theirs = ad.read_h5ad(tmp_path / "new.h5ad")
    with open_source(tmp_path / "new.h5ad") as source:
        assert source.obs.names() == theirs.obs_names.tolist()
        for name in theirs.obs:
            assert listed(source.obs.column(name)) == listed(theirs.obs[name]), name
    assert examine(tmp_path / "new.h5ad", small()).problems == []


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_folders_give_the_puzzles_of_the_same_cells(
    make_cells, save, small, tmp_path, version
):
    pytest.importorskip("zarr")
    adata = cells(make_cells)
    adata.X = adata.X.toarray() if version == 2 else adata.X
    before = ad.settings.zarr_write_format
    ad.settings.zarr_write_format = version
    try:
        adata.write_zarr(tmp_path / "store" / "good.zarr")
    finally:
        ad.settings.zarr_write_format = before
    made = {}
    for path in (tmp_path / "store" / "good.zarr", save(adata)):
        assert examine(path, small()).problems == []
        build([path], tmp_path / path.suffix, small(split="none"))
        made[path.suffix] = read_puzzles(tmp_path / path.suffix / "all.parquet")
    assert made[".zarr"] == made[".h5ad"]


@pytest.mark.parametrize("name", ["inside.h5ad", "/etc/hostname", "fifo"])
def test_a_zarr_folder_with_links_or_pipes_is_refused(make_cells, tmp_path, name):
    import os

    cells(make_cells).write_zarr(tmp_path / "z.zarr")
    place = tmp_path / "z.zarr" / "X" / "data" / "odd"
    if name == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(name)
    with pytest.raises(InputError, match=r"odd is no plain file"), open_source(tmp_path / "z.zarr"):
        pass


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda obs: obs.create_dataset("odd", data=np.ones((108, 2))), "108 x 2 values"),
        (lambda obs: obs.create_dataset("odd", data=np.ones(7)), "7 values for 108 rows"),
        (lambda obs: obs.create_group("odd"), "a group of nothing"),
        (lambda obs: mark(obs.create_group("odd"), "awkward-array"), "stored as awkward-array"),
        (lambda obs: obs.__delitem__("tissue/codes"), "stored as categorical"),
        (lambda obs: obs["tissue/codes"].write_direct(np.full(108, 9, "i1")), "code 9"),
    ],
)
def test_a_column_that_is_none_is_told_by_name(make_cells, save, spoil, told):
    path = save(cells(make_cells))
    with h5py.File(path, "r+") as file:
        spoil(file["obs"])
        file["obs"].attrs["column-order"] = [*file["obs"].attrs["column-order"], "odd"]
    name = "tissue" if "code" in told or "categorical" in told else "odd"
    with h5py.File(path) as file, pytest.raises(InputError, match=f"{name}.*{told}"):
        open_table(file, "obs").column(name)
