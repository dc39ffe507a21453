"""The verb `sft` of the command line."""

from __future__ import annotations

from dataclasses import asdict
from os import environ
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, FromRecipe, print_json
from cello1.errors import UseError
from cello1.recipes import SftSettings


def sft(
    settings: Annotated[
        SftSettings, FromRecipe("model=DIR traces=FILE trainer.learning_rate=1e-4")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check whether it would run, without weights.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on traces. Can be interrupted: rerun the same command to resume."""
    from cello1.terminal.progress import watching

    if check:
        from cello1.training.sft.check import check_sft

        found = asdict(check_sft(settings))
        if as_json:
            print_json(found)
            return
        for name, value in found.items():
            typer.echo(f"{name.replace('_', ' ')}: {value}")
        return
    if out is None:
        raise UseError("name the run folder with --out, or only check with --check")
    from cello1.training.sft.sft import sft as run_sft

    with watching() as watch:
        made = run_sft(settings, out, watch=watch)
    show_made(made, out, settings.method, as_json)


def show_made(made: Path, out: Path, method: str, as_json: bool) -> None:
    """Say what was trained and what comes next."""
    if environ.get("RANK", "0") != "0":
        return  # of the processes of `accelerate launch`, one speaks
    from cello1.training.run.model_identity import read_record

    record = read_record(made)
    if as_json:
        print_json(record)
        return
    ready = "cello1 solve PUZZLES --solver hf:" + str(made)
    what = f"cello1 merge {out} --out MODEL" if method != "full" else ready
    learned = record["result"].get("had_signal", True)
    typer.echo(f"{'tuned' if learned else 'nothing was learned'}: {made}; next: {what}")
