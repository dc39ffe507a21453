"""A response as marked text: each cell it names is a link, each gene it cites is checked.

Genes are tied to cells by :mod:`cello1.citations.citations`. The result is plain data (strings and
short lists), of which the page makes text nodes, never markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set

from cello1.citations.citations import Citation, citations
from cello1.citations.names import find_cells
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.classical.markers import Markers

# Kinds of marks of a gene; the page has a class and a word for each.
SUPPORTED, MARKER, ABSENT = 0, 1, 2
MOST_CHARACTERS = 20_000

# Plain text, ["Cell 3", 3] for a cell, or ["CD3D", 3, SUPPORTED] for a gene cited for that cell.
Piece = str | list[str | int]


def marked(
    puzzle: Puzzle,
    text: str,
    given: Sequence[str | None],
    vocabulary: Set[str],
    markers: Markers,
) -> list[Piece]:
    """Split a text where it names a cell or cites a gene.

    Parameters
    ----------
    puzzle
        The puzzle.
    text
        The reasoning, or a whole response that could not be read; cut at `MOST_CHARACTERS`.
    given
        The type the response gives each cell, or None.
    vocabulary
        What counts as a gene.
    markers
        Table of known markers; a gene is one if it speaks for the type given to its cell and is in
        the list of the cell.
    """
    whole, text = text, text[:MOST_CHARACTERS]
    marks: list[tuple[int, Piece, int]] = []
    for start, cited in _placed(puzzle, text, vocabulary):
        label = given[cited.cell - 1]
        kind = ABSENT if not cited.true else MARKER if _marks(markers, label, cited.gene) else 0
        marks.append((start, [cited.text, cited.cell, kind], len(cited.text)))
    marks += [(start, [name, cell], len(name)) for start, name, cell in _cells(puzzle, text)]
    pieces: list[Piece] = []
    end = 0
    for start, piece, length in sorted(marks, key=lambda mark: mark[0]):
        if start >= end:  # a gene called CELL would overlap the cell it is cited for
            pieces += [text[end:start], piece]
            end = start + length
    pieces.append(text[end:] + (" [cut here]" if len(whole) > len(text) else ""))
    return [piece for piece in pieces if piece]


def _cells(puzzle: Puzzle, text: str) -> Iterator[tuple[int, str, int]]:
    """Yield (start, text, cell) of the cells named; several at once number by number."""
    for named in find_cells(text, len(puzzle.cells)):
        if len(named.cells) == 1:
            yield named.start, text[named.start : named.end], named.cells[0]
            continue
        for number in re.finditer(r"\d+", text[named.start : named.end]):
            if int(number[0]) in named.cells:
                yield named.start + number.start(), number[0], int(number[0])


def _placed(puzzle: Puzzle, text: str, vocabulary: Set[str]) -> Iterator[tuple[int, Citation]]:
    """Yield the position of each cited gene; denied or expected ones are only skipped."""
    end = mention = 0
    for cited in citations(puzzle, text, vocabulary, denied=True, expected=True):
        if cited.mention == mention:  # the same word, for another cell
            continue
        mention = cited.mention
        spelled = re.compile(rf"(?<![\w-]){re.escape(cited.text)}(?!\w)")
        if (place := spelled.search(text, end)) is None:
            continue  # joint spellings such as S100A8/9 do not stand there letter by letter
        end = place.end()
        if not (cited.denied or cited.expected):
            yield place.start(), cited


def _marks(markers: Markers, label: str | None, gene: str) -> bool:
    kind = None if label is None else markers.entry(label)
    return kind is not None and markers.weights[kind].get(gene, 0.0) > 0
