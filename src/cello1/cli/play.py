"""The verb `play` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import SOURCE, Revision
from cello1.recipes import PlaySettings
from cello1.recipes.solve import SPLIT


def play(
    puzzles: Annotated[Path, typer.Argument(help=SOURCE)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder of your answers.")],
    settings: PlaySettings,
    split: Annotated[
        str, typer.Option(help="Which split to play, where there are several.")
    ] = SPLIT,
    revision: Revision = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Solved run to compare with; repeatable.")
    ] = None,
) -> None:
    """Solve puzzles yourself in a page on this machine; the answers are a run like any other."""
    from cello1.play.game import play as run_play
    from cello1.puzzles.source import find_puzzles

    def ready(url: str) -> None:
        typer.echo(f"open {url} and play; stop with Ctrl-C, answers are kept in {out}")

    try:
        file = find_puzzles(puzzles, split, revision=revision)
        run_play(file, out, settings, beside=beside or [], ready=ready)
    except KeyboardInterrupt:
        typer.echo(f"stopped; next: cello1 eval {out} or cello1 report {out}")
