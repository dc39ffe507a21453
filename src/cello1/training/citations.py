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

CELL = re.compile(r"\bcell\s+(\d+)\b", re.IGNORECASE)
TOKEN = re.compile(r"[A-Za-z0-9][\w.\-]*[A-Za-z0-9]")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")
_DENIED = re.compile(r"\b(?:no|not|lacks?|lacking|without|absent|absence|missing)\b[^.;\n]*")


class Citation(NamedTuple):
    """One gene cited for one cell, and where in the reasoning it stands."""

    cell: int
    gene: str
    true: bool
    start: int


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
    for start, text, number in _parts(labels.sub(_blank, reasoning)):
        if 1 <= number <= len(lists):
            for token in TOKEN.finditer(_DENIED.sub(_blank, text)):
                if (gene := token.group()) in vocabulary:
                    listed = gene in lists[number - 1]
                    found.append(Citation(number, gene, listed, start + token.start()))
    return found


def _blank(match: re.Match[str]) -> str:
    """Blank a passage out, so that what follows keeps its place."""
    return " " * len(match.group())


def _parts(reasoning: str) -> Iterator[tuple[int, str, int]]:
    """Yield the parts of a text that speak of exactly one cell: where, what, the cell's number."""
    for line in re.finditer(r"[^\n]+", reasoning):
        named = set(CELL.findall(line.group()))
        if len(named) == 1:
            yield line.start(), line.group(), int(named.pop())
        elif named:
            start = 0
            for end in [*(m.end() for m in _SENTENCE.finditer(line.group())), len(line.group())]:
                sentence = line.group()[start:end]
                if len(named := set(CELL.findall(sentence))) == 1:
                    yield line.start() + start, sentence, int(named.pop())
                start = end
