"""The verb `report` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import Puzzles
from cello1.errors import UseError
from cello1.recipes import ReportSettings


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: solved ones, training ones.")],
    settings: ReportSettings,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    puzzles: Puzzles = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for the figures as SVG and PNG.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="RUN=IN,OUT: USD per million tokens in and out; repeatable."),
    ] = None,
) -> None:
    """Make one page of runs: figures, comparisons, training, and every puzzle to look at."""
    from cello1.report.page import report as write_report

    prices = dict(map(_price, price or []))
    made = write_report(runs, out, settings, puzzles=puzzles, figures_to=figures, prices=prices)
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
