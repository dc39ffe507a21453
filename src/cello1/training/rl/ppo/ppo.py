"""Reinforcement learning by PPO on one machine: the ablation of the paper, short enough to read.

A step lets the policy answer a batch of puzzles, scores the responses, and improves policy and
critic by them (`learner.py`). Paper: arXiv 2506.02911, section 4; TRL no longer has PPO. Everything
random depends on the seed and the step alone, so that interrupted training resumes to the same
weights. For many GPUs and billions of parameters there is verl (`verl/`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import PpoSettings
from cello1.runs import LOG, Watch, append_line, write_atomic, write_json
from cello1.scoring.reward import REWARDS
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.loading import model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.data import read_rl_data, rl_files
from cello1.training.rl.ppo.learner import Critic, Learner, lay_out, load_policy
from cello1.training.rl.rollout import RolloutSampler, Seeds, sample_tokens
from cello1.training.run.checkpoints import (
    checkpoints,
    naming_disk_errors,
    read_state,
    step_of,
    unmark,
)
from cello1.training.run.held_out import (
    SELECTION_SCORE,
    held_out_figures,
    selection_score,
    solve_greedily,
)
from cello1.training.run.precision import arithmetic, for_sampling, training_dtype
from cello1.training.run.run_training import new_record, run_with_checkpoints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NUMBERS, _TENSORS = "trainer_state.json", "trainer_state.safetensors"
_SHOWN = 2  # held-out responses that the log keeps of every validation


def ppo(settings: PpoSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Train a model by PPO; see :func:`cello1.training.rl.rl.rl`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UseError("this PPO runs in one process; on several GPUs use --engine verl")
    if not settings.model:
        raise UseError("no model is named to start from; add model=DIR, or ppo.model to the recipe")
    folder, base = Path(out), model_folder(settings.model)
    record = new_record("rl", settings, base, engine="ppo")

    def prepare() -> tuple[PpoTrainer, dict[str, Any]]:
        trainer = PpoTrainer(settings, folder, base, watch)
        return trainer, {"max_steps": trainer.steps, **trainer.data.counts}

    return run_with_checkpoints(folder, record, prepare, inputs=rl_files(settings))


@dataclass
class Progress:
    """State of a training, under the names of `transformers`.

    Attributes
    ----------
    global_step, max_steps
        Steps taken, and steps in all.
    num_input_tokens_seen
        Tokens read and written so far.
    best_global_step
        Step of the best validation so far; None before the first.
    log_history
        Metrics of every validation.
    """

    max_steps: int
    global_step: int = 0
    num_input_tokens_seen: int = 0
    best_global_step: int | None = None
    log_history: list[dict[str, Any]] = field(default_factory=list)


class PpoTrainer:
    """Runs a training from the newest checkpoint.

    Parameters
    ----------
    settings
        The section `ppo` of a recipe.
    folder
        The run folder.
    base
        Folder of the model it starts from, which is also the reference.
    watch
        Called with what is going on and the share done.
    """

    def __init__(self, settings: PpoSettings, folder: Path, base: Path, watch: Watch) -> None:
        self.settings, self.folder, self.watch = settings, folder, watch
        device = "cuda" if torch.cuda.is_available() else "cpu"
        newest = next(reversed(checkpoints(folder / "checkpoints")), None)
        policy = load_policy(newest or base, device)
        reference = load_policy(base, device).requires_grad_(False) if settings.kl else None
        self.learner = Learner(policy, reference, Critic(base).to(device).eval(), settings)
        self.language = LanguageModel(Prompter(base), model=policy)
        prompter, context = self.language.prompter, self.language.context
        self.data = read_rl_data(settings, prompter, context, settings.max_response)
        self.sampler = RolloutSampler(
            prompter,
            self.language.ends,
            [REWARDS[settings.reward]],
            1,
            seed=settings.seed,
            generate=self._respond,
        )
        batches = max(1, len(self.data.practise) // settings.batch)
        self.steps = min(settings.epochs * batches, settings.max_steps or settings.epochs * batches)
        self.progress = Progress(self.steps)
        if newest is not None:
            self.progress = Progress(**read_state(newest))
            restore(newest, self.learner)

    def begin(self) -> dict[str, Any]:
        """Validate before training: the baseline."""
        return self._validate()

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Train to the last step."""
        progress, settings = self.progress, self.settings
        if resume_from_checkpoint is None:
            self._save()
        while progress.global_step < self.steps:
            self._log(self._step())
            self.watch("steps", progress.global_step / self.steps)
            last = progress.global_step == self.steps
            validates = last or progress.global_step % settings.evaluate_every == 0
            if validates and (measured := self._validate()):
                self._log(measured)
            if validates or progress.global_step % settings.save_every == 0:
                self._save()

    def _respond(self, prompts: list[list[int]], seeds: Seeds) -> tuple[list[list[int]], None]:
        with arithmetic(self.language.device):
            tokens = sample_tokens(
                self._speaker(), prompts, seeds, budget=self.settings.max_response, temperature=1.0
            )
        return tokens, None

    def _speaker(self) -> LanguageModel:
        """Return the policy as it responds."""
        half = training_dtype(self.language.device) == torch.bfloat16
        model = for_sampling(self.language.model, half=half)
        return LanguageModel(self.language.prompter, model=model)

    def _step(self) -> dict[str, float]:
        """Answer one batch and learn from it."""
        began, settings = time.perf_counter(), self.settings
        step, device = self.progress.global_step, self.language.device
        groups = self.sampler.sample(batch_of(self.data.practise, step, settings), (step, 0), 0)
        rollouts = [group.rollouts[0] for group in groups]
        rewards = torch.tensor([rollout.rewards[0] for rollout in rollouts])
        rows = lay_out([g.prompt for g in groups], [r.tokens for r in rollouts], device)
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        learned = self.learner.learn(rows, rewards, rng)
        self.progress.global_step += 1
        self.progress.num_input_tokens_seen += int(rows.mask.sum())
        seconds = time.perf_counter() - began
        figures = self.sampler.take_figures(seconds)
        figures.pop("no_signal")  # a group of one response cannot have it
        return {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(correction=0)),
            **learned,
            **figures,
            "learning_rate": settings.learning_rate,
            "num_tokens": self.progress.num_input_tokens_seen,
            "step_time": seconds,
        }

    def _validate(self) -> dict[str, Any]:
        """Solve the held-out puzzles greedily, as `cello1 solve` would, and track the best step."""
        if not self.data.held_out:
            return {}
        progress = self.progress
        what = f"solving held-out puzzles, step {progress.global_step}"
        with arithmetic(self.language.device):
            answered = solve_greedily(
                self._speaker(),
                self.data.held_out,
                self.settings.max_response,
                lambda share: self.watch(what, share),
            )
        measured = held_out_figures(self.data.held_out, answered)
        measured[SELECTION_SCORE] = selection_score(measured)
        best = max((e[SELECTION_SCORE] for e in progress.log_history), default=None)
        if best is None or measured[SELECTION_SCORE] > best:
            progress.best_global_step = progress.global_step
        progress.log_history.append({"step": progress.global_step, **measured})
        return {**measured, "samples": {i: text for i, text, _ in answered[:_SHOWN]}}

    def _save(self) -> None:
        tokenizer = self.language.tokenizer
        save_state(self.folder / "checkpoints", self.learner, tokenizer, self.progress)

    def _log(self, line: dict[str, Any]) -> None:
        append_line(self.folder / LOG, {"step": self.progress.global_step, **line})


def batch_of(puzzles: Sequence[Puzzle], step: int, settings: PpoSettings) -> list[Puzzle]:
    """Return the puzzles of one step; they depend on the seed and the step alone."""
    size = min(settings.batch, len(puzzles))
    epoch, place = divmod(step, len(puzzles) // size)
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(puzzles))
    return [puzzles[i] for i in order[place * size : (place + 1) * size]]


def save_state(
    folder: Path, learner: Learner, tokenizer: PreTrainedTokenizerBase, progress: Progress
) -> None:
    """Write a checkpoint, then remove those that are neither the newest nor the best.

    The policy is saved as a model folder, the rest as safetensors; nothing is pickled.

    Raises
    ------
    InputError
        When a weight is not finite, or the disk is full; earlier checkpoints stay.
    """
    step = progress.global_step
    trained = [*learner.policy.parameters(), *learner.critic.parameters()]
    if not all(bool(torch.isfinite(weight).all()) for weight in trained):
        raise InputError(
            f"a weight is not finite after step {step}: training stopped, and the checkpoints so "
            "far are intact; lower ppo.learning_rate and start with another --out"
        )
    place = folder / f"checkpoint-{step}"
    with naming_disk_errors(folder):
        unmark(place)
        learner.policy.save_pretrained(place)
        tokenizer.save_pretrained(place)
        write_atomic(place / _TENSORS, save(_tensors(learner)))
        write_json(place / _NUMBERS, asdict(progress))
    kept = {step, progress.best_global_step}
    for old in checkpoints(folder):
        if step_of(old) not in kept:
            unmark(old)
            shutil.rmtree(old)


def restore(checkpoint: Path, learner: Learner) -> None:
    """Restore critic and optimizers; the policy is loaded from the checkpoint like any model.

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
