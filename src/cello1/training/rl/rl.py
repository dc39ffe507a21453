"""Reinforcement learning on puzzles: TRL's GRPOTrainer in a run folder that resumes.

The heart of Cell-o1 (arXiv 2506.02911, section 4): several responses to every puzzle, each worth
what the whole batch of cells is worth, and the model moves towards those above their group's mean.
Held-out donors are solved every few steps, and the checkpoint that solves most batches is the
result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cello1.recipes import RlSettings
from cello1.solvers.local.loading import load_model, model_folder
from cello1.training.rl.data import RlData, input_files, read_rl_data
from cello1.training.rl.trl.settings import grpo_config
from cello1.training.run.checkpoints import LOG
from cello1.training.run.conduct import conduct
from cello1.training.run.quiet import quiet
from cello1.training.sft.settings import adapter_config

Watch = Callable[[str, float], None]


def rl(settings: RlSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Train a model by the worth of its responses; killed and called again, it goes on.

    Parameters
    ----------
    settings
        The section `rl` of a recipe.
    out
        The run folder.
    watch
        Called with what is going on and the share of it that is done.

    Returns
    -------
    Path
        The adapter, or the model when all weights were trained, in the run folder.

    Raises
    ------
    InputError
        When the base, the puzzles or a setting cannot be used, the loss is no number, or the disk
        is full.
    """
    folder, inputs = Path(out), input_files(settings)
    base = model_folder(settings.model)
    with quiet():
        config = grpo_config(settings, folder / "checkpoints")

    def prepare() -> tuple[Any, dict[str, Any]]:
        trainer, data = _prepare(settings, folder, base, config, watch)
        return trainer, data.counts

    return conduct(
        "rl",
        settings,
        folder,
        base,
        config=config,
        inputs=inputs,
        prepare=prepare,
        logs=(LOG, "samples.jsonl"),
    )


def _prepare(
    settings: RlSettings, folder: Path, base: Path, config: Any, watch: Watch
) -> tuple[Any, RlData]:
    """Load everything and put the trainer together."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback

    from cello1.solvers.local.language import context_of
    from cello1.solvers.local.prompter import Prompter
    from cello1.training.rl.trl.trainer import GroupTrainer
    from cello1.training.run.solving import Reporter

    prompter = Prompter(base)
    # Full fine-tuning needs float32 weights under bfloat16 arithmetic; small steps vanish else.
    half = config.bf16 and settings.method != "full"
    model = load_model(
        base,
        torch.bfloat16 if half else torch.float32,
        attn_implementation=settings.attention,
    )
    context = context_of(model.config)
    data = read_rl_data(settings, prompter, context, config.max_completion_length)
    reporter = Reporter(folder / LOG, settings.patience, watch)
    # TRL wants rows; which puzzle is asked in the end, and how, is decided at the rollout.
    numbers = [{"prompt": p.id, "number": i} for i, p in enumerate(data.practise)]
    trainer = GroupTrainer(
        prompter=prompter,
        practise=data.practise,
        held_out=data.held_out,
        settings=settings,
        watch=watch,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(numbers),
        eval_dataset=Dataset.from_list(numbers[:1]),
        processing_class=prompter.tokenizer,
        peft_config=adapter_config(settings),
        callbacks=[reporter],
    )
    if not data.held_out or trainer.is_sharded:
        config.eval_strategy = "no"  # nothing would be measured, so the last checkpoint counts
    trainer.remove_callback(PrinterCallback)
    reporter.trainer = trainer
    return trainer, data
