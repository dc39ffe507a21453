"""The verb `rl` of the command line: TRL, our own PPO, or verl for clusters."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.solve import AsJson
from cello1.cli.tuning import show_made, within
from cello1.errors import UseError
from cello1.recipes import read_recipe


class Engine(StrEnum):
    """What takes the steps of `cello1 rl`; each reads the section of the recipe beside it."""

    trl = "trl"  # section rl
    ppo = "ppo"
    verl = "verl"


def rl(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `rl`, `ppo` or `verl`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the section: model=DIR puzzles=FILE ..."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="trl: GRPO; ppo: the ablation, one machine; verl: clusters.")
    ] = Engine.trl,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="verl: write and check everything, start nothing.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from rewards for whole batches. Killed and called again, it goes on where it was."""
    from cello1.terminal.progress import watching

    if prepare and engine is not Engine.verl:
        raise UseError("--prepare is for --engine verl")
    section = "rl" if engine is Engine.trl else engine.value
    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, within(section, given))
    if prepare:
        from cello1.training.rl.verl.verl import prepare_verl

        typer.echo(shlex.join(prepare_verl(settings.verl, out)))
        return
    with watching() as watch:
        if engine is Engine.trl:
            from cello1.training.rl.rl import rl as run_trl

            made = run_trl(settings.rl, out, watch=watch)
        elif engine is Engine.ppo:
            from cello1.training.rl.ppo.ppo import ppo as run_ppo

            made = run_ppo(settings.ppo, out, watch=watch)
        else:
            from cello1.training.rl.verl.verl import verl as run_verl

            made = run_verl(settings.verl, out, watch=watch)
    show_made(made, out, settings.rl.method if engine is Engine.trl else "full", as_json)
