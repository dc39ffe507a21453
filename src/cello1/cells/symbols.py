"""What the genes of a matrix are called: the column that knows most human genes, and what is none.

Symbols may stand in the index or in a column of any name; a column called `gene_name` may hold
Ensembl ids. So every candidate is measured: which share of it are known human genes. Rows that are
no genes (antibodies, hashtags, guides, spike-ins) would lead every list; they are left out.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cello1.errors import InputError

SYMBOL_COLUMNS = (
    "feature_name", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "symbol",
    "Symbol", "hgnc_symbol", "gene_short_name", "features",
)  # fmt: skip
TYPE_COLUMNS = ("feature_types", "feature_type", "feature_biotype")
_GENES = ("gene expression", "gene", "rna", "gex", "protein_coding", "lncrna")
HUMAN = ("homo sapiens", "human", "ncbitaxon:9606")
# A later candidate replaces an earlier one only where it knows clearly more genes.
_CLEARLY = 0.8
# One that knows as many is taken without a look at the next: ids without a symbol are common.
_SURELY = 0.5
Change = Callable[[pa.StringArray], tuple[pa.StringArray | None, str]]
# With fewer names than this, that none is known proves nothing.
_ENOUGH = 20
# Some genes of mice are spelled as human ones (C3, F8, H19): so many at most.
_BY_CHANCE, _IN_OTHER_LETTERS = 0.1, 0.3
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(?:\.\d+)?$")
_DATE = re.compile(
    r"^(\d{1,2}[-./ ](jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
    r"|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-./ ]\d{1,2}"
    r"|\d{4}-\d\d-\d\d( 00:00:00)?|\d{1,2}/\d{1,2}/\d{2,4})$",
    re.IGNORECASE,
)
OTHER_SPECIES = "genes of other species"
_NO_GENES = {
    "spike-ins": r"^(ERCC-\d+|SIRV\w*|ERCC\w*_\w+)$",
    "antibodies": r"totalseq|[_\-.](adt|prot|protein|ab|cite)\d*$|^(adt|cite|prot)[_\-.]",
    "hashtags": r"^(hto|hashtag|cmo|multi.?seq|sample.?tag)[_\-. ]?\w*\d",
    "guides": r"^(sgrna|grna|guide|crispr|sg)[_\-.]\w+|non.?targeting|[_\-.](sg|grna)\d+",
    OTHER_SPECIES: r"^(mm\d+|grcm\d+|rn\d+|mratbn7|dm\d|mouse|rat)_+",
    "dates that a spreadsheet made of symbols": _DATE.pattern,
}
_NO_GENE = "|".join(f"(?:{rule})" for rule in _NO_GENES.values())


@dataclass(frozen=True)
class Chosen:
    """The symbols of a matrix.

    Attributes
    ----------
    symbols
        One per column; empty where it is no gene.
    origin
        Where they were found, in words.
    left_out
        Kind -> number of columns that are no genes.
    notes
        What a reader must know.
    """

    symbols: pa.StringArray
    origin: str
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self) -> tuple[str, ...]:
        """Return the notes, with what was left out and how often."""
        if not self.left_out:
            return tuple(self.notes)
        counts = ", ".join(f"{kind} ({count:,})" for kind, count in self.left_out.items())
        out = f"{sum(self.left_out.values()):,} columns that are no genes are left out: {counts}"
        return (*self.notes, out)


@cache
def _lines() -> list[tuple[str, str, str]]:
    packed = (files("cello1.cells") / "human_genes.tsv.gz").read_bytes()
    return [line.partition("\t") for line in gzip.decompress(packed).decode().split("\n")]


@cache
def human_genes() -> frozenset[str]:
    """Return the symbols of human genes, previous ones too.

    The table comes with the package; NOTICE says where it is from.
    """
    return frozenset(symbol for symbol, _, _ in _lines())


@cache
def symbols_by_id() -> Mapping[str, str]:
    """Return the symbol of each Ensembl id."""
    return {f"ENSG{number:0>11}": symbol for symbol, tab, number in _lines() if tab}


@cache
def _known() -> pa.StringArray:
    return pa.array(list(human_genes()), pa.string())


@cache
def _known_ids() -> pa.StringArray:
    return pa.array(list(symbols_by_id()), pa.string())


@cache
def _symbols_of_ids() -> pa.StringArray:
    return pa.array(list(symbols_by_id().values()), pa.string())


def choose_symbols(
    candidates: Iterable[tuple[str, pa.StringArray]],
    types: Sequence[Any] | None = None,
    *,
    table: str = "var",
    organism: str | None = None,
) -> Chosen:
    """Choose the candidate that knows most human genes, and leave out what is no gene.

    Parameters
    ----------
    candidates
        Where from, and one name per column of the matrix; the usual place first. No more are
        asked for once most names of one are known.
    types
        What each column is (`feature_types` of 10x), if the file tells.
    table
        Where they stand, for messages.
    organism
        Of the cells; of others than human ones the first candidate is taken as it is.

    Raises
    ------
    InputError
        When no candidate knows a human gene; the message says what the names look like.
    """
    if organism is not None and organism.strip().casefold() not in HUMAN:
        origin, names = next(iter(candidates))
        refuse_ensembl(names, table)
        return Chosen(names, origin)
    read: dict[str, _Names] = {}
    for origin, given in candidates:
        if not read:
            genes, by_type = _gene_rows(types, len(given))
        read[origin] = _read(given, pa.array(genes))
        if read[origin].share >= _SURELY:
            break
    best = max(found.share for found in read.values())
    enough = _SURELY if best >= _SURELY else _CLEARLY * best
    origin, found = next((o, found) for o, found in read.items() if found.share >= enough)
    names, share = found.names, found.share
    refuse_ensembl(names, table)
    if best < _BY_CHANCE and genes.sum() >= _ENOUGH:
        listed = names.filter(pa.array(genes))
        if not best or _is_other_spelling(listed, share):
            raise InputError(_unlike(listed.to_pylist(), origin))
    kept, by_name = _leave_out(found, genes)
    first = next(iter(read))
    notes = []
    if origin != first:
        notes.append(
            f"symbols are taken from {origin}: {share:.0%} of its names are known human genes, "
            f"{read[first].share:.0%} of {first}"
        )
    return Chosen(kept, f"{origin}{found.how}", by_type | by_name, notes)


def holds_genes(names: pa.StringArray) -> bool:
    """Return whether any of some names can be read as a human gene."""
    return _read(names, pa.repeat(True, len(names))).share > 0


def refuse_ensembl(symbols: pa.StringArray, table: str) -> None:
    """Raise an `InputError` if most genes have an Ensembl id and no symbol."""
    alike = symbols.filter(pc.starts_with(symbols, "ENS")).to_pylist()
    ensembl = [symbol for symbol in alike if _ENSEMBL.match(symbol)]
    if len(ensembl) > len(symbols) / 2:
        raise InputError(
            f"genes are named by Ensembl id only (such as {ensembl[0]}) and {table} has no column "
            f"of symbols ({', '.join(SYMBOL_COLUMNS[:3])}, ...); add one: "
            "adata.var['feature_name'] = symbols"
        )


def _gene_rows(types: Sequence[Any] | None, n: int) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Return which columns are genes by their declared type, and count the others."""
    if types is None:
        return np.ones(n, dtype=bool), {}
    spelled = {kind: str(kind).strip() for kind in set(types)}
    found = Counter[str]()
    for kind, count in Counter(types).items():
        found[spelled[kind]] += count
    # A biotype tells kinds of genes apart; only what is no transcript is left out by it.
    foreign = {k for k in found if k.casefold() not in _GENES and _is_foreign(k)}
    if not foreign or not any(kind.casefold() in _GENES for kind in found):
        return np.ones(n, dtype=bool), {}
    genes = np.array([spelled[kind] not in foreign for kind in types], dtype=bool)
    return genes, {kind: found[kind] for kind in sorted(foreign)}


def _is_foreign(kind: str) -> bool:
    return bool(
        re.search(
            r"antibody|capture|crispr|guide|custom|multiplex|hash|hto|adt|protein|peak|spike|cite",
            kind,
            re.IGNORECASE,
        )
    )


class _Names(NamedTuple):
    """Names as symbols, which of them are known genes, their share, and what was done to them."""

    names: pa.StringArray
    known: pa.BooleanArray
    share: float
    how: str = ""


def _read(names: pa.StringArray, wanted: pa.BooleanArray) -> _Names:
    """Read names as symbols, changing them where more are known then."""
    best = _look_up(names, wanted)
    if best.share >= _SURELY:
        return best
    for change in (*_prefixes(names), _without_suffix, _by_id):
        changed, words = change(best.names)
        if changed is not None and (found := _look_up(changed, wanted)).share > best.share:
            best = found._replace(how=f"{best.how}{words}")
    return best


def _look_up(names: pa.StringArray, wanted: pa.BooleanArray) -> _Names:
    known = pc.and_(pc.is_in(names, value_set=_known()), wanted)
    total = pc.sum(pc.and_(pc.not_equal(names, ""), wanted)).as_py() or 0
    return _Names(names, known, (pc.sum(known).as_py() or 0) / max(1, total))


def _prefixes(names: pa.StringArray) -> list[Change]:
    """Return ways to strip common prefixes such as `GRCh38_`, the longest last."""
    sample = [name for name in names[:: max(1, len(names) // 500)].to_pylist() if name]
    begins = Counter(
        name[: mark.end()] for name in sample for mark in re.finditer(r"[_\-.:|]+", name)
    )
    other = re.compile(_NO_GENES[OTHER_SPECIES], re.IGNORECASE)
    often = [p for p, n in begins.items() if n > 0.3 * len(sample) and not other.match(p)]
    return [partial(_without_prefix, prefix=prefix) for prefix in sorted(often, key=len)]


def _without_prefix(names: pa.StringArray, prefix: str) -> tuple[pa.StringArray, str]:
    bare = pc.utf8_slice_codeunits(names, len(prefix))
    return pc.if_else(pc.starts_with(names, prefix), bare, names), f" (without the prefix {prefix})"


def _without_suffix(names: pa.StringArray) -> tuple[pa.StringArray | None, str]:
    """Strip the id of `CD3E_ENSG00000198851`, `ENSG00000198851_CD3E` and `CD3E (ENSG...)`."""
    gene = r"ENSG\d+(\.\d+)?"
    rule = rf"^{gene}[_|]|[_|]{gene}$| *[(\[]{gene}[)\]]$"
    some = names.filter(pc.match_substring(names, "ENSG"))
    some = some.filter(pc.invert(pc.utf8_is_alnum(some)))  # an id alone is found much faster
    if not pc.any(pc.match_substring_regex(some, rule)).as_py():
        return None, ""
    return pc.replace_substring_regex(names, rule, ""), ""


def _by_id(names: pa.StringArray) -> tuple[pa.StringArray | None, str]:
    """Map Ensembl ids to symbols by the table of the package; unknown ones stay."""
    ids = pc.sum(pc.starts_with(names, "ENSG")).as_py() or 0
    if not ids:
        return None, ""
    bare = names
    if pc.any(pc.match_substring(names, ".")).as_py():
        bare = pc.replace_substring_regex(names, r"(?s)\..*", "")
    at = pc.index_in(bare, value_set=_known_ids())
    read = len(at) - at.null_count
    if read < ids / 2:
        return None, ""
    symbols = pc.coalesce(_symbols_of_ids().take(at), names)
    return symbols, f" ({read:,} of {ids:,} Ensembl ids read as symbols)"


def _leave_out(found: _Names, genes: np.ndarray[Any, Any]) -> tuple[pa.StringArray, dict[str, int]]:
    """Empty the names of non-genes by type or by name, and count the latter."""
    at = np.flatnonzero(~found.known.to_numpy(zero_copy_only=False) & genes)
    rest = found.names.take(pa.array(at))
    # One search for all kinds first: most files hold none.
    odd = pc.match_substring_regex(rest, _NO_GENE, ignore_case=True)
    at, rest = at[odd.to_numpy(zero_copy_only=False)], rest.filter(odd)
    keep, counts = genes.copy(), {}
    for kind, rule in _NO_GENES.items():
        hit = pc.match_substring_regex(rest, rule, ignore_case=True)
        matches = hit.to_numpy(zero_copy_only=False)
        if matches.any():
            counts[kind] = int(matches.sum())
            keep[at[matches]] = False
            at, rest = at[~matches], rest.filter(pc.invert(hit))
    if keep.all():
        return found.names, {}
    return pc.if_else(pa.array(keep), found.names, ""), counts


def _is_other_spelling(names: pa.StringArray, share: float) -> bool:
    """Return whether names would be human genes in capitals, like those of mice."""
    capitals = pc.utf8_upper(names)
    others = capitals.filter(pc.not_equal(capitals, names))
    if len(others) <= (_IN_OTHER_LETTERS - share) * len(names):
        return False
    known = pc.is_in(capitals, value_set=_known())
    return (pc.sum(known).as_py() or 0) > _IN_OTHER_LETTERS * len(names)


def _unlike(names: Sequence[str], origin: str) -> str:
    """Describe names that are not human genes, and how to fix them."""
    listed = [name for name in names if name]
    some = ", ".join(listed[:3]) or "nothing"
    known = human_genes()
    exact = sum(name in known for name in listed)
    upper = sum(name.upper() in known for name in listed)
    start = (
        f"{exact:,} of {len(listed):,} gene names in {origin} are known human genes ({some}, ...): "
    )
    if upper > len(listed) / 20 or upper > 10:
        return start + (
            "they look like mouse spelling or lower case. Of human cells: adata.var_names = "
            "adata.var_names.str.upper(); of mouse cells name the species in "
            "adata.uns['organism'] = 'Mus musculus' (annotate: --organism mouse), or map the genes "
            "to human ones"
        )
    looks = {
        _DATE.pattern: "they are dates that a spreadsheet made of something",
        r"^[\d.]+$": "they are numbers (Entrez ids?)",
        r"^ILMN_|_(s|x)?_?at$": "they look like probes of an array",
        r"^(chr)?[\dXYM]+[:_-]\d+[_-]\d+": "they look like genomic regions (peaks)",
        r"^ENS": "they look like ids of Ensembl of another species or of transcripts",
    }
    half = len(listed) / 2
    look = next(
        (words for rule, words in looks.items() if _count(rule, listed) > half),
        "expected symbols such as CD3E",
    )
    return start + look + "; add symbols: adata.var['feature_name'] = symbols"


def _count(rule: str, names: Sequence[str]) -> int:
    return sum(bool(re.search(rule, name, re.IGNORECASE)) for name in names)
