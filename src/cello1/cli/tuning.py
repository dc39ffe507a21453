"""The verbs `sft` and `merge` of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from os import environ
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.solve import AsJson, print_json
from cello1.errors import UseError


def within(section: str, overrides: Sequence[str]) -> list[str]:
    """Read overrides as keys of one section, whether or not they name it."""
    return [o if o.startswith(f"{section}.") else f"{section}.{o}" for o in overrides]


def sft(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `sft`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings: model=DIR traces=FILE trainer.learning_rate=1e-4 ..."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether it would run, without weights.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on traces. Killed and called again, it goes on where it was."""
    from cello1.recipes import read_recipe
    from cello1.terminal.progress import watching

    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, within("sft", given)).sft
    if check:
        from cello1.training.sft.check import check_sft

        found = check_sft(settings)
        if as_json:
            print_json(found.to_json())
            return
        for name, value in found.to_json().items():
            typer.echo(f"{name.replace('_', ' ')}: {value}")
        return
    if out is None:
        raise UseError("name the run folder with --out, or only look with --check")
    from cello1.training.sft.sft import sft as run_sft

    with watching() as watch:
        made = run_sft(settings, out, watch=watch)
    show_made(made, out, settings.method, as_json)


def show_made(made: Path, out: Path, method: str, as_json: bool) -> None:
    """Say what was trained and what comes next."""
    if environ.get("RANK", "0") != "0":
        return  # of the processes of `accelerate launch`, one speaks
    if as_json:
        from cello1.training.run.lineage import read_record

        print_json(read_record(made))
        return
    ready = "cello1 solve PUZZLES --solver hf:" + str(made)
    what = f"cello1 merge {out} --out MODEL" if method != "full" else ready
    typer.echo(f"tuned: {made}; next: {what}")


def merge(
    adapter: Annotated[Path, typer.Argument(help="Run folder of `sft` or `rl`, or its adapter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New model folder.")],
    base: Annotated[str | None, typer.Option(help="The base model, if it was moved.")] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="metrics.json of `cello1 eval`, for the model card.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the card [that of the base].")] = None,
) -> None:
    """Merge an adapter into a plain model folder, check it, and write its card."""
    from cello1.terminal.progress import watching
    from cello1.training.merge import merge as run_merge

    with watching() as watch:
        made = run_merge(adapter, out, base=base, metrics=metrics, licence=licence, watch=watch)
    typer.echo(f"merged: {made}; next: cello1 solve PUZZLES --solver hf:{made}")
