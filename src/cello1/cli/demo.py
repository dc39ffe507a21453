"""The verb `demo` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, Only, Out, print_json
from cello1.recipes import BuildSettings


def demo(
    settings: Annotated[BuildSettings, Only("donor_key", "cell_type_key", "seed")],
    file: Annotated[Path | None, typer.Argument(help="Your own .h5ad; default: built-in.")] = None,
    out: Out = Path("cello1-demo"),
    as_json: AsJson = False,
) -> None:
    """Build, audit, solve and score real cells, end to end, in under a minute."""
    from cello1.demo import demo as run_demo

    figures = run_demo(out, file, settings)
    if as_json:
        print_json(figures)
