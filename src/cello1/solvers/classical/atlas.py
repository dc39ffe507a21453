"""The atlas as an expert: public tables and markers, without training puzzles.

The scores of every candidate are centred over the cells of a batch, so that a type that all cells
resemble a little gains nothing. Then they are evened: genes of a list are correlated, so a long
list of telling genes holds less evidence than the sum of its genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cello1.atlas import Atlas, Knowledge
from cello1.atlas.tissues import tissue_of_context
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.puzzles.universe import measured_of
from cello1.solvers.base import Floats


class AtlasExpert:
    """An expert that scores by an atlas.

    Parameters
    ----------
    atlas
        By default the embedded one.
    settings
        Settings of the atlas, for the record of a run.
    """

    name = "atlas"

    def __init__(self, atlas: Atlas | None = None, settings: dict[str, Any] | None = None) -> None:
        self.atlas = atlas or Atlas.read()
        self.settings: dict[str, Any] = {"sources": len(self.atlas.sources), **(settings or {})}
        self._ready: dict[str, Floats] = {}
        self._where: tuple[str | None, str | None] = (None, None)

    def knows(self, label: str) -> Knowledge:
        """Return how a candidate is known."""
        return self.atlas.knows(label)

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return calibrated log-scores, centred over the cells, shape (N, M)."""
        self._where = where(puzzle)
        if (ready := self._ready.pop(puzzle.id, None)) is not None:
            return ready
        self.prepare([puzzle])
        return self._ready.pop(puzzle.id)

    def prepare(self, puzzles: Sequence[Puzzle]) -> None:
        """Score many puzzles at once: one sparse product per tissue and set of measured genes."""
        groups: dict[Any, list[Puzzle]] = {}
        for puzzle in puzzles:
            groups.setdefault((*where(puzzle), puzzle.meta.get("universe")), []).append(puzzle)
        for (tissue, disease, note), members in groups.items():
            labels = {key: None for p in members for key in p.candidate_index}
            at = {key: j for j, key in enumerate(labels)}
            listed = self.atlas.indicator([genes for p in members for genes in p.cells])
            universe = measured_of(note) if isinstance(note, str) else None
            scores = self.atlas.scores(
                listed, list(labels), universe=universe, tissue=tissue, disease=disease
            )
            length = np.diff(listed.indptr)
            start = 0
            for puzzle in members:
                stop = start + len(puzzle.cells)
                places = [at[label_key(c)] for c in puzzle.candidates]
                own = np.ascontiguousarray(scores[start:stop, places], dtype=np.float64)
                even = evened(own - own.mean(axis=0), length[start:stop])
                self._ready[puzzle.id] = even / self.atlas.weights.temperature
                start = stop

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the listed genes that support a type (against a rival), strongest first."""
        tissue, disease = self._where
        return self.atlas.evidence(genes, label, rival, tissue=tissue, disease=disease)


def evened(scores: Floats, length: npt.NDArray[np.integer[Any]]) -> Floats:
    """Return scores whose size depends less on how many genes the cells list.

    The scores of a cell are divided by the square root of their spread over the candidates, and all
    scores by the square root of the mean number of genes that may be evidence.

    Parameters
    ----------
    scores
        Centred over the cells, shape (N, M).
    length
        Number of genes of each cell that may be evidence, shape (N,).
    """
    spread = scores.std(axis=1, keepdims=True)
    return np.asarray(scores / np.sqrt((spread + 1) * (length.mean() + 1)), dtype=np.float64)


def where(puzzle: Puzzle) -> tuple[str | None, str | None]:
    """Return tissue and disease of a puzzle, from its metadata, or else from its context."""
    tissue = puzzle.meta.get("tissue") or tissue_of_context(puzzle.context)
    disease = puzzle.meta.get("disease")
    return (None if tissue is None else str(tissue), None if disease is None else str(disease))
