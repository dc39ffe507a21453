"""From expression values to ranked gene lists.

A cell becomes its k highest expressed genes: highest value first, ties in the order of their
symbols, zeros never. Two columns with one symbol count as the higher of the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from cello1.cells.genes import Int32, Symbols
from cello1.cells.h5ad.matrix import Chunk

UNREADABLE, NEGATIVE = 1, 2
_THREADS = 1


class Ranked(NamedTuple):
    """The result of :func:`top_genes` for the cells of one chunk."""

    rows: slice
    ranks: Int32
    expressed: Int32
    faults: npt.NDArray[np.uint8]


def top_genes(
    chunk: Chunk, symbols: Symbols, wanted: npt.NDArray[np.bool_], k: int
) -> tuple[Int32, Int32, npt.NDArray[np.uint8]]:
    """Rank the genes of the wanted rows of a chunk.

    Parameters
    ----------
    chunk
        Rows as CSR.
    symbols
        The genes of the columns.
    wanted
        Mask of the rows to rank, shape (rows,).
    k
        Length of the lists.

    Returns
    -------
    ranks
        Positions in ``symbols.names``, filled up with -1, shape (rows, k).
    expressed
        Number of positive values, excluded genes not counted, shape (rows,).
    faults
        `UNREADABLE` (NaN or infinite) and `NEGATIVE` as bits, shape (rows,).
    """
    # Each dtype costs a compilation; these two hold all counts exactly.
    kind = np.float32 if chunk.data.dtype == np.float32 else np.float64
    data = np.ascontiguousarray(chunk.data, dtype=kind)
    columns = np.ascontiguousarray(chunk.indices, dtype=np.int32)
    n = len(chunk.indptr) - 1
    ranks = np.full((n, k), -1, dtype=np.int32)
    expressed, faults = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.uint8)
    _top(chunk.indptr, columns, data, wanted, symbols.rank, ranks, expressed, faults)
    return ranks, expressed, faults


def rank_chunks(
    chunks: Iterable[Chunk], symbols: Symbols, keep: npt.NDArray[np.bool_], k: int
) -> Iterator[Ranked]:
    """Rank chunks in order while reading the next ones.

    The kernel releases the interpreter lock, so reading and ranking run in parallel; two chunks
    are in memory at a time, as many as :func:`cello1.cells.h5ad.matrix.row_chunks` keeps.

    Parameters
    ----------
    chunks
        Consecutive rows.
    symbols, k
        As for :func:`top_genes`.
    keep
        Mask of the cells to rank, shape (cells,).
    """
    waiting: deque[tuple[slice, Future[tuple[Int32, Int32, npt.NDArray[np.uint8]]]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk in chunks:
            rows = slice(chunk.start, chunk.start + len(chunk.indptr) - 1)
            waiting.append((rows, pool.submit(top_genes, chunk, symbols, keep[rows], k)))
            if len(waiting) > _THREADS:
                done, ranked = waiting.popleft()
                yield Ranked(done, *ranked.result())
        for done, ranked in waiting:
            yield Ranked(done, *ranked.result())


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _top(
    indptr: Any,
    columns: Any,
    data: Any,
    wanted: Any,
    rank: Any,
    ranks: Any,
    expressed: Any,
    faults: Any,
) -> None:
    k = ranks.shape[1]
    selective = rank.min() < 0
    met = np.full(len(rank), -1, dtype=np.int32)  # the last row in which a name was listed
    for row in range(len(wanted)):
        if not wanted[row]:
            continue
        values = data[indptr[row] : indptr[row + 1]]
        genes = columns[indptr[row] : indptr[row + 1]]
        positive, sound = 0, 0
        for i in range(len(values)):  # branch-free, so that it is vectorised
            positive += values[i] > 0
            sound += (
                (values[i] >= 0) & (values[i] < np.inf) & (genes[i] >= 0) & (genes[i] < len(rank))
            )
        if sound < len(values):
            faults[row] = _faults(values, genes, len(rank))
            continue
        if selective:
            positive = 0
            for i in range(len(values)):
                positive += (values[i] > 0) & (rank[genes[i]] >= 0)
        expressed[row] = positive
        wish, floor, filled = k, 1.0, 0
        while filled < k and floor > 0:
            floor = _floor(values, wish) if wish < positive else 0.0
            filled = _list(values, genes, floor, rank, ranks[row], met, row)
            wish *= 4  # when too many were excluded or share a symbol


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _faults(values: Any, genes: Any, width: int) -> int:
    fault = 0
    for i in range(len(values)):
        if values[i] < 0:
            fault |= NEGATIVE
        elif not values[i] < np.inf or genes[i] < 0 or genes[i] >= width:
            fault |= UNREADABLE
    return fault


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _floor(values: Any, wish: int) -> float:
    """Return a threshold that at least `wish` values reach, but few more; 0 if none is found."""
    low, floor, high = 0.0, 8.0, np.inf
    for _ in range(16):
        bound = values.dtype.type(floor)
        reached = 0
        for i in range(len(values)):
            reached += values[i] >= bound
        if reached < wish:
            high = floor
        else:
            low = floor
            if reached < wish + wish // 2:
                break
        if low == 0.0:
            floor = high / 4
        elif high == np.inf:
            floor = low * 4
        else:
            floor = np.sqrt(low * high)
    return low


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _list(values: Any, genes: Any, floor: float, rank: Any, names: Any, met: Any, row: int) -> int:
    """List the genes whose values reach `floor`, best first, in `names`; return how many."""
    k, bound, reached = len(names), values.dtype.type(floor), 0
    found = np.empty(len(values), dtype=np.int32)
    for at in range(len(values)):  # branch-free: one value in fifty is hard to predict
        found[reached] = at
        reached += values[at] >= bound
    best = np.empty(2 * k, dtype=values.dtype)
    filled = 0
    for i in range(reached):
        value, name = values[found[i]], rank[genes[found[i]]]
        if name < 0 or value < bound or value == 0:
            continue
        place = filled
        if met[name] == row:  # two columns with one symbol, or a column stored twice
            for j in range(filled):
                if found[j] == name:
                    place = j
                    break
        met[name] = row
        if place < filled:
            best[place] = max(best[place], value)
            continue
        best[filled] = value
        found[filled] = name  # filled <= i: the overwritten value has been read
        filled += 1
        if filled == 2 * k:
            _sort(best, found, filled, names)
            found[:k], filled, bound = names, k, best[k - 1]
    _sort(best, found, filled, names)
    return min(filled, k)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sort(best: Any, found: Any, filled: int, names: Any) -> None:
    """Sort the best of `filled` genes into `names`, and their values.

    A gene's place is the number of genes before it: for so few the quickest way to sort.
    """
    values = best[:filled].copy()
    for i in range(filled):
        place = 0
        for j in range(filled):
            place += (values[j] > values[i]) | ((values[j] == values[i]) & (found[j] < found[i]))
        if place < len(names):
            best[place] = values[i]
            names[place] = found[i]
