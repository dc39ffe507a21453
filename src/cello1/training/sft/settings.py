"""From a recipe to the settings of TRL and PEFT; every knob of theirs is there by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.errors import UseError
from cello1.recipes import SftSettings
from cello1.recipes.sft import AdapterSection
from cello1.training.run.pass_through import passed_through

# What we decide for everybody, and where to say otherwise.
_OURS = {
    "output_dir": "--out",
    "max_length": "sft.max_length",
    "packing": "sft.packing",
    "seed": "sft.seed",
    "data_seed": "sft.seed",
    "eval_strategy": "sft.evaluate_every",
    "eval_steps": "sft.evaluate_every",
    "metric_for_best_model": "nothing: held-out batch accuracy decides",
    "greater_is_better": "nothing: held-out batch accuracy decides",
    "load_best_model_at_end": "nothing: the best checkpoint is the result",
    "resume_from_checkpoint": "nothing: the same command resumes",
    "completion_only_loss": "nothing: the loss covers the response",
    "assistant_only_loss": "nothing: the loss covers the response",
    "eos_token": "nothing: the chat template says how a response ends",
    "chat_template_path": "nothing: the model's own template is used here and at inference",
    "dataset_kwargs": "nothing: traces are tokenized here",
    "model_init_kwargs": "sft.attention",
    "trust_remote_code": "nothing: remote code is never trusted",
    "use_cpu": "nothing: a GPU is used where there is one",
}


def trainer_config(settings: SftSettings, output: Path) -> Any:
    """Return TRL's SFTConfig for these settings and this machine.

    Raises
    ------
    UseError
        When a key of `trainer` is unknown or ours, or a value does not fit.
    """
    import torch
    from trl import SFTConfig

    given = checked_trainer(settings)
    gpu = torch.cuda.is_available()
    batch = given.get("per_device_train_batch_size", 8)
    every = settings.evaluate_every
    values: dict[str, Any] = {
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": 16,
        "learning_rate": 5e-5,
        "num_train_epochs": 10,
        "train_sampling_strategy": "group_by_length",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would show the last good loss instead
        "bf16": gpu and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": gpu,
        "ddp_find_unused_parameters": False,
        **({"save_strategy": "steps"} if "save_steps" in given else {}),
        **given,
        "use_cpu": not gpu,
        "output_dir": str(output),
        "max_length": settings.max_length,
        "packing": packs(settings),
        "eval_packing": False,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": "steps" if every else "epoch",
        "metric_for_best_model": "eval_merit",
        "greater_is_better": True,
        **({"eval_steps": every} if every else {}),
    }
    try:
        return SFTConfig(**values)
    except (ValueError, TypeError) as error:
        raise UseError(f"sft.trainer is not valid: {' '.join(str(error).split())}") from error


def checked_trainer(settings: SftSettings) -> dict[str, Any]:
    """Return the pass-through settings.

    Raises
    ------
    UseError
        When keys are unknown or ours; all of them are named.
    """
    from trl import SFTConfig

    return passed_through("sft", settings.trainer, SFTConfig, _OURS)


def packs(settings: SftSettings) -> bool:
    """Say whether traces share rows: by default where attention keeps them apart cheaply."""
    if settings.packing is not None:
        return settings.packing
    return settings.attention is not None and "flash" in settings.attention


def adapter_config(settings: AdapterSection) -> Any:
    """Return PEFT's LoraConfig, or None when all weights are trained."""
    if settings.method == "full":
        return None
    from peft import LoraConfig

    every = settings.layers == ("all-linear",)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.method == "dora",
        target_modules="all-linear" if every else list(settings.layers),
        task_type="CAUSAL_LM",
    )
