"""Markers: score a cell by the known marker genes in its list.

Tables are read by :func:`cello1.atlas.markers.read_markers`; a small one comes with the package.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cello1.atlas import Knowledge
from cello1.atlas.markers import OWN_TABLE, Table, read_markers, term_of_name
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.scoring.ontology import ancestors, term_id
from cello1.solvers.base import Floats

__all__ = ["OWN_TABLE", "Markers", "Table", "read_markers"]

# A marker at the top of the list has twice the weight of one at its end.
_TOP_BONUS = 1.0


class Markers:
    """An expert that scores by a table of markers.

    Parameters
    ----------
    table
        Type -> gene -> weight.
    source
        Source of the table, for the record.
    """

    name = "markers"

    def __init__(self, table: Mapping[str, Mapping[str, float]], source: str = "own table") -> None:
        spread = Counter(gene for genes in table.values() for gene in genes)
        # A gene that marks few types is more informative (inverse document frequency).
        self.weights: dict[str, dict[str, float]] = {
            kind: {g: w * math.log(1 + len(table) / spread[g]) for g, w in genes.items()}
            for kind, genes in sorted(table.items())
        }
        self._by_name = {_plain(kind): kind for kind in self.weights}
        self._by_term = {t: kind for kind in self.weights if (t := term_of_name(kind)) is not None}
        self._found: dict[str, str | None] = {}
        self.settings: dict[str, Any] = {"markers": source, "types": len(self.weights)}

    @classmethod
    def from_file(cls, path: Path | None = None) -> Markers:
        """Read a table; without a path, the one that comes with the package."""
        own = path is None
        return cls(read_markers(path or OWN_TABLE), "own table" if own else path.name)  # type: ignore[union-attr]

    def entry(self, label: str) -> str | None:
        """Find the entry for a type: by name, by ontology term, else its nearest ancestor's."""
        key = label_key(label)
        if key not in self._found:
            self._found[key] = self._find(label)
        return self._found[key]

    def knows(self, label: str) -> Knowledge:
        """Return whether a type has its own markers, only those of an ancestor, or none."""
        kind = self.entry(label)
        if kind is None:
            return Knowledge("not at all", ())
        term = term_id(label)
        own = _plain(kind) == _plain(label) or (
            term is not None and self._by_term.get(term) == kind
        )
        return Knowledge("source" if own else "relative", (kind,))

    def _find(self, label: str) -> str | None:
        if (kind := self._by_name.get(_plain(label))) is not None:
            return kind
        term = term_id(label)
        if term is None:
            return None
        # The nearest ancestor is the one that has the most ancestors.
        above = [t for t in ancestors(term) if t in self._by_term]
        nearest = max(above, key=lambda t: (len(ancestors(t)), t), default=None)
        return self._by_term.get(term) or (self._by_term[nearest] if nearest else None)

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return weighted overlaps, shape (N, M); a type without markers scores 0."""
        scores = np.zeros((len(puzzle.cells), len(puzzle.candidates)))
        for i, genes in enumerate(puzzle.cells):
            bonus = {g: 1 + _TOP_BONUS * (1 - r / len(genes)) for r, g in enumerate(genes)}
            for j, label in enumerate(puzzle.candidates):
                kind = self.entry(label)
                if kind is not None:
                    known = self.weights[kind]
                    found = sum(known[g] * b for g, b in bonus.items() if g in known)
                    # Long marker lists are hit more often by chance.
                    scores[i, j] = found / math.sqrt(1 + math.log(len(known)))
        return scores

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the listed markers that have a higher weight for the type than for the rival."""
        kind, other = self.entry(label), None if rival is None else self.entry(rival)
        known = self.weights[kind] if kind else {}
        against = self.weights[other] if other else {}
        gains = [(known.get(g, 0.0) - against.get(g, 0.0), g) for g in genes if g in known]
        return [gene for gain, gene in sorted(gains, key=lambda x: (-x[0], x[1])) if gain > 0]


def _plain(label: str) -> str:
    """Normalise a name to singular words: 'B cells' and 'B-cell' are equal."""
    words = re.findall(r"[\w+]+", label.casefold())
    return " ".join(word.removesuffix("s") if len(word) > 3 else word for word in words)
