"""cello1: cell type annotation as a puzzle that is solved for the whole batch at once.

The public names are loaded when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cello1 import get, pl, tl
    from cello1.cells.audit import audit
    from cello1.cells.build import build
    from cello1.cells.simulate import simulate
    from cello1.puzzles.puzzle import Puzzle
    from cello1.puzzles.table import from_dataset, read_puzzles, to_dataset, write_puzzles
    from cello1.scoring.evaluate import evaluate
    from cello1.scoring.score import Score, score
    from cello1.solvers.run import solve

_HOMES = {
    "Puzzle": "cello1.puzzles.puzzle",
    "Score": "cello1.scoring.score",
    "audit": "cello1.cells.audit",
    "build": "cello1.cells.build",
    "evaluate": "cello1.scoring.evaluate",
    "from_dataset": "cello1.puzzles.table",
    "read_puzzles": "cello1.puzzles.table",
    "score": "cello1.scoring.score",
    "simulate": "cello1.cells.simulate",
    "solve": "cello1.solvers.run",
    "to_dataset": "cello1.puzzles.table",
    "write_puzzles": "cello1.puzzles.table",
}
# The three rooms of scverse: tools, plots, and what they leave behind.
_ROOMS = ("get", "pl", "tl")
__all__ = [
    "Puzzle",
    "Score",
    "audit",
    "build",
    "evaluate",
    "from_dataset",
    "get",
    "pl",
    "read_puzzles",
    "score",
    "simulate",
    "solve",
    "tl",
    "to_dataset",
    "write_puzzles",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("cello1")
    if name in _ROOMS:
        return import_module(f"cello1.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cello1' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
