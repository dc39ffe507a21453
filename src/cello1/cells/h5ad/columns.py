"""Columns of the tables obs and var, in whatever encoding they were written.

Text becomes an Arrow array: tables of genes have tens of thousands of names, of which few are
ever looked at.
"""

from __future__ import annotations

import warnings
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cello1.errors import InputError


def column(table: h5py.Group, name: str) -> Any:
    """Read one column of obs or var as pandas or numpy holds it, whatever its encoding."""
    from anndata.io import read_elem

    node = table[name]
    names = node.attrs.get("categories")
    if isinstance(names, h5py.Reference):  # anndata < 0.8: codes with a reference to names
        spelled = np.array([*strings(table[names]).to_pylist(), None], dtype=object)
        return pd.Categorical(spelled[node[:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old encodings warn; we only read
        try:
            return read_elem(node)
        except (OSError, KeyError):
            raise  # of the file itself; told where it was opened
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            raise InputError(
                f"column {name!r} of {table.name.strip('/')} cannot be read ({first}); the file is "
                "damaged or of another program: write it again with anndata"
            ) from error


def texts(table: h5py.Group, name: str) -> pa.StringArray:
    """Read one column as text without blanks around it; what is missing is empty."""
    values = _text_categories(table[name])
    if values is None:
        stored = column(table, name)
        missing = pd.isna(stored).tolist()
        spelled = [None if no else str(v) for v, no in zip(stored, missing, strict=True)]
        values = pa.array(spelled, pa.string())
    return pc.fill_null(pc.utf8_trim_whitespace(values), "")


def _text_categories(node: Any) -> pa.StringArray | None:
    """Read categories of text, as CELLxGENE has its symbols, without a detour over pandas.

    None when the column is stored in another way, or is damaged.
    """
    names = node["categories"] if node.attrs.get("encoding-type") == "categorical" else None
    if names is None or names.attrs.get("encoding-type") != "string-array":
        return None
    codes = node["codes"][:]
    try:
        spelled = _decode(names[:].tolist())
    except pa.ArrowInvalid:
        return None
    if codes.max(initial=-1) >= len(spelled) or len(spelled.unique()) < len(spelled):
        return None
    return spelled.take(pa.array(codes, mask=codes < 0))


def strings(node: h5py.Dataset) -> pa.StringArray:
    """Read a list of names; what is no text is spelled out, what is no UTF-8 is replaced."""
    stored = node[:].tolist()
    try:
        return _decode(stored)
    except (pa.ArrowInvalid, TypeError):
        spelled = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in stored]
        return pa.array(spelled, pa.string())


def _decode(stored: list[bytes]) -> pa.StringArray:
    return pa.array(stored, pa.binary()).cast(pa.string())
