"""The embedded model: a small Cell-o1 of this project, which answers offline on a laptop.

Its training data, its accuracy and the command that made it are in its card,
`cello1/models/mini/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.runs import file_hash
from cello1.solvers.local.language import LanguageModel

FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"


class Mini(LanguageModel):
    """The embedded model, identified by its weights rather than by its path."""

    def __init__(self, *, load: bool = True) -> None:
        super().__init__(FOLDER, load=load)

    @property
    def name(self) -> str:
        """Display name."""
        return "mini"

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a run folder records."""
        return {"solver": "mini", "weights": file_hash(FOLDER / "model.safetensors")}
