"""TRL's GRPOTrainer with what it lacks here: our generation, groups that teach, held-out puzzles.

Importing this takes ten seconds; only :mod:`cello1.training.rl.rl` does, when it trains.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import RlSettings
from cello1.solvers.local.attention import decode_faster
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.curriculum import Course
from cello1.training.rl.trl.generate import sample
from cello1.training.rl.trl.logprobs import can_share, response_logprobs
from cello1.training.rl.trl.rollout import Group, Roller, Rollout, Seeds
from cello1.training.rl.trl.settings import rewards_of
from cello1.training.run.held_out import merit
from cello1.training.run.solving import MERIT, Solving, Watch

SAMPLES = "samples.jsonl"


class GroupTrainer(Solving, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on puzzles.

    Parameters
    ----------
    prompter
        How the model is asked.
    practise, held_out
        Puzzles to respond to, and others to solve at every evaluation.
    settings
        The section `rl` of a recipe.
    watch
        Called with what is going on and the share done.
    """

    def __init__(
        self,
        *,
        prompter: Prompter,
        practise: Sequence[Puzzle],
        held_out: Sequence[Puzzle],
        settings: RlSettings,
        watch: Watch,
        **more: Any,
    ) -> None:
        self.prompter, self.held_out, self.watch = prompter, held_out, watch
        self.max_new_tokens = settings.max_new_tokens
        self.practise, self.no_signal = practise, settings.no_signal
        rewards = rewards_of(settings)
        super().__init__(reward_funcs=[_column(i, name) for i, (name, _, _) in enumerate(rewards)],
                         **more)  # fmt: skip
        self.course = None
        if settings.curriculum is not None:
            self.course = Course(settings.curriculum, max(len(p.cells) for p in practise))
        self.roller = Roller(
            prompter,
            LanguageModel(prompter, model=more["model"]).ends,
            practise,
            [reward for _, reward, _ in rewards],
            self.num_generations,
            resample=settings.no_signal == "resample",
            course=self.course,
            seed=settings.seed,
            generate=self._respond,
            total=self._total,
            most=lambda n: max(gather_object([n])),
        )
        self.groups: list[Group] = []
        plain = self.accelerator.unwrap_model(self.model)
        decode_faster(plain)
        # Where memory is short (a GPU, a large vocabulary) TRL's chunks are the better way.
        self.shares_prompts = (
            self.accelerator.device.type == "cpu"
            and self.accelerator.num_processes == 1
            and not (self.args.gradient_checkpointing or self.aux_loss_enabled)
            and can_share(plain)
        )

    # --- which puzzles, and what is said to them -------------------------------------------------

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        plain = super()._get_train_sampler(dataset)
        return _EpochSampler(
            plain.data_source,
            plain.mini_repeat_count,
            batch_size=plain.batch_size,
            repeat_count=plain.repeat_count,
            shuffle=plain.shuffle,
            seed=plain.seed,
        )

    @property
    def _is_ours(self) -> bool:
        """Whether our own decoding serves: weights in one piece here, and nothing but sampling."""
        odd = self.args.generation_kwargs or self.use_transformers_continuous_batching
        plain = (self.top_p, self.top_k, self.min_p, self.repetition_penalty) == (1.0, 0, None, 1.0)
        return plain and not (odd or self.use_vllm or self.is_sharded) and self.temperature > 0

    def _respond(
        self, prompts: list[list[int]], seeds: Seeds
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        self.watch(f"generating, step {self.state.global_step + 1}",
                   self.state.global_step / max(1, self.state.max_steps))  # fmt: skip
        if not self._is_ours:
            said, told = super()._generate_single_turn(prompts, None, {}, self.num_generations)
            return said, told
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        language = LanguageModel(self.prompter, model=model)
        with self.compute_loss_context_manager():
            said = sample(
                language,
                prompts,
                seeds,
                budget=self.max_completion_length,
                temperature=self.temperature,
            )
        model.train()
        return said, None

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        return [g.prompt for g in self.groups for _ in g.rollouts], None, {}

    def _generate_single_turn(self, *_: Any, **__: Any) -> Any:
        said = [rollout for group in self.groups for rollout in group.rollouts]
        told = None if said[0].logprobs is None else [rollout.logprobs for rollout in said]
        return [rollout.tokens for rollout in said], told

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """Roll out groups, then let TRL make advantages and log-probabilities of them."""
        mine = [self.practise[row["number"]] for row in inputs[:: self.num_generations]]
        part = self._step % self.args.gradient_accumulation_steps
        shift = self.accelerator.process_index * len(mine)
        self.groups = self.roller.roll(mine, (self.state.global_step, part), shift)
        rows = [
            {"prompt": text, "rewards": rollout.rewards}
            for group in self.groups
            for text in [self.prompter.vocabulary.text(group.prompt)]
            for rollout in group.rollouts
        ]
        output = super()._generate_and_score_completions(rows)
        if self.no_signal != "keep":
            has = [group.has_signal for group in self.groups for _ in group.rollouts]
            signal = torch.tensor(has, device=output["advantages"].device)
            kept = (output["completion_mask"] * signal[:, None]).sum()
            output["signal"] = signal
            output["num_items_in_batch"] = self.accelerator.gather(kept).sum()
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        ids: Any,
        mask: Any,
        length: int,
        batch_size: int | None = None,
        **more: Any,
    ) -> Any:
        if not self.shares_prompts:
            return super()._get_per_token_logps_and_entropies(
                model, ids, mask, length, batch_size=batch_size, **more
            )
        rows = batch_size or len(ids)
        parts = [
            response_logprobs(
                model, ids[at : at + rows], mask[at : at + rows], length, self.temperature
            )
            for at in range(0, len(ids), rows)
        ]
        logprobs, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logprobs, entropies, None

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        return super()._compute_loss(model, lean(inputs))

    # --- validation, checkpoints, log ------------------------------------------------------------

    def begin(self) -> dict[str, float]:
        """Solve the held-out puzzles before anything is learned."""
        return self.solve_held_out()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Solve the held-out puzzles, by the evaluation every other solver gets."""
        self.model.eval()
        measured = self.solve_held_out()
        measured[MERIT] = merit(measured)
        self.log(measured)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, measured
        )
        return measured

    def _save_more(self, checkpoint: Path) -> None:
        if self.course is not None and self.is_world_process_zero():
            self.course.save(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *rest: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *rest)
        if self.course is not None:
            self.course.load(Path(resume_from_checkpoint))

    def figures(self, seconds: float) -> dict[str, float]:
        """Return what was sampled and where the time went; leave two responses to look at."""
        self._show()
        return self.roller.take_figures(seconds)

    def _show(self) -> None:
        """Write the best and the worst response of a group to the samples, with signal if any."""
        group = next((g for g in self.groups if g.has_signal), self.groups[0])
        ranked = sorted(group.rollouts, key=lambda rollout: sum(rollout.rewards))
        path = Path(str(self.args.output_dir)).with_name(SAMPLES)
        with path.open("a", encoding="utf-8") as file:
            for rollout in (ranked[-1], ranked[0]):
                line = _told(group, rollout, self.state.global_step)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _total(self, counts: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return counts
        every = gather_object([counts])
        return {name: sum(one[name] for one in every) for name in counts}


class _EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's order, but that of an epoch depends on the seed and the epoch only.

    TRL's goes on from the epochs before, which a resumed run has not drawn.
    """

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch."""
        if self.shuffle:
            self.generator.manual_seed(self.seed * 100_003 + epoch)


def lean(inputs: dict[str, Any]) -> dict[str, Any]:
    """Drop the rows that have no signal, and columns that are padding in all rows left.

    One row stays in any case, so that every process takes part in the step; masked, it weighs
    nothing.
    """
    inputs = dict(inputs)
    signal = inputs.pop("signal", None)
    if signal is not None and not bool(signal.all()):
        keep = signal.nonzero()[:, 0]
        if not len(keep):
            keep = torch.zeros(1, dtype=torch.long, device=signal.device)
            inputs["completion_mask"] = torch.zeros_like(inputs["completion_mask"])
        rows = len(signal)
        for key, value in inputs.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows:
                inputs[key] = value[keep]
    width = inputs["completion_mask"].shape[1]
    begin = int(inputs["prompt_mask"].any(0).int().argmax())
    end = max(1, int(inputs["completion_mask"].any(0).sum()))
    for key, value in inputs.items():
        if key in ("prompt_ids", "prompt_mask"):
            inputs[key] = value[:, begin:]
        elif isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == width:
            inputs[key] = value[:, :end]
    return inputs


def _column(number: int, name: str) -> Any:
    """Return TRL's kind of reward function, which reads what was judged at the rollout."""

    def reward(rewards: list[tuple[float, ...]], **_: Any) -> list[float]:
        return [row[number] for row in rewards]

    reward.__name__ = name
    return reward


def _told(group: Group, rollout: Rollout, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "puzzle": group.puzzle.id,
        "cells": len(group.puzzle.cells),
        "answer": group.puzzle.answer,
        "response": rollout.text,
        "rewards": rollout.rewards,
        "finished": rollout.finished,
        "reason": rollout.score.reason,
        "cell_accuracy": rollout.score.cell_accuracy,
    }
