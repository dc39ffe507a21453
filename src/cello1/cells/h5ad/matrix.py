"""Expression matrices on disk as row chunks, in memory that does not grow with the file.

A stored matrix is CSR, CSC or dense; whatever it is, :func:`row_chunks` yields CSR triples of
consecutive rows. A column-major (CSC) matrix is first dealt into temporary row buckets on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from cello1.cells.h5ad.elements import attribute, check_filters, filters, is_array, load, shape_of
from cello1.cells.h5ad.packed import Packed, can_unpack
from cello1.errors import InputError

CHUNK_VALUES = 1 << 20
# What need not be unpacked is read in pieces that are still in the processor's cache when ranked.
PLAIN_VALUES = 1 << 18
# Each is an open file, of which most systems allow a process 1,024.
_MOST_BUCKETS = 400
Array = npt.NDArray[Any]


class Matrix(NamedTuple):
    """A matrix of cells x genes in an open file."""

    name: str
    node: Any
    kind: Literal["csr", "csc", "dense"]
    shape: tuple[int, int]


class Chunk(NamedTuple):
    """Rows `start` to `start + len(indptr) - 1` as CSR; `indptr` starts at 0."""

    start: int
    indptr: npt.NDArray[np.int64]
    indices: Array
    data: Array


def open_matrix(name: str, node: Any) -> Matrix:
    """Return what an HDF5 node holds, by its ``encoding-type`` (old files: ``h5sparse_format``).

    Raises
    ------
    InputError
        When it is no matrix this program knows.
    """
    if is_array(node):
        if node.ndim != 2 or node.dtype.kind not in "fiu":
            raise InputError(
                f"{name} is an array of shape {node.shape} and type {node.dtype}; "
                "expected numbers, cells x genes"
            )
        check_filters(node, name)
        return Matrix(name, node, "dense", (int(node.shape[0]), int(node.shape[1])))
    encoding = str(attribute(node, "encoding-type") or attribute(node, "h5sparse_format") or "")
    if encoding.removesuffix("_matrix") not in ("csr", "csc"):
        raise InputError(
            f"{name} is stored as {encoding or 'something unknown'!r}; expected a "
            "CSR, CSC or dense matrix"
        )
    shape = shape_of(node)
    missing = [p for p in ("data", "indices", "indptr") if p not in node or not is_array(node[p])]
    if shape is None or len(shape) != 2 or missing:
        raise InputError(f"{name} lacks {', '.join(missing) or 'its shape'}; the file is damaged")
    for part in ("data", "indices"):
        check_filters(node[part], f"{part} of {name}")
    kind: Literal["csr", "csc"] = "csr" if encoding.startswith("csr") else "csc"
    return Matrix(name, node, kind, shape)


def row_chunks(
    matrix: Matrix, values: int | None = None, beat: Callable[[], None] = lambda: None
) -> Iterator[Chunk]:
    """Yield all rows in order, about `values` stored numbers at a time (at least one row).

    `beat` is called now and then while columns are dealt, long before the first rows are whole.
    A chunk and the one after it are whole; the memory of older ones is used again.
    """
    plain = matrix.kind == "csr" and not _is_packed(matrix.node["data"])
    values = values or (PLAIN_VALUES if plain else CHUNK_VALUES)
    if matrix.kind == "csr":
        yield from _csr_chunks(matrix, values)
    elif matrix.kind == "csc":
        yield from _csc_chunks(matrix, values, beat)
    else:
        step = max(1, values // max(1, matrix.shape[1]))
        for start in range(0, matrix.shape[0], step):
            yield _from_dense(start, np.asarray(matrix.node[start : start + step]))


def sample_values(matrix: Matrix, limit: int = 200_000) -> Array:
    """Return stored numbers from 8 positions spread over the matrix, at most `limit`."""
    if matrix.kind == "dense":
        rows, step = matrix.shape[0], max(1, limit // (8 * max(1, matrix.shape[1])))
        starts = sorted({int(s) for s in np.linspace(0, max(0, rows - step), 8)})
        return np.concatenate([np.asarray(matrix.node[s : s + step]).ravel() for s in starts])
    data = matrix.node["data"]
    step, stored = limit // 8, int(data.shape[0])
    starts = sorted({int(s) for s in np.linspace(0, max(0, stored - step), 8)})
    return np.concatenate([np.asarray(data[s : s + step]) for s in starts])


def _csr_chunks(matrix: Matrix, values: int) -> Iterator[Chunk]:
    indptr = _checked_indptr(matrix, matrix.shape[0])
    indices, data = _checked_arrays(matrix)
    bounds = [0]
    while bounds[-1] < matrix.shape[0]:
        # The furthest row whose end still lies within the budget, and at least one row.
        stop = int(np.searchsorted(indptr, indptr[bounds[-1]] + values, side="right")) - 1
        bounds.append(min(max(stop, bounds[-1] + 1), matrix.shape[0]))
    # Two pairs of arrays take turns: fresh memory for every chunk takes longer than reading it.
    longest = int(np.diff(indptr[bounds]).max(initial=0))
    pairs = [(np.empty(longest, indices.dtype), np.empty(longest, data.dtype)) for _ in range(2)]
    for (start, stop), pair in zip(pairwise(bounds), cycle(pairs), strict=False):
        low, high = int(indptr[start]), int(indptr[stop])
        columns, numbers = pair[0][: high - low], pair[1][: high - low]
        if high > low:
            indices.read_direct(columns, np.s_[low:high])
            data.read_direct(numbers, np.s_[low:high])
        yield Chunk(start, indptr[start : stop + 1] - low, columns, numbers)


def _checked_indptr(matrix: Matrix, major: int) -> npt.NDArray[np.int64]:
    """Read the row pointers, and check their number and that no row is impossible."""
    rows = "rows" if matrix.kind == "csr" else "columns"
    stored, pointers = (int(matrix.node[part].shape[0]) for part in ("data", "indptr"))
    if pointers != major + 1:
        raise InputError(
            f"{matrix.name} is damaged: {pointers} pointers and {stored} values for {major} {rows}"
        )
    indptr = load(matrix.node["indptr"], f"indptr of {matrix.name}").astype(np.int64)
    if indptr[0] != 0 or indptr[-1] != stored:
        raise InputError(
            f"{matrix.name} is damaged: {pointers} pointers and {stored} values for {major} {rows}"
        )
    lengths = np.diff(indptr)
    if np.any(lengths < 0):
        raise InputError(f"{matrix.name} is damaged: its row pointers go backwards")
    minor = matrix.shape[1] if matrix.kind == "csr" else matrix.shape[0]
    if lengths.max(initial=0) > minor:
        raise InputError(
            f"{matrix.name} is damaged: {int(lengths.max()):,} values in one of the {rows}, where "
            f"{minor:,} have room"
        )
    return indptr


def _checked_arrays(matrix: Matrix) -> tuple[Any, Any]:
    indices, data = _open_array(matrix.node, "indices"), _open_array(matrix.node, "data")
    if len(indices) != len(data):
        raise InputError(f"{matrix.name} is damaged: {len(indices)} indices for {len(data)} values")
    return indices, data


def _open_array(group: Any, name: str) -> Any:
    """Open an array to be read once, from end to end.

    HDF5 keeps its chunks in a cache, so that one shared by two reads is unpacked only once. An
    array that is not packed gains nothing from that but a second copy, so it is opened without.
    An array that is open already would keep the cache it has, so it is closed first.
    """
    array = group[name]
    if not isinstance(array, h5py.Dataset):
        return _FromZarr(array)
    if can_unpack(array):
        return Packed(array)
    if filters(array):
        return array
    del array
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(0, 0, 0.0)
    return _Plain(h5py.h5d.open(group.id, name.encode(), access))


def _is_packed(array: Any) -> bool:
    return not isinstance(array, h5py.Dataset) or bool(filters(array))


class _Plain(h5py.Dataset):  # type: ignore[misc]
    """An array that is not packed, read without the work that h5py spends on any selection."""

    def read_direct(self, into: Array, where: slice) -> None:
        space, length = self.id.get_space(), (len(into),)
        space.select_hyperslab((where.start,), length)
        self.id.read(h5py.h5s.create_simple(length), space, into)


class _FromZarr:
    """An array of a zarr store, read like an `h5py.Dataset`."""

    def __init__(self, array: Any) -> None:
        self.array, self.dtype = array, array.dtype

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def __getitem__(self, where: slice) -> Array:
        return np.asarray(self.array[where])

    def read_direct(self, into: Array, where: slice) -> None:
        into[:] = self.array[where]


def _from_dense(start: int, block: Array) -> Chunk:
    rows, columns = np.nonzero(block)
    indptr = np.zeros(len(block) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=len(block)), out=indptr[1:])
    return Chunk(start, indptr, columns.astype(np.int32), block[rows, columns])


def _csc_chunks(matrix: Matrix, values: int, beat: Callable[[], None]) -> Iterator[Chunk]:
    """Distribute columns to row buckets on disk, then yield the buckets as CSR."""
    n_rows, n_columns = matrix.shape
    indptr = _checked_indptr(matrix, n_columns)
    indices, data = _checked_arrays(matrix)
    n_buckets = max(1, min(n_rows, -(-len(data) // values), _MOST_BUCKETS))
    bounds = np.linspace(0, n_rows, n_buckets + 1).astype(np.int64)
    record = np.dtype([("row", np.int64), ("column", np.int32), ("value", data.dtype)])
    buckets = [tempfile.TemporaryFile() for _ in range(n_buckets)]  # noqa: SIM115
    try:
        for low in range(0, len(data), values):
            beat()
            high = min(low + values, len(data))
            block = np.empty(high - low, dtype=record)
            block["row"] = indices[low:high]
            if block["row"].min() < 0 or block["row"].max() >= n_rows:
                raise InputError(f"{matrix.name} is damaged: it names rows that do not exist")
            block["column"] = np.searchsorted(indptr, np.arange(low, high), side="right") - 1
            block["value"] = data[low:high]
            owner = np.searchsorted(bounds, block["row"], side="right") - 1
            order = np.argsort(owner, kind="stable")
            ends = np.cumsum(np.bincount(owner, minlength=n_buckets))
            for bucket, part in zip(buckets, np.split(block[order], ends[:-1]), strict=True):
                bucket.write(part.tobytes())
        for bucket, start, stop in zip(buckets, bounds[:-1], bounds[1:], strict=True):
            bucket.seek(0)
            block = np.frombuffer(bucket.read(), dtype=record)
            block = block[np.argsort(block["row"], kind="stable")]
            ends = np.cumsum(np.bincount(block["row"] - start, minlength=int(stop - start)))
            yield Chunk(int(start), np.append(0, ends), block["column"], block["value"])
    finally:
        for bucket in buckets:
            bucket.close()
