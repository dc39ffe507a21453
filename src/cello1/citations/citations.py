"""The genes that a reasoning text cites, for which cell, and whether they are in its list.

Read are symbols of a vocabulary, names of proteins and earlier symbols (`CD20`), joint spellings
(`S100A8/9`) and families (`HLA-D genes`, `IGH*`). Told apart are symbols that are also words
(`REST`, `SET`) or labels of cells (`C3`), names of types (`CD8 T cell`), and what is denied (`no
CD3D`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import NamedTuple

from cello1.citations.aliases import Aliases, own_aliases
from cello1.citations.text import TOKEN, TYPE, genes_in, listed, parts
from cello1.puzzles.puzzle import Puzzle

__all__ = ["TOKEN", "Citation", "citations", "gene_vocabulary"]


class Citation(NamedTuple):
    """One gene cited for one cell.

    Attributes
    ----------
    cell
        Counted from 1.
    gene
        The symbol, or a family such as ``IGH*``.
    true
        It is in the list of the cell; of a denied one, that it is not.
    denied
        The text says that it is not there.
    text
        As it was spelled.
    mention
        Counts the genes spelled out; one that is cited for several cells at once has one number.
    """

    cell: int
    gene: str
    true: bool
    denied: bool = False
    text: str = ""
    mention: int = 0


def gene_vocabulary(puzzles: Iterable[Puzzle]) -> frozenset[str]:
    """Return all symbols that are listed anywhere, so that made-up citations are recognised."""
    return frozenset(gene for puzzle in puzzles for cell in puzzle.cells for gene in cell)


def citations(
    puzzle: Puzzle,
    reasoning: str,
    vocabulary: Set[str],
    aliases: Aliases | None = None,
    *,
    denied: bool = False,
) -> list[Citation]:
    """Find the genes cited for each cell.

    Parameters
    ----------
    puzzle
        The puzzle; cells are counted from 1.
    reasoning
        The think block.
    vocabulary
        What counts as a gene.
    aliases
        Other names, from :func:`read_aliases`; by default those of the package.
    denied
        Return what is said to be absent as well.
    """
    known = own_aliases() if aliases is None else aliases
    lists = [_with_names(cell, known) for cell in puzzle.cells]
    names = sorted(puzzle.candidates, key=len, reverse=True)
    labels = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
    found, mention = [], 0
    for text, cells in parts(TYPE.sub(" ", labels.sub(" ", reasoning)), len(lists)):
        for gene, spelled, absent in genes_in(text, vocabulary, known):
            mention += 1
            for cell in cells:
                there = listed(gene, lists[cell - 1])
                if denied or not absent:
                    found.append(Citation(cell, gene, there != absent, absent, spelled, mention))
    return found


def _with_names(cell: Iterable[str], aliases: Aliases) -> frozenset[str]:
    """Return the genes of a list, and the current symbols of those listed by an earlier name."""
    genes = set(cell)
    return frozenset(genes.union(*(aliases.get(gene, ()) for gene in genes)))
