"""What a file is if it is not the expected .h5ad, and the command that converts it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from cello1.errors import InputError

_URL = re.compile(r"^(https?|ftp|s3|gs|hf|file):/{1,2}(?=\S)", re.IGNORECASE)
_PICKLE = "ask who made it for an .h5ad file (adata.write_h5ad)"
_R_OBJECTS = (b"X\n", b"RDX", b"A\n")
_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is gzipped", "gunzip -k {path}"),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd", "unzstd {path}"),
    (b"BZh", "is packed with bzip2", "bunzip2 -k {path}"),
    (b"\xfd7zXZ", "is packed with xz", "unxz -k {path}"),
    (b"PK\x03\x04", "is a zip archive", "unzip {path}"),
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS, not the file itself",
        "git lfs pull --include {path}",
    ),
    (b"PAR1", "is a Parquet table", "name the .h5ad file the cells are in"),
    (b"\x80\x04", "is a Python pickle, which may run code as it is read", _PICKLE),
    (b"\x80\x05", "is a Python pickle, which may run code as it is read", _PICKLE),
    (b"X\n", "is an R object", "anndataR::write_h5ad(readRDS('{path}'), '{stem}.h5ad')"),
    (b"RDX", "is an R object", "anndataR::write_h5ad(readRDS('{path}'), '{stem}.h5ad')"),
    (b"%%MatrixMarket", "is a matrix of 10x without its cells", "name its folder: {mtx}"),
)
_MTX = "sc.read_10x_mtx('{folder}').write_h5ad('{stem}.h5ad')"
_PAGE = re.compile(rb"^\s*<(!doctype|html|\?xml)", re.IGNORECASE)


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr store."""
    return path.is_dir() and any((path / name).exists() for name in (".zgroup", "zarr.json"))


def check_place(path: Path) -> None:
    """Refuse files that are neither HDF5 nor zarr, and say what they are.

    Raises
    ------
    InputError
        With what was found and the command that mends it.
    """
    if url := _URL.match(str(path)):
        # A Path has lost one of the two slashes.
        address = f"{url[1]}://{str(path)[url.end() :]}"
        if url[1].lower() == "file":
            raise InputError(
                f"{address} is an address; expected a path: name the file as "
                f"/{str(path)[url.end() :].lstrip('/')}"
            )
        name = Path(address).name.partition("?")[0]
        get = {"s3": f"aws s3 cp {address} .", "gs": f"gcloud storage cp {address} ."}
        raise InputError(
            f"{address} is an address; expected a file on this machine: download it first "
            f"({get.get(url[1].lower(), f'curl -L -o {name} {address}')})"
        )
    if path.is_dir():
        if not is_zarr(path):
            raise InputError(_folder(path))
        return
    if not path.exists():
        raise InputError(f"{path} does not exist; expected an .h5ad file")
    if not path.is_file():
        raise InputError(f"{path} is no plain file; expected an .h5ad file")


def check_bytes(path: Path) -> None:
    """Refuse a file that is not HDF5, identified by its first bytes.

    Raises
    ------
    InputError
        With what was found and the command that mends it.
    """
    with path.open("rb") as file:
        first = file.read(512)
    if first.startswith(b"\x89HDF"):
        return
    if first.startswith(b"\x1f\x8b") and (inside := _gzipped(first)).startswith(_R_OBJECTS):
        first = inside  # R packs its own files so, under names of their own
    if not first:
        raise InputError(f"{path} is empty; expected an .h5ad file: copy or download it again")
    for mark, what, mend in _FIRST_BYTES:
        if first.startswith(mark):
            command = mend.format(
                path=path, stem=_stem(path), mtx=_MTX.format(folder=path.parent, stem=_stem(path))
            )
            raise InputError(f"{path} {what}; expected an .h5ad file: {command}")
    if _PAGE.match(first):
        raise InputError(
            f"{path} is a web page (an error of the download?); expected an .h5ad file: download "
            "it again, with curl -L"
        )
    if _is_text(first):
        table = path.suffix in (".csv", ".tsv", ".txt")
        raise InputError(
            f"{path} is a text file and no HDF5 file; expected an .h5ad file: "
            + (
                f"ad.io.read_csv('{path}').write_h5ad('{_stem(path)}.h5ad') makes one of a table "
                "of cells x genes"
                if table
                else "copy or download it again"
            )
        )


def _gzipped(first: bytes) -> bytes:
    """Return the first bytes inside a gzipped file."""
    try:
        return zlib.decompressobj(31).decompress(first, 64)
    except zlib.error:
        return b""


def check_groups(file: Any, path: Path) -> None:
    """Refuse an HDF5 file or zarr store of another kind, identified by its content.

    Raises
    ------
    InputError
        With what was found and the command that mends it.
    """
    if "obs" in file and "var" in file and "mod" not in file:
        return
    found = next((told for told in (other(file, path) for other in _OTHERS) if told), None)
    inside = ", ".join(sorted(file)[:8]) or "nothing"
    raise InputError(
        found
        or f"{path} has no obs and var tables, as an .h5ad file has; it holds {inside}: open it "
        "with the program it is from and write it again as .h5ad"
    )


def is_tenx(file: Any) -> bool:
    """Return whether an HDF5 file is a matrix of Cell Ranger (versions 2 and 3 up)."""
    return any(
        isinstance(group, h5py.Group) and {"barcodes", "data", "indices", "indptr"} <= set(group)
        for group in file.values()
    )


def _tenx(file: Any, path: Path) -> str | None:
    return (
        f"{path} is a matrix of Cell Ranger (10x .h5), which names no donors and cell types; label "
        f"its cells (cello1 annotate {path} -o {_stem(path)}.h5ad), or make an .h5ad of it and add "
        f"them: sc.read_10x_h5('{path}').write_h5ad('{_stem(path)}.h5ad')"
        if is_tenx(file)
        else None
    )


def _loom(file: Any, path: Path) -> str | None:
    return (
        f"{path} is a loom file; expected .h5ad: "
        f"ad.io.read_loom('{path}').write_h5ad('{_stem(path)}.h5ad')"
        if {"matrix", "row_attrs", "col_attrs"} <= set(file)
        else None
    )


def _muon(file: Any, path: Path) -> str | None:
    if "mod" not in file:
        return None
    kinds = sorted(file["mod"])
    rna = next((kind for kind in kinds if kind in ("rna", "gex", "RNA")), (kinds or ["rna"])[0])
    return (
        f"{path} is a MuData file (.h5mu) of {', '.join(kinds)}; expected one AnnData: "
        f"muon.read('{path}/{rna}').write_h5ad('{_stem(path)}.h5ad')"
    )


def _seurat(file: Any, path: Path) -> str | None:
    return (
        f"{path} is an h5Seurat file; expected .h5ad: SeuratDisk::Convert('{path}', dest = 'h5ad')"
        if {"assays", "meta.data"} <= set(file)
        else None
    )


_OTHERS: tuple[Callable[[Any, Path], str | None], ...] = (_tenx, _loom, _muon, _seurat)


def _folder(path: Path) -> str:
    files = sorted(path.glob("*.h5ad"))
    if files:
        return f"{path} is a folder with {len(files)} .h5ad file(s); name the files: {path}/*.h5ad"
    if matrices := sorted(path.glob("*matrix.mtx*")):
        command = _MTX.format(folder=path, stem=path.resolve().name)
        # As GEO has them: one folder for all samples, each with a prefix.
        if prefix := matrices[0].name.partition("matrix.mtx")[0]:
            command = command.replace("')", f"', prefix='{prefix}')", 1)
        return f"{path} is a folder of 10x matrices; expected an .h5ad file: {command}"
    stores = sorted(p.name for p in path.glob("*.zarr"))
    inside = f" (it has {', '.join(stores[:3])})" if stores else ""
    return f"{path} is a folder, and no zarr store; expected an .h5ad file{inside}"


def _is_text(first: bytes) -> bool:
    try:
        text = first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 4:
            return False
        text = first[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n" for c in text)


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or "cells"
