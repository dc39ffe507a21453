"""The genes that a reasoning text cites, for which cell, and whether they are in its list.

It reads symbols of a vocabulary, names of proteins and earlier symbols (`CD20`), joint spellings
(`S100A8/9`) and families (`HLA-D genes`, `IGH*`). It distinguishes symbols that are also words
(`REST`, `SET`) or labels of cells (`C3`), names of types (`CD8 T cell`), genes said to be absent
(`no CD3D`), and genes that a type is expected to show (`look for CD3D`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from cello1.citations.aliases import Aliases, own_aliases
from cello1.citations.genes import TYPE, TYPE_NAMED, genes_in, listed
from cello1.citations.names import names_of
from cello1.citations.reader import Sentence, read
from cello1.puzzles.puzzle import Puzzle

_TIED = re.compile(r"[^,;:()]*\b(?:of|in|for|by)\s+$")


class Citation(NamedTuple):
    """One gene cited for one cell.

    Attributes
    ----------
    cell
        Counted from 1; 0 for a gene that is expected and tied to no cell.
    gene
        The symbol, or a family such as ``IGH*``.
    true
        It is in the list of the cell or, if denied, it is not. Always true for cell 0.
    denied
        The text says that it is absent.
    text
        As spelled in the text.
    mention
        Number of the mention; a gene cited for several cells at once has one number.
    expected
        The text says that a type would show it, or that it is looked for: not evidence about the
        cell.
    """

    cell: int
    gene: str
    true: bool
    denied: bool = False
    text: str = ""
    mention: int = 0
    expected: bool = False


def gene_vocabulary(puzzles: Iterable[Puzzle]) -> frozenset[str]:
    """Return all symbols listed anywhere, so that false citations are recognized as genes."""
    return frozenset(gene for puzzle in puzzles for cell in puzzle.cells for gene in cell)


def citations(
    puzzle: Puzzle,
    reasoning: str,
    vocabulary: Set[str],
    aliases: Aliases | None = None,
    *,
    denied: bool = False,
    expected: bool = False,
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
        Also return genes said to be absent.
    expected
        Also return genes said of types rather than of a cell.
    """
    known = own_aliases() if aliases is None else aliases
    lists = [_with_names(cell, known) for cell in puzzle.cells]
    found, mention = [], 0
    for sentence in read(names_of(puzzle), reasoning):
        for text, cells, of_cell in _pieces(sentence):
            for named in genes_in(text, vocabulary, known, of_cell=of_cell):
                mention += 1
                general = named.expected or not cells
                if (general and not expected) or (named.denied and not (denied or general)):
                    continue
                for cell in cells or (0,):
                    true = not cell or listed(named.gene, lists[cell - 1]) != named.denied
                    found.append(
                        Citation(
                            cell, named.gene, true, named.denied, named.spelled, mention, general
                        )
                    )
    return found


def passage(reasoning: str, cell: int, puzzle: Puzzle) -> str:
    """Return the sentences of a text about one cell (counted from 1), without markup.

    A sentence that names several cells counts for the one it names first; a sentence that names
    none goes with the one before, and so does one that comes back to another cell only in passing
    ("its rival is taken by cell 3").
    """
    kept, current, line = [], 0, -1
    for sentence in read(names_of(puzzle), reasoning):
        if sentence.line != line:
            line = sentence.line
            current = sentence.carried[0] if sentence.carried else 0
        if sentence.cells and (not current or sentence.cells[0].start == 0):
            current = sentence.cells[0].cells[0]
        if current == cell:
            kept.append(sentence.text.strip())
    return " ".join(kept)


def _pieces(sentence: Sentence) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield pieces of a sentence, the cells they are about, and whether one was named just before.

    A piece reaches from one mention of a cell to the next; what comes before the first, or is tied
    to one by `of` or `in`, belongs to it.
    """
    text = TYPE.sub(lambda m: _blank(m[0]), sentence.text)
    for label in sentence.labels:
        text = (
            text[: label.start] + _blank(sentence.text[label.start : label.end]) + text[label.end :]
        )
    current, start = sentence.carried, 0
    pieces: list[tuple[str, tuple[int, ...], bool]] = []
    for mark in sentence.cells:
        tied = _TIED.search(text[start : mark.start])
        cut = start + tied.start() if tied else mark.start
        pieces.append((text[start:cut], current, start > 0))
        current = mark.cells
        pieces.append((text[cut : mark.start], current, False))
        start = mark.end
    if sentence.cells:  # what stands before the first mention is about it
        pieces[0] = (pieces[0][0], sentence.cells[0].cells, False)
    pieces.append((text[start:], current, start > 0))
    yield from (piece for piece in pieces if piece[0].strip())


def _blank(name: str) -> str:
    return TYPE_NAMED + " " * (len(name) - 1)


def _with_names(cell: Iterable[str], aliases: Aliases) -> frozenset[str]:
    """Return the genes of a list, and the current symbols of those listed by earlier names."""
    genes = set(cell)
    return frozenset(genes.union(*(aliases.get(gene, ()) for gene in genes)))
