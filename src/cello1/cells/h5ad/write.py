"""Write .h5ad files in types that every reader supports."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
import traceback
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

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
    adata = with_plain_tables(adata)
    # h5py prints a traceback for every object that it cannot write as it lets go of it.
    with replacing(path) as temporary, redirect_stderr(StringIO()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of anndata, about what is plain already
                adata.write_h5ad(temporary, compression="gzip")
        except Exception as error:
            # h5py wraps the system's error in several of its own, and anndata in another.
            if not _is_full(error):
                raise
            _let_go(error)
            # Told with the name and what is free.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of an error and of those behind it hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


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


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "errno = 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
