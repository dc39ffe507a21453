"""Puzzles and solvers small enough to report on in no time, with names that try to break out."""

import sys
from pathlib import Path

import numpy as np

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.solvers.base import Failure, Response
from cello1.solvers.run import solve

sys.path.append(str(Path(__file__).resolve().parent / "solvers"))

EVIL = "<script>window.broken = true</script>"
MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B"],
    "T cell": ["CD3D", "CD3E", "TRAC"],
    "classical monocyte": ["LYZ", "CD14", "S100A8"],
    "natural killer cell": ["NKG7", "GNLY", "KLRD1"],
    EVIL: ["PPBP", "PF4", "GP9"],
}


def toy_puzzle(seed, n=4, genes=8, filler=40):
    """`n` cells of the types above (then of numbered ones), each with two of its markers."""
    rng = np.random.default_rng(seed)
    kinds = [*MARKERS, *(f"type {i} of many" for i in range(20))][: max(n, len(MARKERS))]
    types = [str(t) for t in rng.permutation(kinds)[:n]]
    noise = [f"RPL{i}" for i in range(1, filler)]
    cells = []
    for name in types:
        known = list(rng.choice(MARKERS.get(name, [f"{name[5:7].strip()}X1", "ACTB"]), 2, False))
        listed = [*known, *rng.choice(noise, genes - 2, replace=False)]
        cells.append([str(g) for g in rng.permutation(listed)])
    meta = {
        "donor_id": f"d{seed % 3}",
        "tissue": ("blood", "lung")[seed % 2],
        "dataset": "toy & co",
    }
    candidates = [str(t) for t in rng.permutation(types)]
    return Puzzle(f"Donor {EVIL}", cells, candidates, types, meta)


class Scripted:
    """Says what a function of (number of the puzzle, puzzle) says; None is a failed call."""

    def __init__(self, name, say, shares=False):
        self.name, self.say, self.shares = name, say, shares
        self.settings = {"solver": name}

    def solve(self, puzzles, on_done):
        for i, puzzle in enumerate(puzzles):
            text = self.say(i, puzzle)
            if text is None:
                on_done(puzzle.id, Failure("HTTP 500: <b>overloaded</b>"))
                continue
            given = None
            if self.shares:
                given = np.full((len(puzzle.cells), len(puzzle.candidates)), 0.02)
                for k, label in enumerate(puzzle.answer):
                    given[k, puzzle.candidates.index(label)] = 0.9
            response = Response(
                text,
                seconds=0.2,
                prompt_tokens=90,
                completion_tokens=9,
                probabilities=given,
                probability_method="exact" if self.shares else None,
            )
            on_done(puzzle.id, response)


def knows(i, puzzle):
    """Right, but for every third puzzle, in which two cells are swapped."""
    labels = list(puzzle.answer)
    if i % 3 == 0:
        labels[:2] = labels[1::-1]
    first = puzzle.cells[0]
    lines = [f"Cell 1: {first[0]} and {first[1]} speak for {labels[0]}; Cell 2 is {labels[1]}."]
    lines += ["Cell 2 shows MS4A1 and GNLY.", "All others follow <i>by elimination</i>."]
    return response_text("\n".join(lines), tuple(labels))


def right(i, puzzle):
    """The answer, with ten lines of reasons."""
    lines = [f"Cell {k}: {', '.join(genes[:6])}." for k, genes in enumerate(puzzle.cells, 1)]
    return response_text("\n".join(lines), puzzle.answer)


def stumbles(i, puzzle):
    """No answer, a bad format, a repeated label, or a right answer."""
    right = response_text("", puzzle.answer)
    twice = response_text("", (puzzle.answer[0], *puzzle.answer[:-1]))
    return [None, f"Well, {right}", twice, right][i % 4]


def make_runs(folder, puzzles, **solvers):
    """Solve puzzles by functions, each into a run of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "puzzles.parquet"
    write_puzzles(puzzles, path)
    return [
        solve(path, Scripted(name, say, shares=say is knows), folder / name)
        for name, say in solvers.items()
    ]
