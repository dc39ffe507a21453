"""Files in and out for `cello1 annotate`."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from cello1.cells.h5ad.read import open_h5ad
from cello1.cells.loaded import obs_columns
from cello1.errors import InputError


def read_cells(path: Path) -> Any:
    """Read an .h5ad file into memory.

    Raises
    ------
    InputError
        When there is none, or it is damaged.
    """
    import anndata

    with open_h5ad(path):  # tells a damaged file in one line
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return anndata.read_h5ad(path)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} cannot be read ({first}); copy it again, or write it anew with anndata"
        ) from error


def read_reference(path: Path, key: str) -> Any:
    """Read the cell types of a reference, without its matrix.

    Raises
    ------
    InputError
        When it has no such column.
    """
    import anndata

    with open_h5ad(path):
        pass
    obs = anndata.read_h5ad(path, backed="r").obs
    if key not in obs:
        raise InputError(f"{path} has no obs column {key!r}{obs_columns(obs)}; name another")
    return obs[key]


def write_cells(adata: Any, path: Path) -> None:
    """Write an .h5ad file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        adata.write_h5ad(temporary, compression="gzip")
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
