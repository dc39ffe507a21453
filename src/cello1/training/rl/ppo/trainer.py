"""The loop of PPO: answer, score, learn, log, validate, save."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from cello1.recipes import PpoSettings
from cello1.scoring.reward import REWARDS
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.data import read_rl_data
from cello1.training.rl.ppo.learner import Learner
from cello1.training.rl.ppo.model import Critic, arithmetic, lay_out, load_policy
from cello1.training.rl.ppo.rollout import batch_of, figures_of, sample
from cello1.training.rl.ppo.state import Progress, read_progress, restore, save_state
from cello1.training.run.checkpoints import LOG, checkpoints, cut_log
from cello1.training.run.held_out import held_out_figures, merit, solve_greedily

Watch = Callable[[str, float], None]
_SHOWN = 2  # held-out responses that the log keeps of every validation


class PpoTrainer:
    """Takes the steps of a training, from the newest checkpoint on.

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
        self.data = read_rl_data(
            settings, self.language.prompter, self.language.context, settings.max_response
        )
        self.progress = Progress()
        if newest is not None:
            self.progress = read_progress(newest)
            restore(newest, self.learner)
        batches = max(1, len(self.data.practise) // settings.batch)
        self.steps = min(settings.epochs * batches, settings.max_steps or settings.epochs * batches)

    def train(self) -> None:
        """Take all steps there are to take."""
        self.folder.mkdir(parents=True, exist_ok=True)
        progress, settings = self.progress, self.settings
        cut_log(self.folder / LOG, progress.global_step)
        if not any(checkpoints(self.folder / "checkpoints")):
            (self.folder / LOG).unlink(missing_ok=True)
            self._log({"event": "start", "max_steps": self.steps, **self.data.counts})
            self._validate()  # what the start can do is the measure of all that follows
            self._save()
        while progress.global_step < self.steps:
            line = self._step()
            self._log(line)
            self.watch("steps", progress.global_step / self.steps)
            last = progress.global_step == self.steps
            judged = last or progress.global_step % settings.evaluate_every == 0
            if judged:
                self._validate()
            if judged or progress.global_step % settings.save_every == 0:
                self._save()

    def _step(self) -> dict[str, float]:
        """Answer one batch and learn from it."""
        step, settings, device = self.progress.global_step, self.settings, self.language.device
        puzzles = batch_of(self.data.practise, step, settings)
        clock = [time.perf_counter()]
        with arithmetic(device):
            samples = sample(self.language, puzzles, settings, step)
        clock.append(time.perf_counter())
        rewards = [REWARDS[settings.reward](s.score) for s in samples]
        clock.append(time.perf_counter())
        rows = lay_out([s.prompt for s in samples], [s.tokens for s in samples], device)
        dice = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        learned = self.learner.learn(rows, torch.tensor(rewards), dice)
        clock.append(time.perf_counter())
        self.progress.global_step += 1
        self.progress.num_tokens += int(rows.mask.sum())
        seconds = clock[-1] - clock[0]
        names = ("generating", "rewarding", "training")
        spent = [b - a for a, b in pairwise(clock)]
        return {
            **figures_of(samples, rewards),
            **learned,
            "learning_rate": settings.learning_rate,
            "num_tokens": self.progress.num_tokens,
            "step_time": seconds,
            **{f"share_{n}": t / seconds for n, t in zip(names, spent, strict=True)},
            "tokens_per_second": sum(len(s.tokens) for s in samples) / seconds,
            "responses_per_second": len(samples) / seconds,
        }

    def _validate(self) -> None:
        """Solve the held-out puzzles greedily, as `cello1 solve` would, and judge the result."""
        if not self.data.held_out:
            return
        step = self.progress.global_step
        with arithmetic(self.language.device):
            said = solve_greedily(
                self.language,
                self.data.held_out,
                self.settings.max_response,
                lambda share: self.watch(f"solving held-out puzzles, step {step}", share),
            )
        metrics = held_out_figures(self.data.held_out, said)
        self._log({**metrics, "samples": {i: text for i, text, _ in said[:_SHOWN]}})
        worth = merit(metrics)
        if self.progress.best_merit is None or worth > self.progress.best_merit:
            self.progress.best_merit, self.progress.best_global_step = worth, step
            self.progress.best_metrics = metrics

    def _save(self) -> None:
        tokenizer = self.language.tokenizer
        save_state(self.folder / "checkpoints", self.learner, tokenizer, self.progress)

    def _log(self, line: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.progress.global_step, **line}) + "\n")
