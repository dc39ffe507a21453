"""From a recipe to TRL's GRPOConfig; every knob of it is there by its name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cello1.errors import UseError
from cello1.recipes import RlSettings
from cello1.scoring.reward import Reward, reward_of
from cello1.training.run.trl import make_config, passed_through

if TYPE_CHECKING:
    from trl import GRPOConfig

# What we decide for everybody, and where to say otherwise.
_OURS = {
    "reward_weights": "rl.reward with weights",
    "save_strategy": "trainer.save_steps",
    "remove_unused_columns": "nothing: puzzles are looked up by their id",
    "chat_template_kwargs": "nothing: prompts are those of inference",
}
# The paper's (arXiv 2506.02911, section 4); on one device a step of 64 groups is accumulated.
_GROUP, _GROUPS_PER_STEP = 5, 64


def grpo_config(settings: RlSettings, output: Path) -> GRPOConfig:
    """Return TRL's GRPOConfig for these settings and this machine.

    Raises
    ------
    UseError
        When a key of `trainer` is unknown or ours, or values do not fit each other.
    """
    import torch
    from trl import GRPOConfig

    given = passed_through("rl", settings.trainer, GRPOConfig, _OURS)
    group = given.get("num_generations", _GROUP)
    rows = given.get("per_device_train_batch_size", group)
    defaults: dict[str, Any] = {
        "num_generations": group,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": max(1, _GROUPS_PER_STEP * group // rows),
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 20,
        "beta": 0.001,
        "temperature": 1.0,
        "max_completion_length": 3_000,
        "use_vllm": torch.cuda.is_available() and find_spec("vllm") is not None,
        "vllm_mode": "colocate",
        "save_steps": settings.evaluate_every,
        "logging_steps": 1,
    }
    fixed: dict[str, Any] = {
        "per_device_eval_batch_size": group,
        "reward_weights": [weight for _, _, weight in rewards_of(settings)],
        "save_strategy": "steps",
        "eval_strategy": "steps",
        "eval_steps": settings.evaluate_every,
    }
    config: GRPOConfig = make_config(GRPOConfig, "rl", settings, output, defaults, given, fixed)
    _check(config)
    return config


def _check(config: GRPOConfig) -> None:
    """Refuse what TRL would find out late or never."""
    losses = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
    if config.loss_type not in losses:
        raise UseError(f"rl.trainer.loss_type {config.loss_type!r} is none of {', '.join(losses)}")
    here = config.per_device_train_batch_size * config.steps_per_generation
    if here % config.num_generations:
        raise UseError(
            f"rl.trainer: a process generates {here} responses at a time (per_device_train_"
            "batch_size x steps_per_generation), which are no whole groups of "
            f"{config.num_generations} (num_generations)"
        )
    # A checkpoint between two generations could not say which responses are still to be used.
    cycle = config.steps_per_generation * config.num_iterations
    steps, rest = divmod(cycle, config.gradient_accumulation_steps)
    if steps and (rest or config.save_steps % steps or config.eval_steps % steps):
        raise UseError(
            f"rl: responses serve {cycle / config.gradient_accumulation_steps:g} steps "
            "(steps_per_generation x num_iterations / gradient_accumulation_steps); "
            f"evaluate_every ({config.eval_steps}) and trainer.save_steps ({config.save_steps}) "
            "must be whole multiples of that, so that a run can resume"
        )


def rewards_of(settings: RlSettings) -> list[tuple[str, Reward, float]]:
    """Return every reward with its name and weight.

    Raises
    ------
    UseError
        When there is none, or one cannot be used.
    """
    named = settings.reward
    weighted = {named: 1.0} if isinstance(named, str) else named
    if not weighted:
        raise UseError("rl.reward names no reward; expected batch, cell+batch or a dotted path")
    return [(name, reward_of(name), weight) for name, weight in weighted.items()]
