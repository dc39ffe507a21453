"""The verb `build` of the command line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from cello1.cli.options import AsJson, Out, complain, print_json
from cello1.recipes import BuildSettings
from cello1.recipes.census import CensusSettings


def build(
    files: Annotated[
        list[str],
        typer.Argument(help=".h5ad files of annotated cells, or census: for the CELLxGENE Census."),
    ],
    out: Out,
    settings: BuildSettings,
    query: CensusSettings,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per core.", min=1)
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes here, or tasks of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="ray: address of the cluster, or auto; by default one is started here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build puzzles from annotated cells, split them without leaks, and audit the splits."""
    from os import cpu_count

    from cello1.cells.build import build as run_build
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import audit_table, files_table, show

    with watching() as watch:
        made = run_build(
            files,
            out,
            settings,
            query=query,
            workers=workers or cpu_count() or 1,
            engine=engine,
            address=address,
            watch=watch,
            may_end=True,
        )
    if as_json:
        reports = [asdict(report) for report in made.reports]
        print_json({"files": reports, "audit": made.audit.to_json(), "ok": made.ok})
    else:
        show(files_table(made.reports), audit_table(made.audit))
    for file in made.reports:
        for note in file.notes:
            typer.echo(f"note: {file.dataset}: {' '.join(note.split())}", err=True)
    failed = [file for file in made.reports if file.status == "failed"]
    for file in failed:
        complain(f"{file.dataset}: {file.message}")
    if not made.ok:
        raise typer.Exit(1)
