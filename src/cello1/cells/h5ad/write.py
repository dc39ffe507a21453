"""Write .h5ad files in types that every reader supports."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd

from cello1.errors import InputError
from cello1.runs import replacing

# Names that anndata keeps for itself in the tables obs and var.
RESERVED = ("_index", "__categories")
_PARTS = ("obsm", "varm", "obsp", "varp", "layers")


def can_create(path: Path) -> None:
    """Return whether a file can be created at `path`.

    Raises
    ------
    InputError
        When it is a folder, or nothing can be created beside it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file to write")
    try:
        home = next(p for p in path.absolute().parents if p.exists())
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise InputError(
            f"nothing can be written to {path.parent} ({error.strerror or error}); "
            "choose another place"
        ) from error


def write_h5ad(adata: Any, path: Path) -> None:
    """Write an AnnData in types all readers know; the file appears complete or not at all.

    Raises
    ------
    OSError
        With the name of the file, and how much space is left where that is the reason.
    """
    from anndata.io import write_elem

    plain = with_plain_tables(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, about what is plain already
        plain.strings_to_categoricals()
        with replacing(path) as temporary, writable(temporary, "w") as file:
            write_elem(file, "/", plain, dataset_kwargs={"compression": "gzip"})


@contextmanager
def writable(path: Path, mode: Literal["w", "r+"]) -> Iterator[h5py.File]:
    """Open an HDF5 file for writing.

    Raises
    ------
    OSError
        When it cannot be written, a full disk say, at the end.
    """
    with path.open("w+b" if mode == "w" else "r+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, mode) as file:
                yield file
        except Exception:
            # What was lost is missed where it is read back: the first error is the reason.
            if disk.error is None:
                raise
        if disk.error is not None:
            raise OSError(disk.error.errno, disk.error.strerror, str(path)) from disk.error


class _Disk:
    """A file for HDF5 that keeps the first error of writing and drops what comes after it.

    HDF5 cannot close a file that it cannot flush: it prints a traceback for every object, keeps
    the file open, and crashes the process later (h5py 3.16, HDF5 2.0).
    """

    def __init__(self, raw: FileIO) -> None:
        self.raw = raw
        self.error: OSError | None = None
        self.seek, self.tell = raw.seek, raw.tell
        self.read, self.readinto = raw.read, raw.readinto

    def write(self, data: bytes) -> int:
        """Write all of it, or nothing more."""
        rest = memoryview(data)
        try:
            while len(rest) and self.error is None:
                rest = rest[self.raw.write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        """Cut or extend the file, unless it is lost."""
        try:
            return self.raw.truncate(size) if self.error is None else size
        except OSError as error:
            self.error = error
            return size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return obs or var with text as objects and categories of text, as every reader knows them.

    pandas 3 holds text in a type of its own, which anndata 0.13 stores as groups of values and
    mask; older programs call such files damaged. A column `_index` that repeats the index, as
    SeuratDisk leaves one in `raw.var`, is dropped: anndata keeps that name for itself.
    """
    if "_index" in table.columns and _are_same(table["_index"], table.index):
        table = table.drop(columns="_index")
    columns = {name: plain_column(table[name]) for name in table.columns}
    index = pd.Index(table.index.astype(object), name=table.index.name, dtype=object)
    plain = pd.DataFrame(columns, index=table.index)
    plain.index = index
    return plain


def plain_column(values: pd.Series) -> pd.Series:
    """Return one column in a type that every reader of .h5ad knows."""
    kind = values.dtype
    if isinstance(kind, pd.CategoricalDtype):
        if not isinstance(kind.categories.dtype, pd.StringDtype):
            return values
        names = pd.Index(kind.categories.astype(object), dtype=object)
        plain: Any = pd.Categorical.from_codes(values.cat.codes, names, ordered=bool(kind.ordered))
        return pd.Series(plain, index=values.index, name=values.name)
    if not (isinstance(kind, pd.StringDtype) or kind.kind == "O"):
        return values
    missing = values.isna().to_numpy()
    texts = values.astype(object)
    if not missing.any():
        return pd.Series(np.asarray(texts, dtype=object), values.index, object, values.name)
    if all(isinstance(value, str) for value in texts[~missing]):
        # Text with gaps has one plain form: categories with the code -1.
        names = pd.Index(sorted(set(texts[~missing])), dtype=object)
        gaps: Any = pd.Categorical(texts.where(~missing, None), categories=names)
        return pd.Series(gaps, index=values.index, name=values.name)
    return values


def with_plain_tables(adata: Any) -> Any:
    """Return an AnnData that shares everything but its tables with the given one."""
    import anndata

    plain = anndata.AnnData(
        X=adata.X,
        obs=plain_table(adata.obs),
        var=plain_table(adata.var),
        **{part: dict(getattr(adata, part)) for part in _PARTS},
    )
    plain.uns = adata.uns
    if adata.raw is not None:
        plain.raw = anndata.AnnData(
            X=adata.raw.X,
            obs=plain.obs[[]],
            var=plain_table(adata.raw.var),
            varm=dict(adata.raw.varm),
        )
    for table in (plain.obs, plain.var):
        table.index = pd.Index(table.index.astype(object), name=table.index.name, dtype=object)
    return plain


def _are_same(column: Any, index: pd.Index) -> bool:
    return np.array_equal(np.asarray(column, dtype=object), np.asarray(index, dtype=object))
