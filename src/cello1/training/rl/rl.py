"""Reinforcement learning on puzzles: TRL's GRPOTrainer in a run folder that resumes.

The heart of Cell-o1 (arXiv 2506.02911, section 4): several responses to every puzzle, each worth
what the whole batch of cells is worth, and the model moves towards those above their group's mean.
Held-out donors are solved every few steps, and the checkpoint that solves most batches is the
result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cello1.errors import InputError
from cello1.recipes import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.read import resolve
from cello1.recipes.rl import Engine
from cello1.recipes.section import takes
from cello1.runs import LOG, Watch
from cello1.solvers.local.language import context_of
from cello1.solvers.local.loading import model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.data import RlData, read_rl_data, rl_files
from cello1.training.rl.trl.settings import grpo_config
from cello1.training.run.run_training import (
    new_record,
    publish_best,
    quiet,
    run_training,
    train_with_checkpoints,
)
from cello1.training.run.trl import load_trainee

if TYPE_CHECKING:
    from trl import GRPOConfig

    from cello1.training.rl.trl.trainer import GroupTrainer


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
        with the section `verl`. Settings of one of these say it by themselves.
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
    return _by_trl(resolve(RlSettings, settings, changes), out, watch)


def _by_trl(settings: RlSettings, out: str | Path, watch: Watch) -> Path:
    folder, inputs = Path(out), rl_files(settings)
    base = model_folder(settings.model)
    with quiet():
        config = grpo_config(settings, folder / "checkpoints")
    record = new_record("rl", settings, base)

    def prepare() -> tuple[GroupTrainer, dict[str, Any]]:
        trainer, data = make_trainer(settings, folder, base, config, watch)
        return trainer, data.counts

    return run_training(
        folder,
        record,
        inputs=inputs,
        train=lambda: train_with_checkpoints(
            folder,
            record,
            prepare,
            patience=settings.patience,
            logs=(LOG, "samples.jsonl"),
            main_first=config.main_process_first(local=False),
        ),
        publish=lambda final: publish_best(folder, final),
        final="model" if settings.method == "full" else "adapter",
    )


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
    """See that there are puzzles enough for one step; TRL leaves out what fills none.

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
