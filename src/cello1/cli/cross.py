"""The verb `cross` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.recipes import CrossSettings


def cross(
    puzzles: Annotated[list[Path], typer.Argument(help="Files of puzzles with answers.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, such as x.parquet.")],
    settings: CrossSettings,
) -> None:
    """Make new puzzles by crossing cells of one type and donor: practice for training."""
    from cello1.puzzles.table import read_puzzles, write_puzzles
    from cello1.terminal.progress import watching
    from cello1.training.base.cross import cross_puzzles

    each, rest = divmod(settings.count, len(puzzles))
    made = []
    with watching() as watch:
        for i, path in enumerate(puzzles):
            made += cross_puzzles(
                read_puzzles(path, "train"), each + (i < rest), settings.seed, settings.ambient
            )
            watch("files", (i + 1) / len(puzzles))
    write_puzzles(made, out)
    typer.echo(f"{len(made)} puzzles in {out}; next: cello1 distill {out}, cello1 rl")
