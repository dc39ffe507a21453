"""The verb `doctor` of the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, print_json
from cello1.recipes import BuildSettings
from cello1.recipes.census import CensusSettings


def doctor(
    file: Annotated[str, typer.Argument(help="An .h5ad file, or census: for the Census.")],
    settings: BuildSettings,
    query: CensusSettings,
    list_datasets: Annotated[
        bool, typer.Option("--list-datasets", help="census: name every data set.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine a file: can it be annotated, what would build do, and how to fix each problem."""
    from cello1.annotate.prospect import prospect
    from cello1.cells.census import is_census
    from cello1.cells.doctor import examine
    from cello1.cells.workers import ending_when_still
    from cello1.terminal.tables import diagnosis_table, show

    if is_census(file):
        _look_up(file, settings, query, list_datasets, as_json)
        return
    with ending_when_still(file) as beat:
        found = examine(Path(file), settings, beat=beat)
        labels = prospect(Path(file), settings.layer, settings.donor_key)
    if as_json:
        print_json(found.to_json() | {"annotate": asdict(labels)})
    else:
        builds = found.report is not None and found.report.puzzles > 0
        why = "" if builds or not found.problems else f", because {found.problems[0]}"
        show(
            diagnosis_table(found),
            *labels.told(),
            f"build {'can' if builds else 'cannot'} make puzzles of it{why}",
        )
    if found.report is None or not found.report.puzzles:
        raise typer.Exit(1)


def _look_up(
    source: str, settings: BuildSettings, query: CensusSettings, every: bool, as_json: bool
) -> None:
    """Show what a query finds in the Census, without reading expression."""
    from cello1.cells.census import look_up
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import census_table, show

    with watching() as watch:
        found = look_up(
            source, query, settings.seed, lambda share: watch("looking through obs", share)
        )
    if as_json:
        print_json([asdict(data) | {"drawn": len(data.drawn)} for data in found])
    else:
        show(*census_table(found, settings.n_min, every))
