"""Open an .h5ad file or zarr store, and find its expression matrix and gene symbols.

Only what is needed is read. Everything that cannot be used raises one `InputError` that says
what was found, what was expected and how to mend it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cello1.cells.h5ad.categories import as_categories
from cello1.cells.h5ad.columns import Table
from cello1.cells.h5ad.elements import is_array, is_null, refuse_outside
from cello1.cells.h5ad.kinds import check_bytes, check_groups, check_place, is_zarr
from cello1.cells.h5ad.matrix import Matrix, open_matrix, sample_values
from cello1.cells.symbols import SYMBOL_COLUMNS, TYPE_COLUMNS, Chosen, choose_symbols, holds_genes
from cello1.errors import InputError

_SAMPLED_NAMES = 2_000
COUNT_LAYERS = ("counts", "raw_counts", "count", "raw")
Values = Literal["counts", "normalised"]


@dataclass(frozen=True)
class Source:
    """An open file of cells.

    Attributes
    ----------
    path, dataset
        The file, and the name its puzzles carry (the file's stem).
    file
        The open file.
    obs
        Its observations.
    matrix, values
        The chosen matrix, and whether it holds raw counts or normalised values.
    genes
        One symbol per column, where they were found, and what is none.
    organism
        Of all cells, where it is known.
    """

    path: Path
    dataset: str
    file: Any
    obs: Table
    matrix: Matrix
    values: Values
    genes: Chosen
    organism: str | None

    @property
    def symbols(self) -> pa.StringArray:
        """One symbol per column; empty if it is not a gene."""
        return self.genes.symbols

    @property
    def symbols_from(self) -> str:
        """Where the symbols were found."""
        return self.genes.origin

    @property
    def n_cells(self) -> int:
        """Number of observations."""
        return len(self.obs)


@contextmanager
def open_source(
    path: Path, layer: str | None = None, *, organism: str | None = None
) -> Iterator[Source]:
    """Open a file and find its expression values and gene symbols.

    Parameters
    ----------
    path
        An .h5ad file, or a zarr store of the same layout.
    layer
        ``X``, ``raw.X`` or the name of a layer; by default the first matrix of raw counts, else
        the first without negative values.
    organism
        Of the cells, where the file does not say it or is wrong.

    Raises
    ------
    InputError
        When the file is no readable .h5ad or has no usable matrix or symbols.
    """
    with open_h5ad(path) as file:
        obs = open_table(file, "obs")
        matrix, values = choose_matrix(file, layer)
        if matrix.shape[0] != len(obs):
            raise InputError(
                f"{matrix.name} has {matrix.shape[0]} rows for {len(obs)} cells; file is damaged"
            )
        organism = organism or organism_in(file, obs)
        genes = find_symbols(file, matrix, organism)
        yield Source(path, path.stem, file, obs, matrix, values, genes, organism)


@contextmanager
def open_h5ad(path: Path) -> Iterator[Any]:
    """Open an .h5ad file or zarr store for reading.

    Yields
    ------
    h5py.File or zarr.Group
        Without parts that lie in other files.

    Raises
    ------
    InputError
        When it is missing, of another kind, locked, or damaged, now or while it is read.
    """
    check_place(path)
    try:
        with _opened(path) as file:
            check_groups(file, path)
            yield file
    except OSError as error:
        if "unable to lock" in str(error) or error.errno in (errno.EAGAIN, errno.ENOLCK):
            raise InputError(
                f"{path} is open in another program that may write to it; close it there (or, if "
                "nothing writes to it: HDF5_USE_FILE_LOCKING=FALSE cello1 ...)"
            ) from error
        if "filter" in str(error):
            raise InputError(
                f"{path} is packed with a filter that HDF5 does not bring along ({error}): "
                "pip install hdf5plugin, and run this again"
            ) from error
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
    except MemoryError as error:
        raise InputError(
            f"{path} needs more memory than is free; close other programs, use fewer --workers, "
            "or a machine with more"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if is_zarr(path):
        yield _open_zarr(path)
        return
    check_bytes(path)
    with h5py.File(path, "r") as file:
        refuse_outside(file, path)
        yield file


def _open_zarr(path: Path) -> Any:
    """Open a zarr store; links out of the folder and special files are refused."""
    for folder, _, names in os.walk(path):
        for name in names:
            piece = Path(folder) / name
            if piece.is_symlink() or not piece.is_file():
                raise InputError(
                    f"{piece} is no plain file, so it may read something else; expected everything "
                    f"inside {path}: ask who made it for a plain copy"
                )
    try:
        import zarr
    except ImportError as error:
        raise InputError(
            f"{path} is a zarr store, and reading one needs zarr: pip install zarr, and run this "
            "again"
        ) from error
    try:
        return zarr.open_group(path, mode="r")
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} is a zarr store that cannot be read ({first}); copy or download it again"
        ) from error


def open_table(file: Any, name: str) -> Table:
    """Open the table ``obs``, ``var`` or ``raw.var`` of a file."""
    node = file.get(name) if name in file else file.get(name.replace(".", "/"))
    if node is None:
        raise InputError(f"the file has no table {name}; it is damaged: write it again")
    return Table(node, name, file)


def choose_matrix(file: Any, layer: str | None) -> tuple[Matrix, Values]:
    """Find the matrix to rank genes by, based on its values rather than its name."""
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


def find_symbols(file: Any, matrix: Matrix, organism: str | None) -> Chosen:
    """Return a symbol for every column of the matrix, and their source.

    A gene without symbol keeps its name. `raw` often has bare ids; then the symbols that `var`
    knows for them are used.
    """
    own = "raw.var" if matrix.name == "raw.X" else "var"
    table = open_table(file, own)
    if len(table) != matrix.shape[1]:
        raise InputError(f"{matrix.name} has {matrix.shape[1]} columns for {len(table)} genes")
    kinds = next((key for key in TYPE_COLUMNS if key in table), None)
    types = None if kinds is None else table.texts(kinds).to_pylist()
    candidates = _candidates(file, table, own)
    return choose_symbols(candidates, types, table=own, organism=organism)


def _candidates(file: Any, table: Table, own: str) -> Iterator[tuple[str, pa.StringArray]]:
    """Yield the columns that may hold symbols, then the names; each is read on demand."""
    index = cache(table.index)
    columns = [key for key in SYMBOL_COLUMNS if key in table]
    for key in columns:
        symbols = table.texts(key)
        unnamed = pc.equal(symbols, "")
        yield key, pc.if_else(unnamed, index(), symbols) if pc.any(unnamed).as_py() else symbols
    var = open_table(file, "var")
    for key in (key for key in SYMBOL_COLUMNS if own != "var" and not columns and key in var):
        known = dict(zip(var.names(), var.texts(key).to_pylist(), strict=True))
        found = [known.get(name) or name for name in index().to_pylist()]
        yield f"{key} of var", pa.array(found, pa.string())
    # Reading all names takes time, and beside a column of symbols they are mostly bare ids.
    sample = slice(None, None, max(1, len(table) // _SAMPLED_NAMES))
    if not columns or holds_genes(pa.array(table.names(sample), pa.string())):
        yield "var_names", index()


def organism_in(file: Any, obs: Table) -> str | None:
    """Return the organism of all cells, from uns (schema 6 and later) or from obs; else None."""
    uns = file.get("uns")
    node = None if uns is None or is_array(uns) else uns.get("organism")
    if node is not None and is_array(node) and node.size == 1:
        value = np.asarray(node[()], dtype=object).ravel()[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if "organism" not in obs:
        return None
    values = as_categories(obs.column("organism"))
    met = np.unique(values.codes)
    return str(values.categories[met[0]]) if len(met) == 1 and met[0] >= 0 else None


def _matrices(file: Any) -> dict[str, Any]:
    """Return all matrices, those most likely to hold counts first."""
    layers = {name: file["layers"][name] for name in sorted(file.get("layers", ()))}
    nodes = {name: layers[name] for name in COUNT_LAYERS if name in layers}
    for place in ("raw/X", "raw.X"):  # the latter until anndata 0.6
        if place in file:
            nodes["raw.X"] = file[place]
    if "X" in file:
        nodes["X"] = file["X"]
    return {name: node for name, node in (nodes | layers).items() if not is_null(node)}


def look_at(values: np.ndarray[Any, Any]) -> str:
    """Classify a sample of values: ``counts``, ``normalised``, or why it cannot be used."""
    values = values[values != 0]
    if values.size == 0:
        return "holds zeros only"
    if not np.all(np.isfinite(values)):
        return f"holds {int((~np.isfinite(values)).sum())} NaN or infinite values in a sample"
    if values.min() < 0:
        return f"holds negative values (scaled?), down to {values.min():.3g}"
    return "counts" if np.all(values == np.floor(values)) else "normalised"
