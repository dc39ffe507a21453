"""The verb `rl` of the command line: TRL, our own PPO, or verl for clusters."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, Overrides
from cello1.cli.sft import show_made
from cello1.errors import UseError
from cello1.recipes import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.read import read_section


class Engine(StrEnum):
    """What takes the steps of `cello1 rl`; each has a section of its own in the recipe."""

    trl = "trl"  # section rl
    ppo = "ppo"
    verl = "verl"


def rl(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `rl`, `ppo` or `verl`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")],
    overrides: Annotated[
        Overrides, typer.Argument(help="Settings of the section: model=DIR puzzles=FILE ...")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="trl: GRPO; ppo: the ablation, one machine; verl: clusters.")
    ] = Engine.trl,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="verl: write and check everything, start nothing.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed for all random choices.")] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from rewards for whole batches. Can be interrupted: rerun the command to resume."""
    from cello1.terminal.progress import watching

    if prepare and engine is not Engine.verl:
        raise UseError("--prepare is for --engine verl")
    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    if prepare:
        from cello1.training.rl.verl.verl import prepare_verl

        typer.echo(shlex.join(prepare_verl(read_section(VerlSettings, recipe, given), out)))
        return
    method = "full"
    with watching() as watch:
        if engine is Engine.trl:
            from cello1.training.rl.rl import rl as run_trl

            settings = read_section(RlSettings, recipe, given)
            method = settings.method
            made = run_trl(settings, out, watch=watch)
        elif engine is Engine.ppo:
            from cello1.training.rl.ppo.ppo import ppo as run_ppo

            made = run_ppo(read_section(PpoSettings, recipe, given), out, watch=watch)
        else:
            from cello1.training.rl.verl.verl import verl as run_verl

            made = run_verl(read_section(VerlSettings, recipe, given), out, watch=watch)
    show_made(made, out, method, as_json)
