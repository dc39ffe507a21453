"""The verb `doctor` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, print_json
from cello1.recipes import BuildSettings


def doctor(
    file: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    settings: BuildSettings,
    as_json: AsJson = False,
) -> None:
    """Examine a file: what is in it, what build would do, and how to mend each problem."""
    from cello1.cells.doctor import examine
    from cello1.terminal.tables import diagnosis_table, show

    found = examine(file, settings)
    if as_json:
        print_json(found.to_json())
    else:
        show(diagnosis_table(found))
    if found.report is None or not found.report.puzzles:
        raise typer.Exit(1)
