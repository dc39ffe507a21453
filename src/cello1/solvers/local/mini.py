"""The embedded model: a small Cell-o1 of this project's own, which answers offline on a laptop.

What it is made of, how good it is and the command that made it stand in its card,
`cello1/models/mini/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.runs import file_hash
from cello1.solvers.local.language import LanguageModel

FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"


class Mini(LanguageModel):
    """The embedded model, known by its weights and not by where it is installed."""

    def __init__(self) -> None:
        super().__init__(FOLDER)

    @property
    def name(self) -> str:
        """Display name."""
        return "mini"

    @property
    def identity(self) -> dict[str, Any]:
        """What a run folder records about it."""
        return {"solver": "mini", "weights": file_hash(FOLDER / "model.safetensors")}
