"""The genes of a matrix: symbols cleaned and sorted, and some kinds left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cello1.recipes.build import GeneClass

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


class Symbols(NamedTuple):
    """The genes of a matrix, ready for the kernel.

    Attributes
    ----------
    names
        Different symbols in alphabetical order; a gene is known by its position here.
    rank
        For every column its position in `names`, -1 when excluded, shape (columns,).
    excluded
        Number of columns excluded.
    """

    names: list[str]
    rank: Int32
    excluded: int


def clean_symbol(symbol: str) -> str:
    """Strip blanks and an Ensembl suffix: `CSF2RA_ENSG00000198223` is `CSF2RA`."""
    symbol = symbol.strip()
    return _ENSEMBL_SUFFIX.sub("", symbol) if "_ENS" in symbol else symbol


def index_symbols(
    symbols: pa.StringArray | Sequence[str], exclude: Sequence[GeneClass] = ()
) -> Symbols:
    """Rank symbols by name, so that comparing ranks compares names."""
    texts = pc.utf8_trim_whitespace(pa.array(symbols, pa.string()))
    if pc.any(pc.match_substring(texts, "_ENS")).as_py():
        texts = pa.array([clean_symbol(symbol) for symbol in texts.to_pylist()], pa.string())
    place = pc.rank(texts, tiebreaker="dense").to_numpy().astype(np.int32) - 1
    column = np.empty(place.max(initial=-1) + 1, dtype=np.int64)
    column[place] = np.arange(len(place))  # one of those with that symbol
    names = texts.take(pa.array(column))
    listed = pc.not_equal(names, "").to_numpy(zero_copy_only=False)
    for kind in exclude:
        listed = listed & np.array([not _CLASSES[kind](n) for n in names.to_pylist()], dtype=bool)
    number = np.where(listed, np.cumsum(listed) - 1, -1).astype(np.int32)
    rank = number[place]
    return Symbols(names.filter(pa.array(listed)).to_pylist(), rank, int((rank < 0).sum()))
