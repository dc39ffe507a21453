"""Do the genes a response cites really stand in the lists of their cells? A simple check.

A line that speaks of one cell only ("Cell 3 shows MS4A1") counts for that cell; in a line that
speaks of several, every sentence that names just one does. What is denied ("no CD3D") and the
names of candidates ("CD8 T cell") are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from cello1.puzzles.puzzle import Puzzle

_CELL = re.compile(r"\bcell\s+(\d+)\b", re.IGNORECASE)
TOKEN = re.compile(r"[A-Za-z0-9][\w.\-]*[A-Za-z0-9]")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")
_DENIED = re.compile(r"\b(?:no|not|lacks?|lacking|without|absent|absence|missing)\b[^.;\n]*")


class Citation(NamedTuple):
    """One gene cited for one cell."""

    cell: int
    gene: str
    true: bool


def gene_vocabulary(puzzles: Iterable[Puzzle]) -> frozenset[str]:
    """Return all symbols that are listed anywhere, so that made-up citations are recognised."""
    return frozenset(gene for puzzle in puzzles for cell in puzzle.cells for gene in cell)


def citations(puzzle: Puzzle, reasoning: str, vocabulary: Set[str]) -> list[Citation]:
    """Find the genes cited for each cell.

    Parameters
    ----------
    puzzle
        The puzzle; cells are counted from 1.
    reasoning
        The think block.
    vocabulary
        What counts as a gene.
    """
    found: list[Citation] = []
    lists = [set(cell) for cell in puzzle.cells]
    names = sorted(puzzle.candidates, key=len, reverse=True)
    labels = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
    for text, number in _parts(labels.sub(" ", reasoning)):
        if 1 <= number <= len(lists):
            tokens = TOKEN.findall(_DENIED.sub(" ", text))
            genes = [token for token in tokens if token in vocabulary]
            found += [Citation(number, gene, gene in lists[number - 1]) for gene in genes]
    return found


def _parts(reasoning: str) -> Iterator[tuple[str, int]]:
    """Yield the parts of a text that speak of exactly one cell, and its number."""
    for line in reasoning.split("\n"):
        named = set(_CELL.findall(line))
        if len(named) == 1:
            yield line, int(named.pop())
        elif named:
            for sentence in _SENTENCE.split(line):
                if len(named := set(_CELL.findall(sentence))) == 1:
                    yield sentence, int(named.pop())
