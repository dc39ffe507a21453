"""GRPO: TRL's trainer in a run folder that resumes.

The core of Cell-o1 (arXiv 2506.02911, section 4): several responses to every puzzle, each rewarded
for the whole batch of cells, and the model moves towards those above the mean of their group.
Puzzles of held-out donors are solved every few steps, and the checkpoint that solves most batches
is the result.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cello1.errors import InputError, UseError
from cello1.recipes import RlSettings
from cello1.runs import LOG, Watch
from cello1.scoring.reward import Reward, reward_of
from cello1.solvers.local.language import context_of
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.data import RlData, read_rl_data, rl_files
from cello1.training.run.trl import load_trainee, make_config, passed_through, run_trl

if TYPE_CHECKING:
    from trl import GRPOConfig

    from cello1.training.rl.trl.trainer import GroupTrainer

# TRL's settings that are set here, and what to use instead.
_OURS = {
    "reward_weights": "rl.reward with weights",
    "save_strategy": "trainer.save_steps",
    "remove_unused_columns": "nothing: puzzles are looked up by their id",
    "chat_template_kwargs": "nothing: prompts are those of inference",
}
# From arXiv 2506.02911, section 4; on one device a step of 64 groups is accumulated.
_GROUP, _GROUPS_PER_STEP = 5, 64


def grpo(settings: RlSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Train a model by GRPO; see :func:`cello1.training.rl.rl.rl`."""
    logs = (LOG, "samples.jsonl")
    return run_trl("rl", settings, out, rl_files(settings), grpo_config, make_trainer, watch, logs)


def make_trainer(
    settings: RlSettings, folder: Path, base: Path, config: GRPOConfig, watch: Watch
) -> tuple[GroupTrainer, RlData]:
    """Load everything and put the trainer together."""
    from datasets import Dataset

    from cello1.training.rl.trl.trainer import GroupTrainer

    prompter = Prompter(base)
    model = load_trainee(base, settings, half=bool(config.bf16))
    budget = config.max_completion_length
    data = read_rl_data(settings, prompter, context_of(model.config), budget or 0)
    refuse_too_few(data, config)
    # TRL wants rows; which puzzle is asked, and how, is decided at the rollout.
    rows = [{"prompt": puzzle.id} for puzzle in data.practise]
    trainer = GroupTrainer(
        practise=data.practise,
        prompter=prompter,
        held_out=data.held_out,
        settings=settings,
        rewards=rewards_of(settings),
        log=folder / LOG,
        watch=watch,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:1]),
    )
    if not data.held_out or trainer.is_sharded:
        config.eval_strategy = "no"  # nothing would be measured, so the last checkpoint counts
    return trainer, data


def refuse_too_few(data: RlData, config: GRPOConfig) -> None:
    """Check that there are enough puzzles for one step; TRL drops incomplete ones.

    Raises
    ------
    InputError
        When there are not.
    """
    asked = (config.generation_batch_size or 0) // config.num_generations
    if len(data.practise) < asked:
        raise InputError(
            f"{len(data.practise)} puzzles are left to practise on and every step asks {asked}, so "
            f"no step could be taken ({data.counts['puzzles']} puzzles, less those held out or too "
            "long); add puzzles, hold out fewer, or lower trainer.gradient_accumulation_steps "
            f"({config.gradient_accumulation_steps})"
        )


def grpo_config(settings: RlSettings, output: Path) -> GRPOConfig:
    """Return TRL's GRPOConfig for these settings and this machine.

    Raises
    ------
    UseError
        When a key of `trainer` is unknown or set here, or values do not fit each other.
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
    """Refuse what TRL would notice late or never."""
    losses = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
    if config.loss_type not in losses:
        raise UseError(f"rl.trainer.loss_type {config.loss_type!r} is none of {', '.join(losses)}")
    here = config.per_device_train_batch_size * config.steps_per_generation
    if here % config.num_generations:
        raise UseError(
            f"rl.trainer: a process generates {here} responses at a time (per_device_train_"
            "batch_size x steps_per_generation), which is not a multiple of "
            f"{config.num_generations} (num_generations)"
        )
    # A checkpoint between two generations could not record which responses are left to use.
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
