"""The verb `play` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.recipes import PlaySettings
from cello1.recipes.solve import SPLIT


def play(
    puzzles: Annotated[Path, typer.Argument(help="Folder of a build, or one file of puzzles.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder of your answers.")],
    settings: PlaySettings,
    split: Annotated[str, typer.Option(help="Which split of a folder to play.")] = SPLIT,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Solved run to be scored beside; repeatable.")
    ] = None,
) -> None:
    """Solve puzzles yourself in a page on this machine; the answers are a run like any other."""
    from cello1.play.game import play as run_play
    from cello1.puzzles.table import choose_split

    def ready(url: str) -> None:
        typer.echo(f"open {url} and play; stop with Ctrl-C, answers are kept in {out}")

    try:
        run_play(choose_split(puzzles, split), out, settings, beside=beside or [], ready=ready)
    except KeyboardInterrupt:
        typer.echo(f"stopped; next: cello1 eval {out} or cello1 report {out}")
