"""Supervised fine-tuning on traces: TRL's SFTTrainer and PEFT, in a run folder that resumes.

The paper's cold start (arXiv 2506.02911, section 4): without it, reinforcement learning never
leaves zero. Puzzles of held-out donors are solved at every evaluation, and the checkpoint that
solves most batches is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cello1.recipes import SftSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import LOG, Watch
from cello1.solvers.local.language import context_of
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.trl import load_trainee, make_config, passed_through, run_trl
from cello1.training.sft.data import SftData, read_sft_data, sft_files

if TYPE_CHECKING:
    from trl import SFTConfig

    from cello1.training.sft.trainer import PuzzleTrainer

# TRL's settings that are set here, and what to use instead.
_OURS = {
    "max_length": "sft.max_length",
    "packing": "sft.packing",
    "completion_only_loss": "nothing: the loss covers the response",
    "assistant_only_loss": "nothing: the loss covers the response",
    "eos_token": "nothing: the chat template says how a response ends",
    "chat_template_path": "nothing: the model's own template is used here and at inference",
    "dataset_kwargs": "nothing: traces are tokenized here",
}


@takes(SftSettings)
def sft(
    settings: SftSettings | str | Path | None,
    out: str | Path,
    *,
    watch: Watch = lambda what, share: None,
    **changes: Any,
) -> Path:
    """Fine-tune a model on traces. Can be interrupted: the same call resumes.

    Parameters
    ----------
    settings, **changes
        :class:`cello1.recipes.SftSettings`, a recipe with a section `sft`, or None for the
        defaults; and fields by keyword, which win.
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
        When the base, the traces or a setting cannot be used, the loss is not finite, or the disk
        is full.
    """
    settings = resolve(SftSettings, settings, changes)
    inputs = sft_files(settings)
    return run_trl("sft", settings, out, inputs, trainer_config, make_trainer, watch)


def make_trainer(
    settings: SftSettings, folder: Path, base: Path, config: SFTConfig, watch: Watch
) -> tuple[PuzzleTrainer, SftData]:
    """Load everything and put the trainer together."""
    from datasets import Dataset

    from cello1.training.sft.trainer import PuzzleTrainer

    prompter = Prompter(base)
    model = load_trainee(base, settings, half=bool(config.bf16))
    data = read_sft_data(settings, prompter, context_of(model.config))
    nothing: dict[str, list[int]] = {"input_ids": [], "labels": []}
    rows, held = ([e.row() for e in part] for part in (data.learn, data.held_out))
    if not (data.held_out or data.solve):
        config.eval_strategy = "no"
    trainer = PuzzleTrainer(
        prompter=prompter,
        held_out=data.solve,
        settings=settings,
        log=folder / LOG,
        watch=watch,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held) if held else Dataset.from_dict(nothing),
    )
    return trainer, data


def trainer_config(settings: SftSettings, output: Path) -> SFTConfig:
    """Return TRL's SFTConfig for these settings and this machine.

    Raises
    ------
    UseError
        When a key of `trainer` is unknown or set here, or a value is not valid.
    """
    from trl import SFTConfig

    given = checked_trainer(settings)
    batch = given.get("per_device_train_batch_size", 8)
    every = settings.evaluate_every
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": 16,
        "learning_rate": 5e-5,
        "num_train_epochs": 10,
        "train_sampling_strategy": "group_by_length",
        "save_strategy": "steps" if "save_steps" in given else "epoch",
    }
    fixed: dict[str, Any] = {
        "max_length": settings.max_length,
        "packing": packs(settings),
        "eval_packing": False,
        "eval_strategy": "steps" if every else "epoch",
        **({"eval_steps": every} if every else {}),
    }
    config: SFTConfig = make_config(SFTConfig, "sft", settings, output, defaults, given, fixed)
    return config


def checked_trainer(settings: SftSettings) -> dict[str, Any]:
    """Return the settings for TRL's SFTConfig.

    Raises
    ------
    UseError
        When keys are unknown or set here; all of them are named.
    """
    from trl import SFTConfig

    return passed_through("sft", settings.trainer, SFTConfig, _OURS)


def packs(settings: SftSettings) -> bool:
    """Return whether traces are packed: by default where attention separates them cheaply."""
    if settings.packing is not None:
        return settings.packing
    return settings.attention is not None and "flash" in settings.attention
