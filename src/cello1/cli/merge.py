"""The verb `merge` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    adapter: Annotated[Path, typer.Argument(help="Run folder of `sft` or `rl`, or its adapter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New model folder.")],
    base: Annotated[str | None, typer.Option(help="The base model, if it was moved.")] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="metrics.json of `cello1 eval`, for the model card.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the card [that of the base].")] = None,
) -> None:
    """Merge an adapter into a plain model folder, check it, and write its card."""
    from cello1.terminal.progress import watching
    from cello1.training.merge import merge as run_merge

    with watching() as watch:
        made = run_merge(adapter, out, base=base, metrics=metrics, licence=licence, watch=watch)
    typer.echo(f"merged: {made}; next: cello1 solve PUZZLES --solver hf:{made}")
