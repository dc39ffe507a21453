"""The verbs `report` and `play` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.solve import Seed
from cello1.errors import UseError


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: solved ones, training ones.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    puzzles: Annotated[Path | None, typer.Option(help="The puzzles, if they were moved.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures as SVG and PNG.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="RUN=IN,OUT: USD per million tokens in and out; repeatable."),
    ] = None,
    most_puzzles: Annotated[
        int, typer.Option(help="Puzzles to look at; of more, a sample.", min=1)
    ] = 1_000,
    seed: Seed = 0,
) -> None:
    """Make one page of runs: figures, comparisons, training, and every puzzle to look at."""
    from cello1.report.page import report as write_report

    made = write_report(
        runs,
        out,
        puzzles=puzzles,
        figures_to=figures,
        prices=dict(map(_price, price or [])),
        most_puzzles=most_puzzles,
        seed=seed,
    )
    typer.echo(f"report: {made} ({made.stat().st_size / 1e6:.1f} MB); open it in a browser")
    if figures is not None:
        typer.echo(f"figures: {len(list(figures.glob('*.svg')))} in {figures}, as SVG and PNG")


def _price(text: str) -> tuple[str, tuple[float, float]]:
    name, _, prices = text.rpartition("=")
    try:
        price_in, price_out = map(float, prices.split(","))
    except ValueError:
        name = ""
    if not name or min(price_in, price_out) < 0:
        raise UseError(f"--price {text!r} is not understood; expected RUN=IN,OUT as in run=0.5,2")
    return name, (price_in, price_out)


def play(
    puzzles: Annotated[Path, typer.Argument(help="Folder of a build, or one file of puzzles.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder of your answers.")],
    split: Annotated[str, typer.Option(help="Which split of a folder to play.")] = "test",
    number: Annotated[int, typer.Option(help="Puzzles of this session.", min=1)] = 10,
    player: Annotated[str, typer.Option(help="Your name, for the record.")] = "human",
    beside: Annotated[
        list[Path] | None, typer.Option(help="Solved run to be scored beside; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65_535)] = 0,
    seed: Seed = 0,
) -> None:
    """Solve puzzles yourself in a page on this machine; the answers are a run like any other."""
    from cello1.play.game import play as run_play
    from cello1.puzzles.table import read_splits

    if puzzles.is_dir() and not (puzzles / "dataset_info.json").exists():
        splits = read_splits(puzzles)
        if (found := splits.get(split, splits.get("all"))) is None:
            raise UseError(f"{puzzles} has no split {split!r}; it has {', '.join(splits)}")
        puzzles = found

    def ready(url: str) -> None:
        typer.echo(f"open {url} and play; stop with Ctrl-C, answers are kept in {out}")

    try:
        run_play(
            puzzles, out, number=number, player=player, beside=beside or [], seed=seed,
            host=host, port=port, ready=ready,
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"stopped; next: cello1 eval {out} or cello1 report {out}")
