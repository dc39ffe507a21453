"""Check a fine-tuning before it starts, without the model's weights.

The config is composed, the chat template rendered, every trace tokenized; memory and time are
estimated from the shapes in ``config.json``. Estimates are meant to be right within a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cello1.errors import InputError, first_line
from cello1.recipes import SftSettings
from cello1.solvers.local.language import context_of
from cello1.solvers.local.loading import load_config, model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.model_identity import shape_identity
from cello1.training.run.run_training import quiet
from cello1.training.run.trl import adapter_config
from cello1.training.sft.data import SftData, read_sft_data, sft_files
from cello1.training.sft.sft import checked_trainer, packs

# An A100 in bfloat16, and the fraction of it that training usually reaches.
_PEAK_FLOPS, _USED = 312e12, 0.4
_GIB = 1 << 30
_RUNTIME_GIB = 1.5  # CUDA itself, and what the allocator leaves unused


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model: parameters, those trained, layers, width, width of the MLP."""

    parameters: int
    trained: int
    layers: int
    hidden: int
    intermediate: int
    context: int


@dataclass(frozen=True)
class SftCheck:
    """The outcome of `--check`; memory in GiB per GPU, hours on GPUs like an A100."""

    model: str
    parameters: int
    trained_parameters: int
    counts: dict[str, Any]
    prompt_begins: str
    response_ends: str
    traces_per_step: int
    steps_per_epoch: int
    steps: int
    memory_gib: float
    memory_parts: dict[str, float]
    gpus: int
    hours: float


def check_sft(settings: SftSettings) -> SftCheck:
    """Check everything about a fine-tuning that needs no weights.

    Raises
    ------
    InputError
        For anything that would stop the real run: settings, files, template, lengths.
    """
    given = checked_trainer(settings)
    sft_files(settings)
    folder = model_folder(settings.model)
    shape_identity(folder)
    prompter = Prompter(folder)
    with quiet():
        shapes = _shapes(folder, settings)
    data = read_sft_data(settings, prompter, shapes.context)
    first = data.learn[0]
    rows = given.get("per_device_train_batch_size", 8)
    accumulated = given.get("gradient_accumulation_steps", 16)
    per_step = rows * accumulated * settings.gpus
    in_epoch = _rows(data, settings)
    steps_per_epoch = math.ceil(in_epoch / per_step)
    epochs = given.get("num_train_epochs", 10)
    most = given.get("max_steps", -1)
    steps = int(most) if most and most > 0 else math.ceil(steps_per_epoch * epochs)
    row = min(settings.max_length, shapes.context) if packs(settings) else data.counts["longest"]
    parts = _memory(shapes, rows * row, settings, given)
    tokens = data.counts["tokens"] * steps / steps_per_epoch
    return SftCheck(
        model=settings.model,
        parameters=shapes.parameters,
        trained_parameters=shapes.trained,
        counts=data.counts,
        prompt_begins=prompter.vocabulary.text(first.prompt)[:200],
        response_ends=prompter.vocabulary.text(first.response[-12:]),
        traces_per_step=per_step,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        memory_gib=round(sum(parts.values()), 1),
        memory_parts={name: round(value, 2) for name, value in parts.items()},
        gpus=settings.gpus,
        hours=round(_seconds(shapes, tokens, settings) / 3600, 2),
    )


def _shapes(folder: Path, settings: SftSettings) -> Shapes:
    """Build the model on the meta device and count its parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder / 'config.json'} describes no causal language model: {first_line(error)}"
        ) from error
    parameters = sum(p.numel() for p in model.parameters())
    trained = parameters
    if (adapter := adapter_config(settings)) is not None:
        from peft import get_peft_model

        with torch.device("meta"):
            try:
                tuned = get_peft_model(model, adapter)
            except ValueError as error:
                raise InputError(f"sft.layers fit no layer of {folder}: {error}") from error
        trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    inner = config.get_text_config(decoder=True)
    return Shapes(
        parameters=parameters,
        trained=trained,
        layers=inner.num_hidden_layers,
        hidden=inner.hidden_size,
        intermediate=getattr(inner, "intermediate_size", None) or 4 * inner.hidden_size,
        context=context_of(config),
    )


def _rows(data: SftData, settings: SftSettings) -> int:
    """Count the rows of an epoch; packed rows are almost full."""
    if packs(settings):
        return math.ceil(int(data.counts["tokens"]) / int(data.counts["limit"]))
    return len(data.learn)


def _memory(
    shapes: Shapes, tokens: int, settings: SftSettings, given: dict[str, Any]
) -> dict[str, float]:
    """Estimate the GiB of one GPU that holds the whole model, in bfloat16, with Adam in float32."""
    full = settings.method == "full"
    # float32 for what is trained, bfloat16 for what is frozen; gradient and two moments.
    weights = shapes.trained * 4 + (0 if full else shapes.parameters * 2)
    optimizer = shapes.trained * 12
    a_layer = tokens * 2 * (10 * shapes.hidden + 4 * shapes.intermediate)
    if given.get("gradient_checkpointing", True):
        activations = shapes.layers * tokens * shapes.hidden * 2 + a_layer
    else:
        activations = shapes.layers * a_layer
    return {
        "weights": weights / _GIB,
        "gradients_and_adam": optimizer / _GIB,
        "activations": activations / _GIB,
        "runtime": _RUNTIME_GIB,
    }


def _seconds(shapes: Shapes, tokens: float, settings: SftSettings) -> float:
    """Estimate: 2 operations a weight and token forward, twice that backward, one forward again.

    With an adapter the frozen weights need no gradient, which saves 2.
    """
    per_weight = 8 if settings.method == "full" else 6
    return per_weight * shapes.parameters * tokens / (settings.gpus * _PEAK_FLOPS * _USED)
