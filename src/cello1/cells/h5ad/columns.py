"""The tables obs and var, in any encoding.

Encodings of anndata 0.6 (one compound array) to 0.13 (text as values and mask), and what writers
in R make of them. Text becomes an Arrow array: tables of genes have tens of thousands of names, of
which few are ever looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cello1.cells.h5ad.elements import attribute, is_array, load, names_in
from cello1.errors import InputError, brief

_OLD_CATEGORIES = "__categories"  # anndata 0.7


class Table:
    """One table of a stored AnnData; columns are read on demand.

    Parameters
    ----------
    node
        A group of columns, or a compound array.
    name
        ``obs``, ``var`` or ``raw.var``, for messages.
    root
        The file: categories of anndata 0.6 lie in its `uns`.

    Raises
    ------
    InputError
        When it has no index.
    """

    def __init__(self, node: Any, name: str, root: Any = None) -> None:
        self.node, self.name, self.root = node, name, root
        if is_array(node):
            fields = node.dtype.names or ()
            self.index_name = next((f for f in ("index", "_index") if f in fields), "")
            self.columns = [f for f in fields if f != self.index_name]
        else:
            self.index_name = str(attribute(node, "_index", "_index"))
            listed = names_in(node, "column-order")
            inside = [key for key in node if key not in (self.index_name, _OLD_CATEGORIES)]
            # The index is never a column, even where its name is that of one (`cell_type`).
            self.columns = inside if listed is None else [k for k in listed if k in node]
            self.columns = list(dict.fromkeys(self.columns))
        if not self.index_name or (not is_array(node) and self.index_name not in node):
            raise InputError(
                f"{name} has no index {self.index_name or 'index'!r} (it has "
                f"{brief(', '.join(self.columns))}); the file is damaged or of another program: "
                "write it again with anndata"
            )
        self._names = self._open_names()

    def __contains__(self, column: object) -> bool:
        """Return whether there is such a column; the index does not count."""
        return column in self.columns

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of rows."""
        shape = getattr(self._names, "shape", None)  # an array of zarr has no length
        return int(shape[0]) if shape else len(self._names)

    def names(self, where: Any = slice(None)) -> list[str]:
        """Read the names of some rows."""
        return _texts(self._stored_names(where))

    def hashes(self, where: slice) -> npt.NDArray[np.uint64]:
        """Return a hash of the name of each of some rows."""
        stored = self._stored_names(where)
        try:
            _decode(stored.tolist())  # so the bytes have the hash of their text
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            stored = np.array(_texts(stored), dtype=object)
        return np.asarray(pd.util.hash_array(stored, categorize=False), dtype=np.uint64)

    def index(self) -> pa.StringArray:
        """Read the names of all rows as Arrow text."""
        if isinstance(self._names, h5py.Dataset):
            return strings(self._names, f"the index of {self.name}")
        return pa.array(self.names(), pa.string())

    def column(self, name: str) -> Any:
        """Read one column as pandas or numpy would hold it, in any encoding.

        Raises
        ------
        InputError
            When it is in no encoding known.
        """
        what = f"column {name!r} of {self.name}"
        if is_array(self.node):
            return self._field(name)
        node = self.node[name]
        try:
            values = self._old_categorical(name, node)
            values = read_column(node, what) if values is None else values
        except (IndexError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise _unreadable(what, str(error)) from error
        if np.ndim(values) != 1 or len(values) != len(self):
            shape = " x ".join(map(str, np.shape(values))) or "no"
            raise _unreadable(what, f"it holds {shape} values for {len(self)} rows")
        return values

    def texts(self, name: str) -> pa.StringArray:
        """Read one column as stripped text; missing values are empty."""
        values = None if is_array(self.node) else _text_categories(self.node[name])
        if values is None and self._is_list_of_text(name):
            values = strings(self.node[name], f"column {name!r} of {self.name}")
        if values is None:
            stored = self.column(name)
            missing = pd.isna(stored).tolist()
            spelled = [None if no else str(v) for v, no in zip(stored, missing, strict=True)]
            values = pa.array(spelled, pa.string())
        return pc.fill_null(pc.utf8_trim_whitespace(values), "")

    def _is_list_of_text(self, name: str) -> bool:
        node = None if is_array(self.node) else self.node[name]
        return (
            isinstance(node, h5py.Dataset)
            and h5py.check_string_dtype(node.dtype) is not None
            and node.shape == (len(self),)
            and "categories" not in node.attrs
        )

    def _stored_names(self, where: Any) -> npt.NDArray[np.object_]:
        if isinstance(where, slice) and where == slice(None) and is_array(self._names):
            stored = _loaded(self._names, f"the index of {self.name}")
        else:
            stored = self._names[where]
        return np.asarray(stored, dtype=object).ravel()

    def _open_names(self) -> Any:
        """Return the names as something to slice, reading all of them only if necessary."""
        if is_array(self.node):
            return self.node.fields(self.index_name) if self.node.shape else []
        node = self.node[self.index_name]
        if is_array(node) and node.ndim == 1:
            return node
        if not hasattr(node, "dtype") and {"values", "mask"} <= set(node):
            return node["values"]
        values = read_column(node, f"the index of {self.name}")
        return np.asarray(values, dtype=object)

    def _field(self, name: str) -> Any:
        """Read a field of a compound table; anndata 0.6 kept the names of categories in `uns`."""
        stored = np.asarray(self.node.fields(name)[:])
        spelled = None if self.root is None else self.root.get(f"uns/{name}_categories")
        if spelled is not None and stored.dtype.kind in "iu" and spelled.shape:
            names = _plain(load(spelled, f"the categories of {name}"))
            return _from_codes(stored, names, f"column {name!r} of {self.name}")
        return _plain(stored)

    def _old_categorical(self, name: str, node: Any) -> pd.Categorical | None:
        """Read codes whose names are stored elsewhere: by reference, or by position (0.7)."""
        if not is_array(node):
            return None
        pointer = attribute(node, "categories")
        spelled: Any = None
        if isinstance(pointer, h5py.Reference):
            spelled = self.node.file[pointer]
        elif isinstance(pointer, str) and pointer in self.node:
            spelled = self.node[pointer]
        elif f"{_OLD_CATEGORIES}/{name}" in self.node and node.dtype.kind in "iu":
            spelled = self.node[f"{_OLD_CATEGORIES}/{name}"]
        if spelled is None:
            return None
        what = f"column {name!r} of {self.name}"
        names = _plain(load(spelled, f"the categories of {what}"))
        ordered = bool(attribute(spelled, "ordered", False))
        return _from_codes(load(node, what), names, what, ordered)


def read_column(node: Any, what: str) -> Any:
    """Read an array, categories, or values and mask.

    Raises
    ------
    InputError
        When it is nothing of these.
    """
    if is_array(node):
        values = _plain(_loaded(node, what))
        members = h5py.check_enum_dtype(node.dtype) if isinstance(node, h5py.Dataset) else None
        if members is None or values.dtype.kind == "b":
            return values
        spelled = {number: name for name, number in members.items()}
        return pd.Categorical([spelled.get(number) for number in values.tolist()], list(members))
    parts = set(node) if not hasattr(node, "dtype") else set()
    if {"codes", "categories"} <= parts:
        names = read_column(node["categories"], f"the categories of {what}")
        ordered = bool(attribute(node, "ordered", False))
        return _from_codes(load(node["codes"], what), names, what, ordered)
    if {"values", "mask"} <= parts:
        values = _plain(load(node["values"], what))
        mask = np.asarray(load(node["mask"], what), dtype=bool)
        if values.shape != mask.shape:
            raise _unreadable(what, f"it has {len(values)} values and a mask of {len(mask)}")
        if values.dtype.kind == "b":
            return pd.arrays.BooleanArray(values, mask)
        if values.dtype.kind in "iu":
            return pd.arrays.IntegerArray(values, mask)
        if values.dtype.kind == "f":
            return np.where(mask, np.nan, values)
        return np.where(mask, None, values)
    kind = attribute(node, "encoding-type") or f"a group of {', '.join(sorted(parts)) or 'nothing'}"
    raise _unreadable(what, f"it is stored as {kind}")


def strings(node: Any, what: str = "a list of names") -> pa.StringArray:
    """Read a list of names; other types become text, invalid UTF-8 is replaced."""
    stored = load(node, what).tolist()
    try:
        return _decode(stored)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
        return pa.array(_texts(stored), pa.string())


def _loaded(node: Any, what: str) -> Any:
    return load(node, what) if hasattr(node, "attrs") else np.asarray(node[:])


def _from_codes(stored: Any, names: Any, what: str, ordered: bool = False) -> pd.Categorical:
    codes = np.asarray(stored)
    if codes.dtype.kind not in "iu":
        codes = np.where(np.isnan(codes), -1, codes).astype(np.int64)
    codes = codes.astype(np.int64)
    if codes.size and (codes.max() >= len(names) or codes.min() < -1):
        odd = int(codes.max()) if codes.max() >= len(names) else int(codes.min())
        raise _unreadable(what, f"it has code {odd} for {len(names)} categories")
    index = pd.Index(np.asarray(names, dtype=object))
    if index.hasnans or not index.is_unique:
        # anndata refuses these; the cells are told apart by what they are called all the same.
        spelled: Any = np.array([*index, None], dtype=object)[codes]
        spelled[pd.isna(spelled)] = None
        return pd.Categorical(spelled)
    values: Any = names if isinstance(names, np.ndarray) and names.dtype.kind != "O" else index
    return pd.Categorical.from_codes(codes, values, ordered=ordered)


def _plain(values: Any) -> Any:
    """Turn stored text into objects; numbers stay as they are."""
    values = np.asarray(values) if not isinstance(values, pd.Categorical) else values
    if isinstance(values, pd.Categorical) or values.dtype.kind in "biufcmM":
        return values
    return np.array(_texts(values), dtype=object)


def _texts(values: Any) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]


def _unreadable(what: str, why: str) -> InputError:
    first = why.strip().split("\n")[0]
    return InputError(
        f"{what} cannot be read ({first}); the file is damaged or of another program: write it "
        "again with anndata"
    )


def _text_categories(node: Any) -> pa.StringArray | None:
    """Read categories of text, like the symbols of CELLxGENE, without going through pandas.

    None when the column is stored in another way, or is damaged.
    """
    if attribute(node, "encoding-type") != "categorical" or "categories" not in node:
        return None
    names = node["categories"]
    if attribute(names, "encoding-type") != "string-array" or not is_array(names):
        return None
    codes = load(node["codes"], "a column")
    try:
        spelled = _decode(load(names, "a column").tolist())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    if codes.max(initial=-1) >= len(spelled) or len(spelled.unique()) < len(spelled):
        return None
    return spelled.take(pa.array(codes, mask=codes < 0))


def _decode(stored: list[Any]) -> pa.StringArray:
    return pa.array(stored, pa.binary()).cast(pa.string())
