"""The engines of `cello1 rl` beside TRL: our own PPO, and verl for clusters."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.cli_solving import AsJson, print_json
from cello1.cli_tuning import within
from cello1.recipes import read_recipe


def train_ppo(
    recipe: Path, overrides: Sequence[str], out: Path, seed: int | None, as_json: bool
) -> None:
    """Run `cello1 rl --engine ppo`; the overrides are keys of the section `ppo`."""
    from cello1.reports.progress import watching
    from cello1.training.lineage import read_record
    from cello1.training.ppo import ppo

    given = [*overrides, *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, within("ppo", given)).ppo
    with watching() as watch:
        made = ppo(settings, out, watch=watch)
    _tell(read_record(made), made, as_json)


def train_verl(
    recipe: Path,
    overrides: Sequence[str],
    out: Path,
    seed: int | None,
    as_json: bool,
    prepare: bool = False,
) -> None:
    """Run `cello1 rl --engine verl`; the overrides are keys of the section `verl`.

    With `prepare` everything is written and checked, and the command that starts it is told.
    """
    from cello1.reports.progress import watching
    from cello1.training.lineage import read_record
    from cello1.training.verl import prepare_verl, verl

    given = [*overrides, *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, within("verl", given)).verl
    if prepare:
        typer.echo(shlex.join(prepare_verl(settings, out)))
        return
    with watching() as watch:
        made = verl(settings, out, watch=watch)
    _tell(read_record(made), made, as_json)


def _tell(record: dict[str, Any], made: Path, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    result = record["result"]
    accuracy = result.get("eval_batch_accuracy")
    judged = "" if accuracy is None else f", batch accuracy {accuracy:.3f} on held-out puzzles"
    typer.echo(
        f"model of step {result['step']}{judged}: {made}; "
        f"next: cello1 solve PUZZLES --solver hf:{made}"
    )


def ppo_command(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `ppo`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings: model=DIR puzzles=FILE learning_rate=1e-6 ..."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("rl"),
    seed: Annotated[int | None, typer.Option(help="Of every random choice.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model by PPO. Killed and called again, it goes on where it was."""
    train_ppo(recipe, overrides or [], out, seed, as_json)


def verl_command(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `verl`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings: model=DIR puzzles=FILE nodes=2 address=HOST:6379 ..."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("rl"),
    seed: Annotated[int | None, typer.Option(help="Of the order of puzzles.", min=0)] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only write and check everything.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model by verl on Ray. Killed and called again, it goes on where it was."""
    train_verl(recipe, overrides or [], out, seed, as_json, prepare)
