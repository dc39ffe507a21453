"""The verb `rl` of the command line: TRL, our own PPO, or verl for clusters."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, FromRecipe
from cello1.cli.sft import show_made
from cello1.errors import UseError
from cello1.recipes import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.rl import Engine

SECTIONS = {"trl": RlSettings, "ppo": PpoSettings, "verl": VerlSettings}


def rl(
    settings: Annotated[
        RlSettings | PpoSettings | VerlSettings, FromRecipe("model=DIR puzzles=FILE", SECTIONS)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")],
    engine: Annotated[
        Engine,
        typer.Option(help="trl: GRPO; ppo: the ablation, on one machine; verl: on a cluster."),
    ] = "trl",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="verl: write and check everything, start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model by rewards for whole batches. Can be interrupted: rerun it to resume."""
    from cello1.terminal.progress import watching

    if prepare and engine != "verl":
        raise UseError("--prepare is for --engine verl")
    if prepare and isinstance(settings, VerlSettings):
        from cello1.training.rl.verl.verl import prepare_verl

        typer.echo(shlex.join(prepare_verl(settings, out)))
        return
    from cello1.training.rl.rl import rl as run_rl

    with watching() as watch:
        made = run_rl(settings, out, watch=watch)
    show_made(made, out, settings.method if isinstance(settings, RlSettings) else "full", as_json)
