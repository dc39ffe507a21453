"""The sources of practice: mean profiles of many tissues and real cells, in one small file.

A source is the columns of one tissue of a table, or the real cells of one donor and batch: the
types that can occur together in a puzzle. The file holds all that training needs, so that the
training machine needs neither tables nor ontology: shares of the genes that can reach a cell's
list, the ranked lists of real cells, and the names and ancestors of every type.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import write_atomic

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

# A gene below this share of every column never reaches the list of a cell.
LEAST_SHARE = 2e-4
_UP = 3  # most steps up to a wider type that may name a cell
# Terms above most others are not informative.
_MOST_BELOW = 400


@dataclass(frozen=True)
class Table:
    """Mean profiles of one study.

    Attributes
    ----------
    name
        Name of the table.
    genes
        Positions in the list of all genes, shape (genes,).
    shares
        Share of a cell's counts, shape (columns, genes).
    types
        Type of each column, as a position in the list of all types.
    groups
        Tissue of each column, as a position in `contexts`.
    contexts
        Tissue, disease and development of each group.
    """

    name: str
    genes: Ints
    shares: Floats32
    types: Ints
    groups: Ints
    contexts: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Lists:
    """Ranked lists of real cells of one donor and batch.

    Attributes
    ----------
    name
        Data set, donor and batch.
    context
        Context of the puzzles.
    types
        Type of each cell, as a position in the list of all types.
    cells
        Positions of genes, highest expression first; shape (cells, longest), padded with -1.
    """

    name: str
    context: str
    types: Ints
    cells: Ints


@dataclass(frozen=True)
class Sources:
    """All sources of practice.

    Attributes
    ----------
    genes
        Symbols, in alphabetical order.
    types
        Labels.
    names
        Synonyms of each type.
    wider
        Names of the ancestors of each type, nearest first.
    nested
        Shape (types, types): whether the first is an ancestor of the second, or the same.
    words
        Names of other types, to train the tokenizer on.
    tables, lists
        Profiles and real cells.
    """

    genes: list[str]
    types: list[str]
    names: list[list[str]]
    wider: list[list[str]]
    nested: npt.NDArray[np.bool_]
    words: list[str]
    tables: list[Table] = field(default_factory=list)
    lists: list[Lists] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write everything as one compressed file of arrays, nothing pickled."""
        text = {
            "genes": self.genes,
            "types": self.types,
            "names": self.names,
            "wider": self.wider,
            "words": self.words,
            "tables": [[t.name, t.contexts] for t in self.tables],
            "lists": [[group.name, group.context] for group in self.lists],
        }
        arrays: dict[str, Any] = {
            "text": np.frombuffer(json.dumps(text).encode(), dtype=np.uint8),
            "nested": self.nested,
        }
        for i, table in enumerate(self.tables):
            arrays[f"table{i}.genes"] = table.genes
            # The root in half precision keeps small shares distinct.
            arrays[f"table{i}.shares"] = np.sqrt(table.shares).astype(np.float16)
            arrays[f"table{i}.types"] = table.types
            arrays[f"table{i}.groups"] = table.groups
        for i, group in enumerate(self.lists):
            arrays[f"list{i}.types"] = group.types
            arrays[f"list{i}.cells"] = group.cells
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Sources:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        InputError
            When it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
                text = json.loads(bytes(arrays["text"]))
                tables = [
                    Table(
                        name,
                        arrays[f"table{i}.genes"],
                        np.square(arrays[f"table{i}.shares"].astype(np.float32)),
                        arrays[f"table{i}.types"],
                        arrays[f"table{i}.groups"],
                        [(c[0], c[1], c[2]) for c in contexts],
                    )
                    for i, (name, contexts) in enumerate(text["tables"])
                ]
                lists = [
                    Lists(name, context, arrays[f"list{i}.types"], arrays[f"list{i}.cells"])
                    for i, (name, context) in enumerate(text["lists"])
                ]
                return cls(
                    text["genes"], text["types"], text["names"], text["wider"],
                    arrays["nested"], text["words"], tables, lists,
                )  # fmt: skip
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} holds no sources of practice ({error}); `cello1 base` writes them from "
                "its settings profiles and puzzles"
            ) from error


def gather(
    profiles: Sequence[Path], cell_types: Path | None, puzzles: Sequence[Sequence[Puzzle]]
) -> Sources:
    """Gather the sources of practice.

    Parameters
    ----------
    profiles
        Tables of mean expression: a column ``gene``, one column per type.
    cell_types
        A CSV that curates the columns: ``profile``, ``column``, ``cell_type``, ``tissue``,
        ``disease``, ``development``, ``keep``.
    puzzles
        Built training puzzles, for real cells.
    """
    import pandas as pd

    from cello1.scoring import ontology

    curated = None if cell_types is None else pd.read_csv(cell_types, dtype=str)
    labels = {label for source in puzzles for p in source for label in p.candidates}
    raw = []
    symbols: set[str] = {g for source in puzzles for p in source for c in p.cells for g in c}
    for path in sorted(profiles):
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        frame = frame[frame["gene"].notna() & ~frame["gene"].duplicated()].set_index("gene")
        if curated is None:
            rows = pd.DataFrame({"column": frame.columns, "cell_type": frame.columns})
            rows = rows.assign(tissue="unknown", disease="normal", development="adult")
        else:
            rows = curated[(curated["profile"] == path.stem) & (curated["keep"] == "True")]
        rows = rows.fillna({"tissue": "unknown", "disease": "normal", "development": "adult"})
        means = np.clip(np.nan_to_num(frame[rows["column"]].to_numpy(np.float64)), 0, None)
        total = means.sum(axis=0)
        rows, means = rows[total > 0], means[:, total > 0]
        if not len(rows):
            continue
        shares = means / means.sum(axis=0)
        telling = shares.max(axis=1) >= LEAST_SHARE
        genes = frame.index[telling].astype(str).tolist()
        symbols |= set(genes)
        labels |= set(rows["cell_type"])
        raw.append((path.stem, genes, shares[telling].T, rows))
    genes = sorted(symbols)
    types = sorted(labels)
    gene_at = {gene: i for i, gene in enumerate(genes)}
    type_at = {label: i for i, label in enumerate(types)}
    tables = []
    for name, own, shares, rows in raw:
        keys = list(zip(rows["tissue"], rows["disease"], rows["development"], strict=True))
        contexts = sorted(set(keys))
        tables.append(
            Table(
                name,
                np.array([gene_at[g] for g in own], np.int32),
                shares.astype(np.float32),
                np.array([type_at[label] for label in rows["cell_type"]], np.int32),
                np.array([contexts.index(key) for key in keys], np.int32),
                contexts,
            )
        )
    terms = [ontology.term_id(label) for label in types]
    return Sources(
        genes, types, [ontology.synonyms(label) for label in types], _wider(terms),
        ontology.above(terms), sorted(ontology.labels().values()), tables,
        _real(puzzles, gene_at, type_at),
    )  # fmt: skip


def _wider(terms: Sequence[str | None]) -> list[list[str]]:
    """Return names of the ancestors of each term, nearest first, without uninformative ones."""
    from cello1.scoring import ontology

    below = Counter(upper for term in ontology.labels() for upper in ontology.ancestors(term))
    wider = []
    for term in terms:
        up = {} if term is None else ontology.steps_up(term)
        near = [(steps, t) for t, steps in up.items() if 0 < steps <= _UP]
        kept = [ontology.term_label(t) for _, t in sorted(near) if below[t] <= _MOST_BELOW]
        wider.append([name for name in kept if name is not None])
    return wider


def _real(
    puzzles: Sequence[Sequence[Puzzle]], gene_at: dict[str, int], type_at: dict[str, int]
) -> list[Lists]:
    """Collect the distinct cells of puzzles, by donor and batch."""
    pools: dict[tuple[str, ...], dict[tuple[tuple[str, ...], str], None]] = {}
    contexts: dict[tuple[str, ...], str] = {}
    for source in puzzles:
        for puzzle in source:
            meta = puzzle.meta
            key = tuple(str(meta.get(name)) for name in ("dataset", "donor_id", "batch", "tissue"))
            contexts.setdefault(key, puzzle.context)
            pool = pools.setdefault(key, {})
            for cell, label in zip(puzzle.cells, puzzle.answer or (), strict=True):
                pool[cell, label] = None
    found = []
    for key, pool in sorted(pools.items()):
        width = max(len(cell) for cell, _ in pool)
        cells = np.full((len(pool), width), -1, np.int32)
        for row, (cell, _) in zip(cells, pool, strict=True):
            row[: len(cell)] = [gene_at[g] for g in cell]
        types = np.array([type_at[label] for _, label in pool], np.int32)
        name = ", ".join(part for part in key[:3] if part != "None")
        found.append(Lists(name, contexts[key], types, cells))
    return found
