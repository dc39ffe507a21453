"""The verb `distill` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import SOURCE, AsJson, Out, Revision, print_json
from cello1.recipes import DistillSettings
from cello1.recipes.distill import SPLIT


def distill(
    puzzles: Annotated[Path, typer.Argument(help=SOURCE)],
    out: Out,
    settings: DistillSettings,
    train: Annotated[
        Path | None, typer.Option(help="centroids: puzzles to learn from [those of other donors].")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="centroids: puzzles to choose a model on.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which split to ask, where there are several.")
    ] = SPLIT,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Let a teacher answer puzzles and keep correct responses as traces. Rerun it to resume."""
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import acceptance_table, show
    from cello1.training.distill.distill import TRACES
    from cello1.training.distill.distill import distill as run_distill

    target = settings.target
    with watching() as watch:
        made = run_distill(
            puzzles,
            out,
            settings,
            split=split,
            revision=revision,
            train=train,
            validation=validation,
            watch=lambda n, of: watch("traces" if target else "responses", n / max(1, of)),
        )
    if as_json:
        print_json(made.metrics)
    else:
        show(acceptance_table(made.metrics))
    if made.owed:
        typer.echo(
            f"error: {made.owed} responses are missing ({made.why}); rerun the command to resume",
            err=True,
        )
        raise typer.Exit(1)
    if made.unknown is not None:
        typer.echo(f"note: of the teacher, {made.unknown}", err=True)
    if target is not None and made.metrics["traces"] and made.metrics["solved"] < target:
        typer.echo(f"note: {made.metrics['solved']} of {target} puzzles solved", err=True)
    if not as_json:
        typer.echo(f"traces in {out / TRACES}")
