"""Open an .h5ad file: which matrix holds the expression, which names the genes have.

Only what is needed is read. Everything that cannot be used raises one `InputError` that says
what was found, what was expected and how to mend it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cello1.cells.h5ad.columns import strings, texts
from cello1.cells.h5ad.matrix import Matrix, open_matrix, sample_values
from cello1.errors import InputError

SYMBOL_COLUMNS = (
    "feature_name", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "symbol",
    "Symbol", "hgnc_symbol", "gene_short_name", "features",
)  # fmt: skip
COUNT_LAYERS = ("counts", "raw_counts", "count", "raw")
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(?:\.\d+)?$")
Values = Literal["counts", "normalised"]


@dataclass(frozen=True)
class Source:
    """An open file of cells.

    Attributes
    ----------
    path, dataset
        The file, and the name its puzzles carry (the file's stem).
    file
        The open HDF5 file.
    n_cells
        Number of observations.
    matrix, values
        The chosen matrix, and whether it holds raw counts or normalised values.
    symbols, symbols_from
        One symbol per column, and where they were found.
    """

    path: Path
    dataset: str
    file: h5py.File
    n_cells: int
    matrix: Matrix
    values: Values
    symbols: pa.StringArray
    symbols_from: str


@contextmanager
def open_source(path: Path, layer: str | None = None) -> Iterator[Source]:
    """Open a file and find its expression values and gene symbols.

    Parameters
    ----------
    path
        An .h5ad file.
    layer
        ``X``, ``raw.X`` or the name of a layer; by default the first matrix of raw counts, else
        the first without negative values.

    Raises
    ------
    InputError
        When the file is no readable .h5ad or has no usable matrix or symbols.
    """
    with open_h5ad(path) as file:
        names = obs_names_node(file)
        matrix, values = choose_matrix(file, layer)
        if matrix.shape[0] != len(names):
            raise InputError(
                f"{matrix.name} has {matrix.shape[0]} rows for {len(names)} cells; file is damaged"
            )
        symbols, origin = find_symbols(file, matrix)
        yield Source(path, path.stem, file, len(names), matrix, values, symbols, origin)


@contextmanager
def open_h5ad(path: Path) -> Iterator[h5py.File]:
    """Open an .h5ad file for reading; damage found now or later becomes one `InputError`."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; expected an .h5ad file")
    try:
        with h5py.File(path, "r") as file:
            if not all(isinstance(file.get(name), h5py.Group) for name in ("obs", "var")):
                raise InputError(
                    f"{path} is HDF5 but has no obs and var tables as anndata >= 0.7 writes them; "
                    "open it with anndata.read_h5ad and write it again"
                )
            yield file
    except OSError as error:
        if error.errno is not None:  # of the operating system (a full disk, say), not of HDF5
            raise
        reason = str(error).split("(")[-1].rstrip(")")
        kind = "truncated" if "truncated" in reason else "damaged or no HDF5 file"
        raise InputError(
            f"{path} is {kind} ({reason}); expected an .h5ad file: copy or download it again"
        ) from error
    except (KeyError, RuntimeError) as error:
        # h5py's words for a node that cannot be opened or listed
        if not any(words in str(error) for words in ("Unable to", "Can't", "iteration failed")):
            raise
        raise InputError(
            f"{path} is damaged ({str(error).strip(chr(39))}); copy or download it again"
        ) from error


def obs_names_node(file: h5py.File) -> h5py.Dataset:
    """Return the stored names of the observations."""
    return _index(file["obs"], "obs")


def choose_matrix(file: h5py.File, layer: str | None) -> tuple[Matrix, Values]:
    """Find the matrix to rank genes by, looking at its values, not at its name."""
    nodes = _matrices(file)
    if layer is not None:
        if layer not in nodes:
            raise InputError(f"no matrix {layer!r} in the file; it has {', '.join(nodes)}")
        nodes = {layer: nodes[layer]}
    found = {}
    for name, node in nodes.items():
        try:
            matrix = open_matrix(name, node)
        except InputError:
            if name in (layer, "X"):
                raise
            continue  # a layer of something else, such as a mask
        kind = look_at(sample_values(matrix))
        if kind == "counts":
            return matrix, "counts"
        found[name] = (matrix, kind)
    for matrix, kind in found.values():
        if kind == "normalised":
            return matrix, "normalised"
    what = "; ".join(f"{name} {kind}" for name, (_, kind) in found.items())
    raise InputError(
        f"no usable expression values: {what or 'the file has no matrix'}. Expected counts or "
        "log-normalised values: put them into X, raw.X or layers['counts']"
    )


def find_symbols(file: h5py.File, matrix: Matrix) -> tuple[pa.StringArray, str]:
    """Return a symbol for every column of the matrix, and where it came from.

    A gene without symbol keeps its name. `raw` often has bare ids; then the symbols that `var`
    knows for them are used.
    """
    tables = {"var": file["var"]}
    if matrix.name == "raw.X":
        tables = {"raw.var": file["raw/var"], **tables}
    own = next(iter(tables))
    index = _index(tables[own], own)
    if len(index) != matrix.shape[1]:
        raise InputError(f"{matrix.name} has {matrix.shape[1]} columns for {len(index)} genes")
    found = ((t, k) for t in tables for k in SYMBOL_COLUMNS if k in tables[t])
    table, key = next(found, (own, None))
    if key is None:
        symbols, origin = strings(index), "var_names"
    elif table == own:
        symbols, origin = texts(tables[own], key), key
        if pc.any(unnamed := pc.equal(symbols, "")).as_py():
            symbols = pc.if_else(unnamed, strings(index), symbols)
    else:
        ids = strings(_index(tables[table], table)).to_pylist()
        known = dict(zip(ids, texts(tables[table], key).to_pylist(), strict=True))
        names = strings(index).to_pylist()
        symbols = pa.array([known.get(name) or name for name in names], pa.string())
        origin = f"{key} of {table}"
    refuse_ensembl(symbols, own)
    return symbols, origin


def refuse_ensembl(symbols: pa.StringArray, table: str) -> None:
    """Raise an `InputError` when most genes have an Ensembl id and no symbol."""
    alike = symbols.filter(pc.starts_with(symbols, "ENS")).to_pylist()
    ensembl = [symbol for symbol in alike if _ENSEMBL.match(symbol)]
    if len(ensembl) > len(symbols) / 2:
        raise InputError(
            f"genes are named by Ensembl id only (such as {ensembl[0]}) and {table} has no column "
            f"of symbols ({', '.join(SYMBOL_COLUMNS[:3])}, ...); add one: "
            "adata.var['feature_name'] = symbols"
        )


def _matrices(file: h5py.File) -> dict[str, Any]:
    """All matrices, those most likely to hold counts first."""
    layers = dict(sorted(file["layers"].items())) if "layers" in file else {}
    nodes = {name: layers[name] for name in COUNT_LAYERS if name in layers}
    if "raw" in file and "X" in file["raw"]:
        nodes["raw.X"] = file["raw/X"]
    if "X" in file:
        nodes["X"] = file["X"]
    return nodes | layers


def look_at(values: np.ndarray[Any, Any]) -> str:
    """Say what a sample of values is: ``counts``, ``normalised``, or why it is of no use."""
    values = values[values != 0]
    if values.size == 0:
        return "holds zeros only"
    if not np.all(np.isfinite(values)):
        return f"holds {int((~np.isfinite(values)).sum())} NaN or infinite values in a sample"
    if values.min() < 0:
        return f"holds negative values (scaled?), down to {values.min():.3g}"
    return "counts" if np.all(values == np.floor(values)) else "normalised"


def _index(group: h5py.Group, what: str) -> h5py.Dataset:
    key = group.attrs.get("_index", "_index")
    if key not in group or not isinstance(group[key], h5py.Dataset):
        raise InputError(f"{what} has no index {key!r}; the file is damaged")
    return group[key]
