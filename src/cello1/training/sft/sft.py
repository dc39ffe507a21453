"""Supervised fine-tuning on traces: TRL's SFTTrainer and PEFT, in a run folder that resumes.

The paper's cold start (arXiv 2506.02911, section 4): without it, reinforcement learning never
leaves zero. Held-out donors are solved at every evaluation, and the checkpoint that solves most
batches is the result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cello1.recipes import SftSettings
from cello1.solvers.local.loading import load_model, model_folder
from cello1.training.run.checkpoints import LOG
from cello1.training.run.conduct import conduct
from cello1.training.run.quiet import quiet
from cello1.training.sft.data import SftData, input_files, read_sft_data
from cello1.training.sft.settings import adapter_config, trainer_config

Watch = Callable[[str, float], None]


def sft(settings: SftSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Fine-tune a model on traces; killed and called again, it goes on from its checkpoint.

    Parameters
    ----------
    settings
        The section `sft` of a recipe.
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
        When the base, the traces or a setting cannot be used, the loss is no number, or the disk
        is full.
    """
    folder, base = Path(out), model_folder(settings.model)
    with quiet():
        config = trainer_config(settings, folder / "checkpoints")

    def prepare() -> tuple[Any, dict[str, Any]]:
        trainer, data = _prepare(settings, folder, base, config, watch)
        return trainer, data.counts

    return conduct(
        "sft", settings, folder, base, config=config, inputs=input_files(settings), prepare=prepare
    )


def _prepare(
    settings: SftSettings, folder: Path, base: Path, config: Any, watch: Watch
) -> tuple[Any, SftData]:
    """Load everything and put the trainer together."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback

    from cello1.solvers.local.language import context_of
    from cello1.solvers.local.prompter import Prompter
    from cello1.training.run.solving import Reporter
    from cello1.training.sft.trainer import PuzzleTrainer

    prompter = Prompter(base)
    # Full fine-tuning needs float32 weights under bfloat16 arithmetic; small steps vanish else.
    half = config.bf16 and settings.method != "full"
    model = load_model(
        base,
        torch.bfloat16 if half else torch.float32,
        attn_implementation=settings.attention,
    )
    data = read_sft_data(settings, prompter, context_of(model.config))
    nothing: dict[str, list[int]] = {"input_ids": [], "labels": []}
    rows, held = ([e.row() for e in part] for part in (data.learn, data.held_out))
    reporter = Reporter(folder / LOG, settings.patience, watch)
    if not (data.held_out or data.solve):
        config.eval_strategy = "no"
    trainer = PuzzleTrainer(
        prompter=prompter,
        held_out=data.solve,
        max_new_tokens=settings.max_new_tokens,
        watch=watch,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held) if held else Dataset.from_dict(nothing),
        processing_class=prompter.tokenizer,
        peft_config=adapter_config(settings),
        callbacks=[reporter],
    )
    trainer.remove_callback(PrinterCallback)
    reporter.trainer = trainer
    return trainer, data
