"""A response as marked text: each cell it names is a link, each gene it cites is checked.

The rule that ties a gene to a cell is the one of :mod:`cello1.training.citations`. What comes out
is plain data (strings and short lists); the page makes text nodes of it, never markup.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.markers import Markers
from cello1.training.citations import CELL, citations

# What a mark says of a gene; the page has a class and a word for each.
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
    """Cut a text where it names a cell or cites a gene.

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
        The table that tells known markers; a gene is one if it speaks for the type its cell is
        given, and it stands in the list of the cell.
    """
    whole, text = text, text[:MOST_CHARACTERS]
    marks: list[tuple[int, Piece, int]] = []
    for cited in citations(puzzle, text, vocabulary):
        label = given[cited.cell - 1]
        kind = ABSENT if not cited.true else MARKER if _marks(markers, label, cited.gene) else 0
        marks.append((cited.start, [cited.gene, cited.cell, kind], len(cited.gene)))
    for named in CELL.finditer(text):
        number = int(named[1])
        if 1 <= number <= len(puzzle.cells):
            marks.append((named.start(), [named.group(), number], len(named.group())))
    pieces: list[Piece] = []
    end = 0
    for start, piece, length in sorted(marks, key=lambda mark: mark[0]):
        if start >= end:  # a gene called CELL would overlap the cell it is cited for
            pieces += [text[end:start], piece]
            end = start + length
    pieces.append(text[end:] + (" [cut here]" if len(whole) > len(text) else ""))
    return [piece for piece in pieces if piece]


def _marks(markers: Markers, label: str | None, gene: str) -> bool:
    kind = None if label is None else markers.entry(label)
    return kind is not None and markers.weights[kind].get(gene, 0.0) > 0
