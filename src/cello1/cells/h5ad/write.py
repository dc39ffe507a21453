"""Write .h5ad files in plain types, and check beforehand that they can be written."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from cello1.errors import InputError, brief
from cello1.runs import replacing

# Names that anndata keeps for itself in the tables obs and var.
RESERVED = ("_index", "__categories")
_PARTS = ("obsm", "varm", "obsp", "varp", "layers")


def can_write(adata: Any, path: Path | None = None, adds: Iterable[str] = ()) -> None:
    """Return whether an AnnData can be written as .h5ad, before hours of work are put into it.

    All tables and everything of `uns` are written to a file in memory. Of large arrays only the
    first row is, for their kind alone can be at fault.

    Parameters
    ----------
    adata
        Cells in memory or backed by a file; never changed.
    path
        Where the file will go. Nothing is left there.
    adds
        Names of the obs columns that will be added.

    Raises
    ------
    InputError
        When an element cannot be stored, a name is reserved, or nothing can be created at `path`.
    """
    for name in adds:
        _check_name(name, "the new obs column")
    tables = {"obs": adata.obs, "var": adata.var}
    if adata.raw is not None:
        tables["raw.var"] = adata.raw.var
    for where, table in tables.items():
        _check_table(table, where)
    tables = {where: plain_table(table) for where, table in tables.items()}
    with h5py.File("trial.h5ad", "w", driver="core", backing_store=False) as trial:
        for where, plain in tables.items():
            for name in plain.columns:
                _try(trial, plain[[name]].reset_index(drop=True), f"{where}[{name!r}]")
        for key, value in adata.uns.items():
            _try(trial, {str(key): value}, f"uns[{key!r}]")
        for part in _PARTS:
            for key, value in getattr(adata, part).items():
                _try(trial, _first_row(value), f"{part}[{key!r}]")
    if path is not None:
        can_create(path)


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


def _check_name(name: str, what: str) -> None:
    if name in RESERVED or "/" in name:
        raise InputError(
            f"{what} {name!r} cannot be stored in an .h5ad file "
            f"({'a slash parts groups there' if '/' in name else 'the name is reserved'}); "
            "choose another name"
        )


def _check_table(table: pd.DataFrame, where: str) -> None:
    doubled = table.columns[table.columns.duplicated()]
    if len(doubled):
        raise InputError(
            f"{where} has several columns named {doubled[0]!r}, which cannot be stored: "
            "rename or drop all but one"
        )
    for name in table.columns:
        if not isinstance(name, str):
            raise InputError(
                f"a column of {where} is named {brief(name)}, which is no text and cannot be "
                f"stored: rename it, or {where}.columns = {where}.columns.astype(str)"
            )
        if name != "_index" or not _are_same(table[name], table.index):
            _check_name(name, f"the {where} column")
    index_name = table.index.name
    if index_name in table.columns and not _are_same(table[index_name], table.index):
        raise InputError(
            f"the index of {where} is named {index_name!r} as a column is, with other values, "
            f"so it cannot be stored: adata.{where}.index.name = None"
        )


def _are_same(column: Any, index: pd.Index) -> bool:
    return np.array_equal(np.asarray(column, dtype=object), np.asarray(index, dtype=object))


def _try(trial: h5py.File, value: Any, where: str) -> None:
    from anndata.io import write_elem

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_elem(trial, "element", value)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(
            f"{where} cannot be stored in an .h5ad file ({first}); convert it to numbers or text, "
            "or drop it"
        ) from error
    finally:
        if "element" in trial:
            del trial["element"]


def _first_row(value: Any) -> Any:
    """Return the first row of an array or table; of anything else all of it."""
    if isinstance(value, pd.DataFrame):
        return plain_table(value.iloc[:1]).reset_index(drop=True)
    if isinstance(value, Mapping) or not getattr(value, "shape", ()):
        return value
    return value[:1]


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "errno = 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
