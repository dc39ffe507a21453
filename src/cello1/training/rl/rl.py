"""Reinforcement learning on puzzles, with the engine of your choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.recipes import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.read import resolve
from cello1.recipes.rl import Engine
from cello1.recipes.section import takes
from cello1.runs import Watch


@takes(RlSettings)
def rl(
    settings: RlSettings | PpoSettings | VerlSettings | str | Path | None,
    out: str | Path,
    *,
    engine: Engine = "trl",
    watch: Watch = lambda what, share: None,
    **changes: Any,
) -> Path:
    """Train a model by rewards for its responses. Can be interrupted: the same call resumes.

    Parameters
    ----------
    settings, **changes
        :class:`cello1.recipes.RlSettings`, a recipe with a section `rl`, or None for the
        defaults; and fields by keyword, which win. For the other engines their own settings.
    out
        The run folder.
    engine
        ``trl`` (GRPO); ``ppo``, on one machine, with the section `ppo`; ``verl``, on a cluster,
        with the section `verl`. Settings of one of these imply it.
    watch
        Called with what is going on and the share of it that is done.

    Returns
    -------
    Path
        The adapter, or the model when all weights were trained, in the run folder.

    Raises
    ------
    InputError
        When the base, the puzzles or a setting cannot be used, the loss is not finite, or the disk
        is full.
    """
    if engine == "ppo" or isinstance(settings, PpoSettings):
        from cello1.training.rl.ppo.ppo import ppo

        return ppo(resolve(PpoSettings, settings, changes), out, watch=watch)
    if engine == "verl" or isinstance(settings, VerlSettings):
        from cello1.training.rl.verl.verl import verl

        return verl(resolve(VerlSettings, settings, changes), out, watch=watch)
    from cello1.training.rl.trl.grpo import grpo

    return grpo(resolve(RlSettings, settings, changes), out, watch=watch)
