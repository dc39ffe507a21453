"""cello1: cell type annotation as a puzzle that is solved for the whole batch at once.

The public names are loaded when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cello1.caches import settle_caches

if TYPE_CHECKING:
    from cello1 import get, pl, report, tl
    from cello1.cells.audit import audit
    from cello1.cells.build import build
    from cello1.cells.simulate import simulate
    from cello1.puzzles.puzzle import Puzzle
    from cello1.puzzles.table import from_dataset, read_puzzles, to_dataset, write_puzzles
    from cello1.scoring.evaluate import evaluate
    from cello1.scoring.score import Score, score
    from cello1.solvers.run import solve
    from cello1.training.base.base import base
    from cello1.training.distill.distill import distill
    from cello1.training.merge import merge
    from cello1.training.rl.rl import rl
    from cello1.training.sft.sft import sft

    __version__: str

settle_caches()

_HOMES = {
    "Puzzle": "cello1.puzzles.puzzle",
    "Score": "cello1.scoring.score",
    "audit": "cello1.cells.audit",
    "base": "cello1.training.base.base",
    "build": "cello1.cells.build",
    "distill": "cello1.training.distill.distill",
    "evaluate": "cello1.scoring.evaluate",
    "from_dataset": "cello1.puzzles.table",
    "merge": "cello1.training.merge",
    "read_puzzles": "cello1.puzzles.table",
    "rl": "cello1.training.rl.rl",
    "score": "cello1.scoring.score",
    "sft": "cello1.training.sft.sft",
    "simulate": "cello1.cells.simulate",
    "solve": "cello1.solvers.run",
    "to_dataset": "cello1.puzzles.table",
    "write_puzzles": "cello1.puzzles.table",
}
# The three rooms of scverse (tools, plots, what they leave behind), and one that can be called.
_ROOMS = ("get", "pl", "report", "tl")
__all__ = [
    "Puzzle",
    "Score",
    "audit",
    "base",
    "build",
    "distill",
    "evaluate",
    "from_dataset",
    "get",
    "merge",
    "pl",
    "read_puzzles",
    "report",
    "rl",
    "score",
    "sft",
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
