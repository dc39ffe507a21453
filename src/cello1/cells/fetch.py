"""Turn drawn positions into puzzles, reading only what the drawn cells need."""

from __future__ import annotations

from typing import IO, Any

import numpy as np

from cello1.cells.context import group_context, organism_of
from cello1.cells.draw import Draw
from cello1.cells.genes import Symbols
from cello1.cells.h5ad.read import Source
from cello1.cells.obs import ONE_DONOR, POOLED, Cells, term_of_type
from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.universe import note_of
from cello1.recipes import BuildSettings

# The group of a drawn puzzle, and with a split by cell which part of it.
Home = tuple[int, str | None]


class Fetch:
    """Turns draws into puzzles, reading only what the drawn cells need."""

    def __init__(
        self,
        source: Source,
        cells: Cells,
        symbols: Symbols,
        settings: BuildSettings,
        lists: IO[bytes],
    ) -> None:
        self.source, self.cells, self.symbols, self.settings = source, cells, symbols, settings
        # Lists were written for the cells kept before shallow ones were dropped.
        self.slot = np.cumsum(cells.groups >= 0) - 1
        self.lists = lists
        self.organism = organism_of(source, cells)
        self.terms = term_of_type(cells)
        self.genes_meta = {
            "matrix": source.matrix.name,
            "values": source.values,
            "top": settings.top_genes,
            "excluded": list(settings.exclude_genes),
        }
        self.universe = note_of(symbols.names)

    def puzzles(self, draws: list[Draw], homes: list[Home]) -> list[Puzzle]:
        """Make all puzzles of the file."""
        needed = sorted({cell for draw in draws for cell in draw.cells})
        genes = dict(zip(needed, self._genes(needed), strict=True))
        ids = dict(zip(needed, self.source.obs.names(np.array(needed)), strict=True))
        shared = {home: self._group_meta(home) for home in {homes[draw.group][0] for draw in draws}}
        puzzles = []
        for draw in draws:
            home, part = homes[draw.group]
            context, meta = shared[home]
            if part is not None:
                meta = {**meta, "split": "cell", "cell_split": part}
            elif self.settings.split == "puzzle":
                meta = {**meta, "split": "puzzle"}
            labels = [self.cells.type_names[t] for t in draw.types]
            puzzles.append(
                Puzzle(
                    context=context,
                    cells=tuple(genes[cell] for cell in draw.cells),
                    candidates=tuple(self.cells.type_names[t] for t in draw.candidates),
                    answer=tuple(labels),
                    meta={
                        **meta,
                        "cell_ids": [ids[cell] for cell in draw.cells],
                        "cell_terms": [self.terms.get(label) for label in labels],
                    },
                )
            )
        return puzzles

    def _genes(self, cells: list[int]) -> list[tuple[str, ...]]:
        """Return the gene lists of some cells, looking up only theirs."""
        k = self.settings.top_genes
        # Not mapped: the system maps around what is touched, in the end lists of all cells.
        stored = b"".join(self._list(place, k) for place in self.slot[cells].tolist())
        ranks = np.frombuffer(stored, dtype=np.int32).reshape(-1, k)
        names = np.array(self.symbols.names, dtype=object)[ranks].tolist()
        lengths = (ranks >= 0).sum(axis=1).tolist()  # they are filled up with -1
        return [tuple(listed[:n]) for listed, n in zip(names, lengths, strict=True)]

    def _list(self, place: int, k: int) -> bytes:
        size = k * np.dtype(np.int32).itemsize
        self.lists.seek(place * size)
        return self.lists.read(size)

    def _group_meta(self, home: int) -> tuple[str, dict[str, Any]]:
        members = np.flatnonzero((self.cells.groups == home) & self.cells.keep)
        donor, batch, tissue = self.cells.group_keys[home]
        kind = self.cells.donor_kind[home]
        # Where cells of one donor differ (healthy beside ill), no single disease is named.
        diseases = self.cells.values("disease", members)
        flags = {
            "pooled": kind == POOLED,
            "one_donor": kind == ONE_DONOR,
            "synthetic": self.cells.constant("is_synthetic", members) == "True",
        }
        meta = {
            "dataset": self.source.dataset,
            "donor_id": donor,
            "batch": batch,
            "tissue": tissue,
            "disease": self.cells.constant("disease", members),
            "genes": self.genes_meta,
            "prompt_version": PROMPT_VERSION,
            **({} if self.universe is None else {"universe": self.universe}),
            **({} if (study := self.cells.studies[home]) is None else {"dataset_id": study}),
            **{name: True for name, on in flags.items() if on},
            **({} if len(diseases) < 2 else {"diseases": diseases}),
        }
        context = group_context(self.cells, members, self.organism, self.settings.context_columns)
        return context, meta
