"""The matrices of Cell Ranger (10x ``.h5``): what is in one, and the same cells as an .h5ad file.

They hold cells x features and nothing else: no donors, types or clusters. Version 2 has a group for
each genome, version 3 and later one group ``matrix`` with the kinds of its features.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from cello1.cells.h5ad.elements import is_array, load, refuse_outside
from cello1.cells.h5ad.kinds import check_bytes, check_place
from cello1.cells.h5ad.write import writable
from cello1.errors import InputError

GENES = "Gene Expression"
# A droplet with fewer genes holds no cell; the raw matrix is mostly of them.
_EMPTY_GENES, _USUAL_GENES, _MOST_EMPTY = 10, 1_000, 0.5


@dataclass(frozen=True)
class TenX:
    """What a matrix of Cell Ranger holds.

    Attributes
    ----------
    n_cells, n_features
        Its size.
    kinds
        Kind of feature, such as ``Gene Expression`` -> how many there are.
    """

    n_cells: int
    n_features: int
    kinds: dict[str, int]


def is_tenx(path: Path) -> bool:
    """Return whether a path is a matrix of Cell Ranger; what cannot be read is none."""
    if not path.is_file():
        return False
    with suppress(OSError, RuntimeError, KeyError), h5py.File(path, "r") as file:
        return "obs" not in file and bool(_groups(file))
    return False


def look_at_tenx(path: Path) -> TenX:
    """Say what a matrix holds, without reading its values.

    Raises
    ------
    InputError
        When it is damaged, of several genomes, or mostly of empty droplets.
    """
    with _Opened(path) as opened:
        kinds = Counter(opened.features()["feature_types"])
        return TenX(*opened.shape, dict(kinds.most_common()))


def write_as_h5ad(path: Path, out: Path) -> None:
    """Write the cells of a matrix as an .h5ad file; values are copied as they are stored.

    Parameters
    ----------
    path
        The matrix.
    out
        The file; it is there and may be empty, and is replaced.

    Raises
    ------
    InputError
        When the matrix is damaged, of several genomes, or mostly of empty droplets.
    """
    from anndata.io import write_elem

    with _Opened(path) as opened, writable(out, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        barcodes = pd.Index(opened.texts("barcodes"), dtype=object)
        write_elem(file, "obs", pd.DataFrame(index=barcodes))
        write_elem(file, "var", opened.features())
        x = file.create_group("X")
        x.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": opened.shape}
        )
        # Features x cells by columns is cells x features by rows.
        for name in ("data", "indices", "indptr"):
            opened.group.copy(name, x)
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            write_elem(file, name, {})


class _Opened:
    """An open matrix, seen to be whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_place(path)
        check_bytes(path)

    def __enter__(self) -> _Opened:
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            raise self._damaged(str(error).split("(")[-1].rstrip(")")) from error
        try:
            refuse_outside(self.file, self.path)
            self._check()
        except (OSError, KeyError, RuntimeError) as error:
            self.file.close()
            raise self._damaged(str(error)) from error
        except InputError:
            self.file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"{self.path} is a damaged matrix of Cell Ranger ({reason}); copy or download it again"
        )

    def _check(self) -> None:
        groups = _groups(self.file)
        if len(groups) != 1:
            raise InputError(
                f"{self.path} holds matrices of {len(groups)} genomes ({', '.join(groups)}); "
                f"expected one: sc.read_10x_h5('{self.path}', genome='{groups[0]}')"
                f".write_h5ad('{groups[0]}.h5ad') makes an .h5ad file of one"
            )
        self.group = self.file[groups[0]]
        sizes = load(self.group["shape"], "shape").ravel().tolist()
        if len(sizes) != 2:
            raise self._damaged(f"its shape is {sizes}")
        features, cells = (int(size) for size in sizes)
        self.shape = (cells, features)
        stored = {name: len(self.group[name]) for name in ("data", "indices", "indptr", "barcodes")}
        if stored["indptr"] != cells + 1 or stored["barcodes"] != cells:
            raise self._damaged(
                f"{stored['barcodes']} barcodes and {stored['indptr']} pointers for {cells} cells"
            )
        if stored["data"] != stored["indices"]:
            raise self._damaged(f"{stored['indices']} indices for {stored['data']} values")
        empty = int((np.diff(load(self.group["indptr"], "indptr")) < _EMPTY_GENES).sum())
        if features >= _USUAL_GENES and empty > _MOST_EMPTY * cells:
            raise InputError(
                f"{self.path} is a raw matrix: {empty:,} of {cells:,} barcodes have fewer than "
                f"{_EMPTY_GENES} genes, so they are empty droplets; expected the filtered one, "
                "filtered_feature_bc_matrix.h5"
            )

    def texts(self, name: str, where: Any = None) -> list[str]:
        """Return a column of texts."""
        node = (self.group if where is None else where)[name]
        return [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
            for v in load(node, name).tolist()
        ]

    def features(self) -> pd.DataFrame:
        """Return the features as scanpy names their columns; the index is the symbols."""
        if "features" in self.group:  # version 3 and later
            of = self.group["features"]
            places = {"gene_ids": "id", "feature_types": "feature_type", "genome": "genome"}
            columns = {c: self.texts(n, of) for c, n in places.items() if n in of}
            names = self.texts("name", of)
        else:
            columns = {"gene_ids": self.texts("genes")}
            names = self.texts("gene_names" if "gene_names" in self.group else "genes")
        columns.setdefault("feature_types", [GENES] * len(names))
        lengths = {len(names), *map(len, columns.values())}
        if lengths != {self.shape[1]}:
            raise self._damaged(f"{sorted(lengths)} names for {self.shape[1]} features")
        return pd.DataFrame(
            {name: np.array(values, dtype=object) for name, values in columns.items()},
            index=pd.Index(names, dtype=object),
        )


def _groups(file: h5py.File) -> list[str]:
    """Return the names of the groups that are matrices of Cell Ranger."""
    parts = ("barcodes", "data", "indices", "indptr", "shape")
    return [
        name
        for name, group in sorted(file.items())
        if isinstance(group, h5py.Group) and all(p in group and is_array(group[p]) for p in parts)
    ]
