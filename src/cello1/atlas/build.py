"""Build an atlas from mean profiles, annotated cells and lists of markers."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from cello1.atlas import genes as names
from cello1.atlas.markers import OWN_TABLES, read_markers, term_of_name
from cello1.atlas.source import Column, Source, read_sources, write_sources
from cello1.errors import InputError, brief
from cello1.recipes.atlas import AtlasSettings, AtlasSource
from cello1.runs import Watch, beside, replacing
from cello1.scoring.ontology import suggestions

# Lengths of lists over which frequencies are averaged, so that a gene that is always at the top
# has a higher value than one that barely gets in.
TOPS = (10, 25, 50)
# Cell-to-cell noise and counts per cell of draws from a mean profile.
CELL_SD, DEPTH, DEPTH_SD = 0.5, 2_000.0, 0.5
_CONTENDERS = 2_500  # genes of a profile that can reach a list
_SELDOM = 0.01  # mean share below which a gene is not kept
_SHORT = 60  # genes that a list may name for a type, so that each is kept without a table
_DEEP = 200  # genes ranked of a cell, so that 50 remain without housekeeping genes

_REPEATED = re.compile(r"\.\d+$")

FloatArray = npt.NDArray[np.float64]


@dataclass
class Match:
    """How much of a source was recognised.

    Attributes
    ----------
    name, kind
        Name and kind of the source.
    genes, genes_known, types, types_known
        Number of symbols and types in it, and how many of them are known.
    unknown_types
        Names of types that the Cell Ontology does not have; they keep their names.
    dropped
        Reason -> how many columns or cells were left out.
    """

    name: str
    kind: str
    genes: int = 0
    genes_known: int = 0
    types: int = 0
    types_known: int = 0
    unknown_types: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as one line."""
        text = (
            f"{self.name}: {self.genes_known:,} of {self.genes:,} genes, "
            f"{self.types_known} of {self.types} types"
        )
        if self.unknown_types:
            text += f" (not in the Cell Ontology: {', '.join(self.unknown_types[:5])}"
            text += (
                f" and {len(self.unknown_types) - 5} more)" if len(self.unknown_types) > 5 else ")"
            )
        for reason, count in self.dropped.items():
            text += f"; {count} left out: {reason}"
        return text


def build_atlas(
    settings: AtlasSettings, out: Path, base: Path, watch: Watch = lambda what, share: None
) -> list[Match]:
    """Build an atlas into a folder; it is written beside it and moved into place when complete.

    Parameters
    ----------
    settings
        The sources.
    out
        The folder; an existing folder that is no atlas is refused.
    base
        Folder that relative paths refer to, where the settings do not name one.
    watch
        Called with (what is being done, share done).

    Raises
    ------
    InputError
        When a file cannot be used; the message names it.
    """
    if not settings.sources and settings.aliases is None:
        raise InputError("the recipe names no source; expected a section atlas with sources")
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / "atlas.json").exists())
    ):
        raise InputError(f"{out} is there and is no atlas; name another folder")
    data = Path(settings.data) if settings.data else base
    if settings.aliases is not None and settings.approved is not None:
        _write_symbols(data / settings.aliases, data / settings.approved, out)
        if not settings.sources:
            return []
    made, matches = [], []
    for number, asked in enumerate(settings.sources):
        watch(asked.name, number / len(settings.sources))
        source, match = read_source(asked, data, draws=settings.draws, seed=settings.seed)
        made.append(source)
        matches.append(match)
    trimmed = _trimmed(made)
    about = {
        "recipe": settings.model_dump(mode="json", exclude={"data"}, exclude_defaults=True),
        "matched": [str(match) for match in matches],
    }
    with beside(out) as part:
        write_sources(part, trimmed, about)
        (part / "NOTICE").write_text(_notice(trimmed), "utf-8")
        out.mkdir(exist_ok=True)
        for name in ("NOTICE", "atlas.npz", "atlas.json"):
            (part / name).replace(out / name)
    watch("done", 1.0)
    return matches


def read_source(
    asked: AtlasSource, data: Path, *, draws: int = 100, seed: int = 0
) -> tuple[Source, Match]:
    """Make one source from a file.

    Raises
    ------
    InputError
        When the file cannot be used.
    """
    match = Match(asked.name, "markers")
    if asked.markers is not None:
        path = OWN_TABLES.get(asked.markers, data / asked.markers)
        columns, genes, values = _from_markers(asked, path, match)
    elif asked.profiles is not None:
        match.kind = "profiles"
        rng = np.random.default_rng([seed, zlib.crc32(asked.name.encode())])
        columns, genes, values = _from_profiles(asked, data, match, draws, rng)
    else:
        match.kind = "cells"
        columns, genes, values = _from_cells(asked, data / str(asked.cells), match)
    source = Source(
        name=asked.name,
        kind=match.kind,  # type: ignore[arg-type]
        study=asked.study or asked.name,
        licence=asked.licence,
        citation=asked.citation,
        genes=tuple(genes),
        columns=tuple(columns),
        values=values,
    )
    return source, match


# --- mean profiles -----------------------------------------------------------------------------


def read_profiles(
    asked: AtlasSource, data: Path, match: Match
) -> tuple[list[Column], list[str], FloatArray]:
    """Read a table of mean profiles with its curation.

    Returns
    -------
    columns
        Type, tissue and disease of each column of the table that is kept.
    genes
        Current symbols, housekeeping genes among them.
    means
        Shape (columns, genes), every row sums to 1.
    """
    path = data / str(asked.profiles)
    frame = _profile_frame(path)
    columns = _curated(asked, data, path, frame)
    if not columns:
        raise InputError(f"{path} has no column of a type; expected genes x types")
    symbols = [resolve(str(gene)) for gene in frame["gene"]]
    match.genes, match.genes_known = len(symbols), sum(map(names.is_known, symbols))
    if not match.genes_known:
        raise InputError(
            f"{path}: none of its {len(symbols)} genes is a known symbol (such as "
            f"{brief(str(frame['gene'].iloc[0]))}); expected HGNC symbols in the column gene"
        )
    try:
        means = frame[list(columns)].to_numpy(dtype=np.float64).T
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} holds values that are not numbers: {error}") from error
    for name, row in zip(columns, means, strict=True):
        if not np.isfinite(row).all() or (row < 0).any() or row.sum() <= 0:
            what = "is all zero" if not row.any() else "holds negative or missing values"
            raise InputError(
                f"{path}: column {brief(name)} {what}; expected mean expression on a linear scale, "
                ">= 0: mend the column or drop it"
            )
    first = ~pd.Index(symbols).duplicated()
    kept = [symbol for symbol, is_first in zip(symbols, first, strict=True) if is_first]
    means = means[:, first]
    _count_known_types(match, [column.label for column in columns.values()])
    return list(columns.values()), kept, means / means.sum(axis=1, keepdims=True)


def _profile_frame(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            tabs = ".tsv" in path.suffixes
            frame = pd.read_csv(path, sep="\t" if tabs else ",", encoding="utf-8-sig")
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"table {path} cannot be read: {error}") from error
    frame = frame.rename(columns=lambda name: str(name).strip())
    if "gene" not in frame.columns:
        found = ", ".join(map(str, frame.columns[:5]))
        raise InputError(f"{path} has no column 'gene' but {found}; expected genes x types with it")
    if not len(frame):
        raise InputError(f"{path} has no rows; expected one per gene")
    return frame


def _curated(asked: AtlasSource, data: Path, path: Path, frame: pd.DataFrame) -> dict[str, Column]:
    """Return the columns to keep, with type, tissue and disease of each."""
    if asked.cell_types is None:
        # pandas renames a second column `B cell` to `B cell.1`: these are samples of one type.
        names = {name: _REPEATED.sub("", name) for name in frame.columns if name != "gene"}
        return {
            name: _column(label if label in names else name, asked.tissue, asked.disease)
            for name, label in names.items()
        }
    try:
        table = pd.read_csv(data / asked.cell_types, dtype=str, encoding="utf-8-sig").fillna("")
        rows = table[(table["profile"] == path.stem) & (table["keep"].str.casefold() == "true")]
        rows = rows[rows["column"].isin(list(frame.columns))]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{data / asked.cell_types} cannot be read ({error}); expected a CSV with profile, "
            "column, cell_type, keep"
        ) from error
    if not len(rows):
        raise InputError(f"{asked.cell_types} keeps no column of {path.stem}")
    where = [rows.get(c, pd.Series("", index=rows.index)) for c in ("tissue", "disease")]
    return {
        column: _column(label, tissue or asked.tissue, disease or asked.disease)
        for column, label, tissue, disease in zip(
            rows["column"], rows["cell_type"], *where, strict=True
        )
    }


def _column(label: str, tissue: str, disease: str, samples: int = 1) -> Column:
    label = " ".join(label.split())
    return Column(label, term_of_name(label), tissue, disease, samples)


def _from_profiles(
    asked: AtlasSource, data: Path, match: Match, draws: int, rng: np.random.Generator
) -> tuple[list[Column], list[str], csr_array]:
    columns, genes, means = read_profiles(asked, data, match)
    telling = np.array([not names.is_housekeeping(gene) for gene in genes])
    shares = [listed_share(mean[telling], draws, rng) for mean in means]
    pooled, values = _pool(columns, np.array(shares))
    return pooled, [g for g, kept in zip(genes, telling, strict=True) if kept], values


def listed_share(mean: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Return how often genes reach the lists of cells drawn from a mean profile, shape (genes,).

    A cell is a Poisson draw of some 2,000 counts after log-normal noise; averaged over `TOPS`.
    """
    top = np.argsort(-mean, kind="stable")[:_CONTENDERS]
    rates, found = mean[top], np.zeros(len(mean))
    for _ in range(draws):
        noisy = rates * np.exp(rng.normal(0.0, CELL_SD, len(rates)))
        depth = DEPTH * np.exp(rng.normal(0.0, DEPTH_SD)) * rates.sum()
        cell = rng.poisson(noisy / max(noisy.sum(), 1e-12) * depth) + rng.random(len(rates)) / 2
        order = np.argsort(-cell, kind="stable")[: TOPS[-1]]
        order = order[cell[order] >= 1]
        for k in TOPS:
            found[top[order[:k]]] += 1
    return found / (draws * len(TOPS))


def _pool(columns: Sequence[Column], shares: FloatArray) -> tuple[list[Column], csr_array]:
    """Pool columns of one type, tissue and disease."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, column in enumerate(columns):
        groups.setdefault((column.key, column.tissue, column.disease), []).append(i)
    pooled = [
        Column(
            columns[m[0]].label, columns[m[0]].term, *key[1:], sum(columns[i].samples for i in m)
        )
        for key, m in groups.items()
    ]
    values = np.array([shares[members].mean(axis=0) for members in groups.values()])
    values[values < _SELDOM] = 0
    return pooled, csr_array(values.astype(np.float32))


# --- annotated cells ---------------------------------------------------------------------------


def _from_cells(
    asked: AtlasSource, path: Path, match: Match
) -> tuple[list[Column], list[str], csr_array]:
    """Count how often the cells of every type list each gene."""
    if path.suffix == ".h5ad":
        cells, universe = _cells_of_h5ad(asked, path, match)
    else:
        cells, universe = _cells_of_puzzles(asked, path)
    groups: dict[Column, list[list[str]]] = {}
    for column, genes in cells:
        groups.setdefault(column, []).append(genes)
    match.genes, match.genes_known = len(universe), sum(map(names.is_known, universe))
    _count_known_types(match, [column.label for column in groups])
    telling = sorted({g for g in universe if not names.is_housekeeping(g)})
    at = {gene: i for i, gene in enumerate(telling)}
    shares = np.zeros((len(groups), len(telling)))
    for row, lists in enumerate(groups.values()):
        for genes in lists:
            for k in TOPS:
                shares[row, [at[g] for g in genes[:k]]] += 1
        shares[row] /= len(lists) * len(TOPS)
    columns = [
        Column(c.label, c.term, c.tissue, c.disease, max(1, min(4, len(lists) // 25)))
        for c, lists in groups.items()
    ]
    pooled, values = _pool(columns, shares)
    return pooled, telling, values


def _cells_of_puzzles(
    asked: AtlasSource, path: Path
) -> tuple[list[tuple[Column, list[str]]], set[str]]:
    from cello1.puzzles.table import read_puzzles

    seen: dict[tuple[str, tuple[str, ...]], tuple[Column, list[str]]] = {}
    for puzzle in read_puzzles(path):
        tissue = str(puzzle.meta.get("tissue") or asked.tissue)
        disease = str(puzzle.meta.get("disease") or asked.disease)
        for label, genes in zip(puzzle.answer or (), puzzle.cells, strict=False):
            seen[(label.casefold(), genes)] = (
                _column(label, tissue, disease),
                names.telling(genes),
            )
    if not seen:
        raise InputError(f"no puzzle of {path} has an answer, so no type can be learned from it")
    # A gene that no cell lists may not have been measured.
    return list(seen.values()), {gene for _, genes in seen.values() for gene in genes}


def _cells_of_h5ad(
    asked: AtlasSource, path: Path, match: Match
) -> tuple[list[tuple[Column, list[str]]], set[str]]:
    from cello1.cells.genes import index_symbols
    from cello1.cells.h5ad.matrix import row_chunks
    from cello1.cells.h5ad.read import open_source
    from cello1.cells.obs import read_obs
    from cello1.cells.rank import rank_chunks
    from cello1.recipes import BuildSettings

    settings = BuildSettings(
        cell_type_key=asked.cell_type_key, suspension_type="any", pooled_donors=True, one_donor=True
    )
    found: list[tuple[Column, list[str]]] = []
    with open_source(path, asked.layer) as source:
        cells = read_obs(source, settings, ("tissue", "disease"))
        match.dropped = {reason: n for reason, n in cells.drops.items() if n}
        symbols = index_symbols(source.symbols)
        current = [resolve(name) for name in symbols.names]
        useful = [not names.is_housekeeping(name) for name in current]
        codes, labels = np.asarray(cells.types), list(cells.type_names)
        for done in rank_chunks(row_chunks(source.matrix), symbols, cells.keep, _DEEP):
            if done.faults.any():
                row = done.rows.start + int(np.argmax(done.faults > 0))
                raise InputError(
                    f"{path}: {source.matrix.name} holds negative, NaN or infinite values in row "
                    f"{row}; expected counts or log-normalised values"
                )
            for i in np.flatnonzero(cells.keep[done.rows]):
                row = done.rows.start + int(i)
                listed = [int(g) for g in done.ranks[i] if g >= 0 and useful[g]][: TOPS[-1]]
                at_row = np.array([row])
                tissue = cells.constant("tissue", at_row) or asked.tissue
                disease = cells.constant("disease", at_row) or asked.disease
                genes = list(dict.fromkeys(current[g] for g in listed))
                found.append((_column(labels[codes[row]], tissue, disease), genes))
    if not found:
        raise InputError(f"{path} has no cell with a type in obs[{asked.cell_type_key!r}]")
    return found, set(current)


# --- markers -----------------------------------------------------------------------------------


def _from_markers(
    asked: AtlasSource, path: Path, match: Match
) -> tuple[list[Column], list[str], csr_array]:
    table = read_markers(path, asked.resources)
    symbols = {gene: resolve(gene) for genes in table.values() for gene in genes}
    match.genes, match.genes_known = len(symbols), sum(map(names.is_known, symbols.values()))
    _count_known_types(match, list(table))
    if not match.genes_known:
        raise InputError(
            f"{path}: none of its {len(symbols)} genes is a known symbol (such as "
            f"{brief(next(iter(symbols)))}); expected HGNC symbols"
        )
    genes = sorted(
        {s for s in symbols.values() if names.is_known(s) and not names.is_housekeeping(s)}
    )
    at = {gene: i for i, gene in enumerate(genes)}
    rows: dict[str, tuple[Column, dict[int, float]]] = {}
    for kind, weights in table.items():
        column = _column(kind, asked.tissue, asked.disease)
        _, row = rows.setdefault(column.key, (column, {}))
        for gene, weight in weights.items():
            if (i := at.get(symbols[gene])) is not None and weight:
                # A gene named both for and against a type counts as for it.
                row[i] = max(row.get(i, -1.0), 1.0 if weight > 0 else -1.0)
    kept = [(column, row) for column, row in rows.values() if row]
    if not kept:
        raise InputError(f"{path} names no gene that tells types apart")
    pairs = [(r, i, v) for r, (_, row) in enumerate(kept) for i, v in sorted(row.items())]
    r, i, v = np.array(pairs).T
    values = csr_array(
        (v.astype(np.float32), (r.astype(int), i.astype(int))), shape=(len(kept), len(genes))
    )
    return [column for column, _ in kept], genes, values


# --- shared ------------------------------------------------------------------------------------


def _count_known_types(match: Match, labels: Sequence[str]) -> None:
    """Count the types that the Cell Ontology knows; a source without any is refused."""
    distinct = sorted({" ".join(label.split()) for label in labels})
    match.types = len(distinct)
    match.unknown_types = [label for label in distinct if term_of_name(label) is None]
    match.types_known = match.types - len(match.unknown_types)
    if not match.types_known:
        first = distinct[0]
        near = suggestions(first)
        raise InputError(
            f"source {match.name!r}: none of its {match.types} types is in the Cell Ontology (such "
            f"as {brief(first)}{f'; is it {near[0]}?' if near else ''}); expected labels such as "
            "'B cell', ids such as CL:0000236, or a curation with cell_types"
        )


@lru_cache(maxsize=1 << 18)
def resolve(symbol: str) -> str:
    """Return the current symbol, also of one in lower or mixed case (`cd79a`)."""
    name = names.current(symbol)
    if names.is_known(name):
        return name
    upper = names.current(symbol.strip().upper())
    return upper if names.is_known(upper) else name


def _trimmed(sources: Sequence[Source]) -> list[Source]:
    """Restrict measured genes to those that some source or the embedded atlas lists.

    The others are never listed, so that knowing that they were measured adds nothing. A gene that
    only markers name is kept if a short list names it: in tables of all genes it never reaches the
    top, but in a data set of few, variable genes it may.
    """
    from cello1.atlas.atlas import EMBEDDED

    listed = {s.genes[i] for s in sources if s.is_table for i in np.unique(s.values.indices)}
    if not listed:
        listed = {gene for s in sources for gene in s.genes}
    listed |= {gene for s in sources if not s.is_table for gene in _named_shortly(s)}
    if (EMBEDDED / "atlas.npz").exists():
        listed |= {g for s in read_sources(EMBEDDED)[0] for g in s.genes}
    made = []
    for source in sources:
        kept = [i for i, gene in enumerate(source.genes) if gene in listed]
        order = sorted(kept, key=lambda i: source.genes[i])
        values = csr_array(source.values[:, order])
        filled = np.flatnonzero(np.diff(values.indptr))
        made.append(
            Source(
                **{**vars(source), "genes": tuple(source.genes[i] for i in order)}
                | {
                    "columns": tuple(source.columns[i] for i in filled.tolist()),
                    "values": csr_array(values[filled]),
                }
            )
        )
    return made


def _named_shortly(source: Source) -> set[str]:
    """Return the genes that a list names for a type of which it names few."""
    values = source.values
    short = np.repeat(np.diff(values.indptr) <= _SHORT, np.diff(values.indptr))
    return {source.genes[i] for i in np.unique(values.indices[short & (values.data > 0)])}


def _notice(sources: Sequence[Source]) -> str:
    """Return the NOTICE: every source with its licence and what to cite."""
    head = (
        "What this atlas was made of. It holds numbers derived from these sources (how often\n"
        "genes reach the top of a list, which genes are named as markers), not the sources.\n"
    )
    entries = [
        f"{s.name}\n    study: {s.study}\n    licence: {s.licence}\n    cite: {s.citation}\n"
        for s in sources
    ]
    return "\n".join([head, *entries])


def _write_symbols(aliases: Path, approved: Path, out: Path) -> None:
    """Write the table of current symbols, and of older ones that mean exactly one of them."""
    try:
        table = pd.read_csv(aliases, sep="\t", dtype=str).fillna("")
        valid = set(pd.read_csv(approved, dtype=str)["symbol"].dropna())
        valid = {symbol for symbol in valid if not symbol.startswith("ENSG")}
        found: dict[str, str] = {symbol: symbol for symbol in valid}
        for column in ("prev_symbol", "alias_symbol"):
            means: dict[str, set[str]] = {}
            for symbol, others in zip(table["symbol"], table[column], strict=True):
                for other in filter(None, others.split("|")):
                    means.setdefault(other.strip(), set()).add(symbol)
            for other, of in means.items():
                if len(of) == 1 and (symbol := next(iter(of))) in valid:
                    found.setdefault(other, symbol)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the symbols cannot be read from {aliases} and {approved}: {error}"
        ) from error
    lines = "".join(f"{name}\t{symbol}\n" for name, symbol in sorted(found.items()))
    with (
        replacing(out / "symbols.tsv.gz") as part,
        part.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
    ):
        packed.write(lines.encode())
