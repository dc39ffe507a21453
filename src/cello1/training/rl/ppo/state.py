"""Checkpoints of PPO: the policy as a model folder, the rest as safetensors; nothing pickled.

`trainer_state.json` is written last, so a folder without it was cut off and does not count.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from cello1.errors import InputError
from cello1.runs import write_atomic, write_json
from cello1.training.rl.ppo.learner import Learner
from cello1.training.run.checkpoints import checkpoints, steps_of, telling_disk_errors, unmark

_NUMBERS, _TENSORS = "trainer_state.json", "trainer_state.safetensors"


@dataclass
class Progress:
    """How far a training has come.

    Attributes
    ----------
    global_step
        Steps taken.
    num_tokens
        Tokens read and written in them.
    best_global_step, best_merit
        The best validation so far; None before the first.
    best_metrics
        What was measured there.
    """

    global_step: int = 0
    num_tokens: int = 0
    best_global_step: int | None = None
    best_merit: float | None = None
    best_metrics: dict[str, float] | None = None


def read_progress(checkpoint: Path) -> Progress:
    """Read how far a checkpoint is."""
    return Progress(**json.loads((checkpoint / _NUMBERS).read_text("utf-8")))


def save_state(folder: Path, learner: Learner, tokenizer: Any, progress: Progress) -> None:
    """Write a checkpoint, then remove those that are neither the newest nor the best.

    Raises
    ------
    InputError
        When a weight is no number, or the disk is full; earlier checkpoints stay.
    """
    step = progress.global_step
    trained = [*learner.policy.parameters(), *learner.critic.parameters()]
    if not all(bool(torch.isfinite(weight).all()) for weight in trained):
        raise InputError(
            f"a weight is no number after step {step}: training stopped, and the checkpoints so "
            "far are intact; lower ppo.learning_rate and start with another --out"
        )
    place = folder / f"checkpoint-{step}"
    with telling_disk_errors(folder):
        unmark(place)
        learner.policy.save_pretrained(place)
        tokenizer.save_pretrained(place)
        write_atomic(place / _TENSORS, save(_tensors(learner)))
        write_json(place / _NUMBERS, asdict(progress))
    kept = {step, progress.best_global_step}
    for old in checkpoints(folder):
        if not kept & set(steps_of([old])):
            unmark(old)
            shutil.rmtree(old)


def restore(checkpoint: Path, learner: Learner) -> None:
    """Put critic and optimisers back; the policy is loaded from the checkpoint as any model is.

    Raises
    ------
    InputError
        When the checkpoint belongs to another model.
    """
    state = load_file(checkpoint / _TENSORS)
    critic = {name[7:]: x for name, x in state.items() if name.startswith("critic.")}
    try:
        learner.critic.load_state_dict(critic)
    except RuntimeError as error:
        raise InputError(f"{checkpoint} does not fit the model: {error}") from error
    for who, model in (("policy", learner.policy), ("critic", learner.critic)):
        optimizer = learner.optimizers[who]
        for name, weight in model.named_parameters():
            stem = f"adam.{who}.{name}."
            kept = {k.removeprefix(stem): x for k, x in state.items() if k.startswith(stem)}
            if kept:  # the count of steps stays on the CPU, where AdamW wants it
                optimizer.state[weight] = {
                    key: x if key == "step" else x.to(weight.device) for key, x in kept.items()
                }


def _tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Return everything but the policy's weights by name."""
    state = {f"critic.{name}": x for name, x in learner.critic.state_dict().items()}
    for who, model in (("policy", learner.policy), ("critic", learner.critic)):
        for name, weight in model.named_parameters():
            for key, value in learner.optimizers[who].state.get(weight, {}).items():
                state[f"adam.{who}.{name}.{key}"] = value
    return {name: x.detach().contiguous() for name, x in state.items()}
