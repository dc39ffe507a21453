"""From expression values to ranked gene lists.

A cell becomes its k highest expressed genes: highest value first, ties in the order of their
symbols, zeros never. Two columns with one symbol count as the higher of the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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
    if columns.size and (int(columns.min()) < 0 or int(columns.max()) >= len(symbols.rank)):
        faults[:] = UNREADABLE
        return ranks, expressed, faults
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


@numba.njit(parallel=True, cache=True, nogil=True)  # type: ignore[untyped-decorator]
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
    for row in numba.prange(len(wanted)):
        if not wanted[row]:
            continue
        best = np.zeros(k, dtype=data.dtype)
        names = ranks[row]
        # A row should hold each column once. If one stands twice in the list after all, the row
        # is ranked again with every gene checked.
        for careful in (False, True):
            filled, positive, fault = 0, 0, 0
            worst = best[0] * 0  # of a full list
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
                name = rank[columns[at]]
                if name < 0:
                    if value == np.inf:
                        fault |= UNREADABLE
                    continue
                positive += 1
                if filled == k and (value < worst or (value == worst and name > names[k - 1])):
                    continue
                if value == np.inf:
                    fault |= UNREADABLE
                place = filled
                if careful or repeated[name]:
                    for i in range(filled):
                        if names[i] == name:
                            place = i
                            break
                    if place < filled and best[place] >= value:
                        continue
                if place == filled:
                    if filled < k:
                        filled += 1
                    else:
                        place = k - 1  # the worst one makes room
                while place > 0 and (
                    best[place - 1] < value
                    or (best[place - 1] == value and names[place - 1] > name)
                ):
                    best[place] = best[place - 1]
                    names[place] = names[place - 1]
                    place -= 1
                best[place] = value
                names[place] = name
                if filled == k:
                    worst = best[k - 1]
            twice = False
            for i in range(filled):
                for j in range(i):
                    twice |= names[i] == names[j]
            if not twice:
                break
            names[:] = -1
        expressed[row] = positive
        faults[row] = fault
