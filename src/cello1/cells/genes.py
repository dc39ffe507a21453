"""From expression values to ranked gene lists.

A cell becomes its k highest expressed genes: highest value first, ties in the order of their
symbols, zeros never. Two columns with one symbol count as the higher of the two.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from cello1.cells.matrix import Chunk
from cello1.recipes import GeneClass

Int32 = npt.NDArray[np.int32]

_ENSEMBL_SUFFIX = re.compile(r"_ENS[A-Z]*G\d+(?:\.\d+)?$")
_CLASSES: dict[GeneClass, Callable[[str], object]] = {
    "mitochondrial": re.compile(r"^MT-", re.IGNORECASE).match,
    "ribosomal": re.compile(
        r"^M?RP[LS]\d+(?:[A-D]|X|L|AL|L\d|Y\d)?$|^RPLP\d$|^RPSA\d?$", re.IGNORECASE
    ).match,
    # What CellPuzzles lists are full of: mitochondrial and other processed pseudogenes
    # (MTCO2P22, MTND4LP30, RPL13AP5) and clone names (AC104389.5, RP11-206L10.2).
    "pseudogene": re.compile(
        r"^MT(?:ND|CO|ATP|CYB|RNR)\w*P\d+$"
        r"|^RP(?:[LS]\d+(?:A|AL|X|L\d?|Y\d)?|LP\d|SA)P\d+$"
        r"|^[A-Z]{2}\d{6}\.\d+$|^RP\d+-\w+\.\d+$"
    ).match,
}
UNREADABLE, NEGATIVE = 1, 2
_THREADS = 2


class Symbols(NamedTuple):
    """The genes of a matrix, ready for the kernel.

    Attributes
    ----------
    names
        Different symbols in alphabetical order; a gene is known by its position here.
    rank
        For every column its position in `names`, -1 when excluded, shape (columns,).
    repeated
        For every name whether several columns carry it, shape (names,).
    excluded
        Number of columns excluded.
    """

    names: list[str]
    rank: Int32
    repeated: npt.NDArray[np.bool_]
    excluded: int


class Ranked(NamedTuple):
    """The result of :func:`top_genes` for the cells of one chunk."""

    rows: slice
    ranks: Int32
    expressed: Int32
    faults: npt.NDArray[np.uint8]


def clean_symbol(symbol: str) -> str:
    """Strip blanks and an Ensembl suffix: `CSF2RA_ENSG00000198223` is `CSF2RA`."""
    symbol = symbol.strip()
    return _ENSEMBL_SUFFIX.sub("", symbol) if "_ENS" in symbol else symbol


def index_symbols(symbols: Iterable[str], exclude: Sequence[GeneClass] = ()) -> Symbols:
    """Rank symbols by name, so that comparing ranks compares names."""
    clean = [clean_symbol(symbol) for symbol in symbols]
    keep = [bool(s) and not any(_CLASSES[kind](s) for kind in exclude) for s in clean]
    names = sorted({s for s, kept in zip(clean, keep, strict=True) if kept})
    position = {name: i for i, name in enumerate(names)}
    rank = np.array(
        [position[s] if kept else -1 for s, kept in zip(clean, keep, strict=True)], dtype=np.int32
    )
    counts = np.bincount(rank[rank >= 0], minlength=len(names))
    return Symbols(names, rank, counts > 1, keep.count(False))


def top_genes(
    chunk: Chunk, symbols: Symbols, wanted: npt.NDArray[np.bool_], k: int
) -> tuple[Int32, Int32, npt.NDArray[np.uint8]]:
    """Rank the genes of the wanted rows of a chunk.

    Parameters
    ----------
    chunk
        Rows as CSR.
    symbols
        What the columns are.
    wanted
        Which rows to look at, shape (rows,).
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
    data = chunk.data if chunk.data.dtype == np.float32 else chunk.data.astype(np.float64)
    columns = chunk.indices.astype(np.int32, copy=False)
    n = len(chunk.indptr) - 1
    ranks = np.full((n, k), -1, dtype=np.int32)
    expressed, faults = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.uint8)
    _top(
        chunk.indptr,
        columns,
        data,
        wanted,
        symbols.rank,
        symbols.repeated,
        ranks,
        expressed,
        faults,
    )
    return ranks, expressed, faults


def rank_chunks(
    chunks: Iterable[Chunk], symbols: Symbols, keep: npt.NDArray[np.bool_], k: int
) -> Iterator[Ranked]:
    """Rank chunk after chunk, in order, reading the next ones meanwhile.

    The kernel lets go of the interpreter, so reading and ranking share the cores; three chunks
    are in memory at a time.

    Parameters
    ----------
    chunks
        Consecutive rows.
    symbols, k
        As for :func:`top_genes`.
    keep
        Which cells to look at, shape (cells,).
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
def _sink(best: Any, names: Any, place: int, filled: int) -> None:
    """Let an entry sink to its place in a heap whose root is the lowest: value, then late name."""
    value, name = best[place], names[place]
    while True:
        child = 2 * place + 1
        if child >= filled:
            break
        right = child + 1
        if right < filled and (
            best[right] < best[child]
            or (best[right] == best[child] and names[right] > names[child])
        ):
            child = right
        if best[child] > value or (best[child] == value and names[child] < name):
            break
        best[place], names[place] = best[child], names[child]
        place = child
    best[place], names[place] = value, name


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _top(
    indptr: Any,
    columns: Any,
    data: Any,
    wanted: Any,
    rank: Any,
    repeated: Any,
    ranks: Any,
    expressed: Any,
    faults: Any,
) -> None:
    k = ranks.shape[1]
    all_listed = rank.min() >= 0
    best = np.zeros(k, dtype=data.dtype)
    guess = np.zeros(1, dtype=data.dtype)  # an array, to stay in the precision of the data
    for row in range(len(wanted)):
        if not wanted[row]:
            continue
        names = ranks[row]
        # Half of what the last row needed for a place in its list is a safe bet for this one. If
        # it was too high, the row is ranked again without; also, with every gene checked, if a
        # column stands twice in the row, which it should not.
        worst, careful = guess[0], False
        while True:
            filled, positive, fault = 0, 0, 0
            for at in range(indptr[row], indptr[row + 1]):
                value = data[at]
                # Nearly all values are too low for a full list; whether the gene may be listed
                # matters only where some may not.
                if 0 < value < worst and all_listed:
                    positive += 1
                    continue
                if not value > 0:
                    if value != 0:  # NaN compares unequal to everything, itself included
                        fault |= NEGATIVE if value < 0 else UNREADABLE
                    continue
                column = columns[at]
                if column < 0 or column >= len(rank):
                    fault |= UNREADABLE
                    continue
                name = rank[column]
                if value == np.inf:
                    fault |= UNREADABLE
                if name < 0:
                    continue
                positive += 1
                if filled == k and (value < worst or (value == worst and name > names[0])):
                    continue
                place = filled
                if careful or repeated[name]:
                    for i in range(filled):
                        if names[i] == name:
                            place = i
                            break
                    if place < filled and best[place] >= value:
                        continue
                if place < filled:
                    best[place] = value
                    if filled == k:  # before that it is a plain list
                        _sink(best, names, place, k)
                elif filled < k:
                    best[filled], names[filled] = value, name
                    filled += 1
                    if filled == k:
                        for i in range(k // 2 - 1, -1, -1):
                            _sink(best, names, i, k)
                else:
                    best[0], names[0] = value, name  # the worst one makes room
                    _sink(best, names, 0, k)
                if filled == k:
                    worst = best[0]
            for i in range(filled // 2 - 1, -1, -1):
                _sink(best, names, i, filled)
            for last in range(filled - 1, 0, -1):
                best[0], best[last] = best[last], best[0]
                names[0], names[last] = names[last], names[0]
                _sink(best, names, 0, last)
            if filled < k and filled < positive and guess[0] > 0:
                guess[0] = 0
            elif not careful and _holds_twice(names, filled):
                careful = True
            else:
                break
            names[:] = -1
            worst = guess[0]
        guess[0] = best[k - 1] / 2 if filled == k else 0
        expressed[row] = positive
        faults[row] = fault


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _holds_twice(names: Any, filled: int) -> bool:
    for i in range(filled):
        for j in range(i):
            if names[i] == names[j]:
                return True
    return False
