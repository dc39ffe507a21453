"""What is no .h5ad is named for what it is; what would read other files is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from cello1.cells.build import build
from cello1.cells.doctor import examine
from cello1.cells.h5ad.elements import attribute, check_filters
from cello1.cells.h5ad.read import open_source
from cello1.errors import InputError


def told(path):
    with pytest.raises(InputError) as error, open_source(path):
        pass
    return str(error.value)


def as_zip(data):
    import io

    with zipfile.ZipFile(held := io.BytesIO(), "w") as archive:
        archive.writestr("cells.h5ad", data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "pack", "words"),
    [
        ("cells.h5ad.gz", gzip.compress, r"is gzipped.*gunzip -k .*cells\.h5ad\.gz"),
        ("cells.h5ad.bz2", bz2.compress, "is packed with bzip2.*bunzip2"),
        ("cells.h5ad", lzma.compress, "is packed with xz.*unxz"),
        ("cells.h5ad.zst", lambda d: b"\x28\xb5\x2f\xfd" + d, "packed with zstd.*unzstd"),
        ("cells.zip", as_zip, "is a zip archive.*unzip"),
        (
            "cells.h5ad",
            lambda d: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            r"pointer of Git LFS.*git lfs pull --include .*cells\.h5ad",
        ),
        ("cells.h5ad", lambda d: b"<!DOCTYPE html><html>404", "is a web page.*download it"),
        ("cells.h5ad", lambda d: b"", "is empty.*copy or download it again"),
        ("cells.csv", lambda d: b"gene,a,b\nCD3E,1,2\n", r"text file.*read_csv\('.*cells\.csv'\)"),
        ("cells.parquet", lambda d: b"PAR1" + d, "is a Parquet table"),
        ("x.rds", lambda d: gzip.compress(b"X\n\0\0\0\3" + d), r"R object.*readRDS\('.*x\.rds'\)"),
        ("x.RData", lambda d: gzip.compress(b"RDX3\nX\n" + d), "is an R object"),
        ("x.pkl", lambda d: b"\x80\x04\x95" + d, "is a Python pickle, which may run code"),
        ("x.h5ad", lambda d: b"\x1f\x8b" + d, "is gzipped"),
        ("cells.h5ad", lambda d: b"\x89PNG\r\n\x1a\n" + d, "damaged or no HDF5 file"),
    ],
)
def test_what_is_no_hdf5_is_named_with_its_mend(make_cells, save, tmp_path, name, pack, words):
    content = save(make_cells(donors=1), "plain").read_bytes()
    (tmp_path / name).write_bytes(pack(content))
    with pytest.raises(InputError, match=words), open_source(tmp_path / name):
        pass
    assert examine(tmp_path / name).problems  # and doctor says it, without a traceback
    with pytest.raises(InputError, match=words):
        build([tmp_path / name], tmp_path / "out")


def tenx(file):
    for part in ("data", "indices", "indptr", "shape", "barcodes", "features/name"):
        file[f"matrix/{part}"] = np.arange(3)


def tenx_2(file):
    for part in ("data", "indices", "indptr", "shape", "barcodes", "genes", "gene_names"):
        file[f"GRCh38/{part}"] = np.arange(3)


def loom(file):
    file["matrix"] = np.ones((2, 2))
    file["row_attrs/Gene"] = file["col_attrs/CellID"] = np.arange(2)


def muon(file):
    for kind in ("prot", "rna"):
        file.create_group(f"mod/{kind}/obs")
    file.create_group("obs")  # of all kinds together; var too
    file.create_group("var")


def seurat(file):
    file.create_group("assays/RNA")
    file.create_group("meta.data")


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (tenx, r"matrix of Cell Ranger.*sc\.read_10x_h5\('.*x\.h5'\)\.write_h5ad\('x\.h5ad'\)"),
        (tenx_2, "matrix of Cell Ranger"),
        (loom, r"loom file.*read_loom\("),
        (muon, r"MuData.*prot, rna.*muon\.read\('.*x\.h5/rna'\)"),
        (seurat, "h5Seurat.*Convert"),
        (lambda file: file.create_group("results"), "no obs and var tables.*it holds results"),
        (lambda file: None, "it holds nothing"),
    ],
)
def test_hdf5_of_other_programs_is_named_with_its_mend(tmp_path, fill, words):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        fill(file)
    with pytest.raises(InputError, match=words), open_source(tmp_path / "x.h5"):
        pass


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https:/example.org/a/x.h5ad", r"https://example\.org/a/x\.h5ad is an address.*curl -L"),
        ("s3:/bucket/x.h5ad", r"aws s3 cp s3://bucket/x\.h5ad"),
        (
            "file:/data/x.h5ad",
            r"file:///?data/x\.h5ad is an address.*name the file as /data/x\.h5ad",
        ),
        ("https:/example.org/x.h5ad?a=1", r"curl -L -o x\.h5ad https://example"),
        ("gs:/bucket/x.h5ad", r"gcloud storage cp gs://bucket/x\.h5ad"),
    ],
)
def test_an_address_is_to_be_downloaded_first(address, words, tmp_path):
    with pytest.raises(InputError, match=words):
        build([address], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_geo_is_named_with_its_prefix(tmp_path):
    (tmp_path / "GSM42_A_matrix.mtx.gz").touch()
    folder = re.escape(str(tmp_path))
    assert re.search(rf"read_10x_mtx\('{folder}', prefix='GSM42_A_'\)\.write", told(tmp_path))


def test_folders_are_named_for_what_is_in_them(make_cells, save, tmp_path):
    assert "is a folder, and no zarr store" in told(tmp_path)
    (tmp_path / "matrix.mtx.gz").touch()
    assert "read_10x_mtx" in told(tmp_path)
    save(make_cells(donors=1))
    assert "1 .h5ad file(s); name the files" in told(tmp_path)
    with pytest.raises(InputError, match="name the files"):
        build([tmp_path], tmp_path / "out")


def test_a_file_that_is_being_written_says_what_to_do(make_cells, save):
    path = save(make_cells(donors=1))
    code = f"import h5py; h = h5py.File({str(path)!r}, 'r+'); print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as holder:
        holder.stdout.readline()
        assert "HDF5_USE_FILE_LOCKING=FALSE" in (message := told(path))
        assert str(path) in message
        holder.communicate(b"\n")
    with open_source(path):
        pass


def test_a_filter_of_a_plugin_names_the_package(make_cells, save, monkeypatch):
    path = save(make_cells(donors=1))
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number != 1)
    monkeypatch.setattr("cello1.cells.h5ad.elements.filters", lambda node: [32015])
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file["X"].create_dataset("data", data=values, chunks=True)
        with pytest.raises(InputError, match=r"data of X.*zstd.*pip install hdf5plugin"):
            check_filters(file["X/data"], "data of X")


def external(file, folder):
    other = folder / "secret.h5"
    with h5py.File(other, "w") as secret:
        secret["x"] = np.ones(108)
    file["obs/odd"] = h5py.ExternalLink(str(other), "x")


def external_group(file, folder):
    del file["uns"]
    file["uns"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def to_a_fifo(file, folder):
    os.mkfifo(folder / "pipe")
    file["layers/odd"] = h5py.ExternalLink(str(folder / "pipe"), "x")


def soft_to_external(file, folder):
    file["hidden"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
    file["obs/odd"] = h5py.SoftLink("/hidden/x")


def raw_storage(file, folder):
    (folder / "secret").write_bytes(b"password" * 200)
    file["obs"].create_dataset(
        "odd", (108,), "S8", external=[(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file, folder):
    layout = h5py.VirtualLayout((108,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (108,))
    file["obs"].create_virtual_dataset("odd", layout)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (external, r"obs/odd is a link to .*secret\.h5"),
        (external_group, "uns is a link to"),
        (to_a_fifo, "layers/odd is a link to .*pipe"),
        (soft_to_external, "hidden is a link"),
        (raw_storage, "obs/odd is an array that lies in .*secret"),
        (virtual, "obs/odd is a virtual data set"),
    ],
)
def test_a_file_that_would_read_another_is_refused_by_name(
    make_cells, save, tmp_path, plant, words
):
    path = save(make_cells())
    with h5py.File(path, "r+") as file:
        plant(file, tmp_path)
    with pytest.raises(InputError, match=words), open_source(path):
        pass
    found = examine(path)
    assert found.report is None
    assert not found.columns


def test_links_inside_a_file_are_followed_and_circles_do_no_harm(make_cells, save, small, tmp_path):
    path = save(make_cells())
    with h5py.File(path, "r+") as file:
        file.move("X", "hidden")
        file["X"] = h5py.SoftLink("/hidden")
        file["uns/again"] = file["/"]
        file["uns/self"] = h5py.SoftLink("/uns/self")
    assert build([path], tmp_path / "out", small()).ok


HUGE = 5_000_000_000


def huge_indptr(file):
    del file["X/indptr"]
    file["X"].create_dataset("indptr", (HUGE,), "i8", chunks=(1 << 20,), compression="gzip")


def huge_everything(file):
    huge_indptr(file)
    file["X"].attrs["shape"] = (HUGE - 1, 200)
    del file["obs/_index"]
    file["obs"].create_dataset("_index", (HUGE - 1,), "S8", chunks=(1 << 20,), compression="gzip")


def huge_index(file):
    del file["var/_index"]
    del file["var/feature_name"]
    file["var"].attrs["column-order"] = np.array([], dtype="S1")
    file["var"].create_dataset("_index", (HUGE,), "S8", chunks=(1 << 20,), compression="gzip")
    file["X"].attrs["shape"] = (108, HUGE)


def huge_column(file):
    del file["obs/donor_id"]
    file["obs"].create_dataset("donor_id", (HUGE,), "S8", chunks=(1 << 20,), compression="gzip")


def huge_row(file):
    """One row of 3 billion values, none of them stored."""
    many = 3_000_000_000
    for part, kind in (("data", "f4"), ("indices", "i4")):
        del file[f"X/{part}"]
        file["X"].create_dataset(part, (many,), kind, chunks=(1 << 20,), compression="gzip")
    indptr = file["X/indptr"][:].astype("i8")
    indptr[5:] = many
    del file["X/indptr"]
    file["X/indptr"] = indptr


def huge_piece(file):
    del file["X"]
    file.create_dataset("X", (108, 200), "f4")
    del file["X"]
    file.create_dataset(
        "X", (108, 200), "f8", chunks=(1 << 14, 1 << 14), maxshape=(None, None), compression="gzip"
    )


def bomb(file):
    """A piece that says it holds 32 kB and unpacks to 512 MB."""
    del file["X/data"]
    n = int(file["X/indptr"][-1])
    data = file["X"].create_dataset("data", (n,), "f4", chunks=(8_192,), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    for start in range(0, n, 8_192):
        data.id.write_direct_chunk((start,), packed)


@pytest.mark.parametrize(
    "spoil",
    [huge_indptr, huge_everything, huge_index, huge_column, huge_row, huge_piece, bomb],
)
def test_sizes_in_a_file_are_not_believed(make_cells, save, tmp_path, spoil):
    """Told in one line, and hardly any memory is taken."""
    path = save(make_cells())
    with h5py.File(path, "r+", locking=False) as file:
        spoil(file)
    assert path.stat().st_size < 40 << 20
    code = (
        "import resource, sys\nfrom cello1.cells.doctor import examine\nfrom pathlib import Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = examine(Path(sys.argv[1]))\n"
        "assert found.report is None\nprint(found.problems[0])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=100, check=True
    ).stdout.splitlines()
    words = ("damaged", "claims to hold", "pieces", "rows for", "zeros only")
    assert any(word in said[0] for word in words), said
    assert int(said[1]) < 300_000  # kB; the bomb alone would take more


def test_attributes_of_any_shape_read_as_plain_values(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in {
            "text": "x", "bytes": np.bytes_("x"), "one": np.array(["x"], dtype=h5py.string_dtype()),
            "one of bytes": np.array([b"x"]), "number": np.int64(3), "numbers": np.array([3]),
        }.items():  # fmt: skip
            file.attrs[name] = value
        found = {name: attribute(file, name) for name in file.attrs}
    assert set(found.values()) == {"x", 3}


def test_memory_that_runs_out_is_told_with_advice(make_cells, save, monkeypatch):
    def full(*args):
        raise MemoryError

    monkeypatch.setattr("cello1.cells.h5ad.read.choose_matrix", full)
    assert "more memory than is free" in told(save(make_cells(donors=1)))
