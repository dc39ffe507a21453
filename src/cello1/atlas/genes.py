"""The genes of the atlas: current symbols, and housekeeping genes that are never evidence."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

SYMBOLS = Path(str(files("cello1.atlas") / "embedded" / "symbols.tsv.gz"))

_SUFFIX = re.compile(r"_ENS[A-Z]*G\d+(?:\.\d+)?$")
# Genes at the top of nearly every list, whatever the type: ribosomal proteins, mitochondrial genes
# and their pseudogenes, translation factors, the respiratory chain, the cytoskeleton.
_HOUSEKEEPING = re.compile(
    r"^(?:M?RP[LS](?:P?\d+|A)[AXYLK]?\d*(?:P\d+)?|RPLP[012](?:P\d+)?|RPSA\d?(?:P\d+)?"
    r"|MT-.+|MT(?:ND|CO|ATP|CYB|RNR|T)\w*P\d+|MTRNR.*|MALAT1|FT[LH]1?(?:P\d+)?"
    r"|ACTB(?:P\d+)?|ACTG1(?:P\d+)?|B2M|EEF1(?:A1|B2|G|D)(?:P\d+)?|EEF2|TPT1(?:P\d+)?"
    r"|GAPDH(?:P\d+)?|PTMA(?:P\d+)?|RACK1|GNB2L1|FAU|UBA52|UBB|UBC|NACA|TMSB4X|TMSB10"
    r"|H3-3[AB]|H3F3[AB]|NPM1|PABPC1|HNRNPA1|BTF3|TOMM7|COX\d.*|ATP5.*|UQCR.*|NDUF.*"
    r"|PFN1|CFL1|OAZ1|SERF2|MYL6|SLC25A[356]|EIF\d.*)$"
)


@cache
def _renamed() -> dict[str, str]:
    """Name -> current symbol (HGNC); older names where they mean one gene only."""
    with gzip.open(SYMBOLS, "rt", encoding="utf-8") as lines:
        return dict(line.rstrip("\n").split("\t") for line in lines)


@cache
def current(symbol: str) -> str:
    """Return the current symbol of a gene: `SEPP1` is `SELENOP`; unknown names are unchanged.

    Surrounding blanks and an Ensembl suffix are ignored.
    """
    name = symbol.strip()
    if "_ENS" in name:
        name = _SUFFIX.sub("", name)
    return _renamed().get(name, name)


def is_known(symbol: str) -> bool:
    """Return whether a symbol is a current one."""
    return _renamed().get(symbol) == symbol


@cache
def is_housekeeping(symbol: str) -> bool:
    """Return whether a gene (current symbol) is expressed by nearly all cells: never evidence."""
    return _HOUSEKEEPING.match(symbol) is not None


def telling(genes: Iterable[str]) -> list[str]:
    """Return the current symbols of the genes that may be evidence, in their order, each once."""
    names = dict.fromkeys(current(gene) for gene in genes)
    return [name for name in names if not is_housekeeping(name)]
