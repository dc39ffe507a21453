"""The verb `simulate` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import Out
from cello1.recipes import SimulateSettings


def simulate(
    tables: Annotated[list[Path], typer.Argument(help="Mean profiles, genes x types, or CSV.")],
    out: Out,
    settings: SimulateSettings,
    cell_types: Annotated[
        Path | None, typer.Option(help="CSV: profile, column, cell_type, keep, tissue, disease.")
    ] = None,
) -> None:
    """Simulate cells of named types from mean profiles, one .h5ad per table, marked synthetic."""
    from cello1.cells.h5ad.write import write_h5ad
    from cello1.cells.simulate import described, read_profiles
    from cello1.cells.simulate import simulate as run_simulate
    from cello1.terminal.progress import watching

    out.mkdir(parents=True, exist_ok=True)
    with watching() as watch:
        for number, table in enumerate(sorted(tables), start=1):
            made = out / f"{table.stem}.h5ad"
            profiles = read_profiles(table, cell_types)
            cells = run_simulate(
                profiles.loc[:, ~profiles.columns.duplicated()],
                settings,
                obs=described(table, cell_types),
                name=f"{table.stem}-",
            )
            write_h5ad(cells, made)
            watch("tables", number / len(tables))
    typer.echo(f"{len(tables)} files in {out}; next: cello1 build {out}/*.h5ad")
