"""The verb `audit` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import SOURCE, AsJson, Revision, print_json


def audit(
    source: Annotated[Path, typer.Argument(help=f"{SOURCE}, or files of splits.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further files of splits.")] = None,
    revision: Revision = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per core.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks: shared donors, cells and gene lists. Fails if there are any."""
    from os import cpu_count

    from cello1.cells.audit import audit as run_audit
    from cello1.puzzles.source import find_puzzles, find_splits
    from cello1.puzzles.table import Stored
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import audit_table, show

    if more:
        paths = {path.stem: find_puzzles(path) for path in (source, *more)}
    else:
        paths = find_splits(source, revision=revision)
    with watching() as watch:
        findings = run_audit(
            {name: Stored(path) for name, path in paths.items()},
            workers or cpu_count() or 1,
            lambda share: watch("auditing", share),
        )
    if as_json:
        print_json(findings.to_json())
    else:
        show(audit_table(findings))
    if not findings.passed:
        raise typer.Exit(1)
