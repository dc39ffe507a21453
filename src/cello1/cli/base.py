"""The verb `base` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import FromRecipe
from cello1.recipes import BaseModelSettings


def base(
    settings: Annotated[BaseModelSettings, FromRecipe("puzzles='[FILE, FILE]' hidden=128")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("base"),
) -> None:
    """Train a small model from scratch. Can be interrupted: rerun the same command to resume."""
    from cello1.terminal.progress import watching
    from cello1.training.base.base import base as run_base

    with watching() as watch:
        made = run_base(settings, out, watch=watch)
    typer.echo(f"base model: {made}; next: cello1 distill, cello1 sft RECIPE model={made}")
