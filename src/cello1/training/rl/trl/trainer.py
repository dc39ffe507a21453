"""TRL's GRPOTrainer with our rollouts, signal-free groups dropped, and held-out puzzles.

Importing this takes ten seconds; :mod:`.grpo` does it only to train. Rollouts go through TRL's
`rollout_func`. Two private methods are overridden beyond that: the order of puzzles, which a
resumed run could not repeat, and the log-probabilities, which read the prompt of a group once.
`tests/training/rl/test_trl_canary.py` fails when TRL changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import RlSettings
from cello1.runs import append_line
from cello1.scoring.reward import Reward
from cello1.solvers.local.attention import decode_faster
from cello1.solvers.local.language import LanguageModel
from cello1.training.rl.rollout import Group, RolloutSampler, Seeds, as_line, sample_tokens
from cello1.training.rl.trl.logprobs import can_share, response_logprobs
from cello1.training.run.precision import for_sampling
from cello1.training.run.trl import SolvingTrainer

SAMPLES = "samples.jsonl"


class GroupTrainer(SolvingTrainer, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on puzzles.

    Parameters
    ----------
    practise
        Puzzles to respond to.
    settings
        The section `rl` of a recipe.
    rewards
        Name, function and weight of every reward.
    more
        For :class:`SolvingTrainer` and TRL's trainer.
    """

    # TRL would count responses without signal as empty in these.
    not_logged = tuple(f"completions/{m}_terminated_length" for m in ("mean", "min", "max"))

    def __init__(
        self,
        *,
        practise: Sequence[Puzzle],
        settings: RlSettings,
        rewards: Sequence[tuple[str, Reward, float]],
        **more: Any,
    ) -> None:
        self.practise = {puzzle.id: puzzle for puzzle in practise}
        self.drops = settings.no_signal == "drop"
        self.groups: list[Group] = []
        self.rolled = (-1, 0)  # step and generation of the last rollout
        super().__init__(
            settings=settings,
            reward_funcs=[_column(i, name) for i, (name, _, _) in enumerate(rewards)],
            rollout_func=self._roll_out,
            **more,
        )
        plain = self.accelerator.unwrap_model(self.model)
        self.sampler = RolloutSampler(
            self.prompter,
            LanguageModel(self.prompter, model=plain).ends,
            [reward for _, reward, _ in rewards],
            self.num_generations,
            seed=settings.seed,
            generate=self._respond,
            gather=lambda counts: gather_object([counts]),
        )
        decode_faster(plain)
        # Where memory is short (a GPU, a large vocabulary) TRL's chunks are better.
        self.shares_prompts = (
            self.accelerator.device.type == "cpu"
            and self.accelerator.num_processes == 1
            and not (self.args.gradient_checkpointing or self.aux_loss_enabled)
            and can_share(plain)
        )

    # --- what is asked, and what is sampled ------------------------------------------------------

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

    def _roll_out(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Sample a group for every puzzle; TRL computes advantages and the loss.

        Where groups without signal are dropped, their tokens are masked as those of an
        environment are: they count neither in the loss nor in what it is divided by.
        """
        asked = [self.practise[name] for name in prompts[:: self.num_generations]]
        step, (last, part) = self.state.global_step, self.rolled
        self.rolled = (step, part + 1 if step == last else 0)
        shift = self.accelerator.process_index * len(asked)
        self.groups = self.sampler.sample(asked, self.rolled, shift)
        rows = [(group, rollout) for group in self.groups for rollout in group.rollouts]
        found: dict[str, Any] = {
            "prompt_ids": [group.prompt for group, _ in rows],
            "completion_ids": [rollout.tokens for _, rollout in rows],
            "logprobs": [rollout.logprobs for _, rollout in rows] if rows[0][1].logprobs else None,
            "rewards": [rollout.rewards for _, rollout in rows],
        }
        if self.drops:
            masks = [[int(group.has_signal)] * len(rollout.tokens) for group, rollout in rows]
            found["env_mask"] = masks
        return found

    @property
    def _is_ours(self) -> bool:
        """Whether our own decoding can be used: weights are not sharded, and sampling is plain."""
        odd = self.args.generation_kwargs or self.use_transformers_continuous_batching
        plain = (self.top_p, self.top_k, self.min_p, self.repetition_penalty) == (1.0, 0, None, 1.0)
        return plain and not (odd or self.use_vllm or self.is_sharded) and self.temperature > 0

    def _respond(
        self, prompts: list[list[int]], seeds: Seeds
    ) -> tuple[list[list[int]], list[list[float | None]] | None]:
        step, most = self.state.global_step, max(1, self.state.max_steps)
        self.watch(f"generating, step {step + 1}", step / most)
        if not self._is_ours:
            tokens, logprobs = self._generate_single_turn(prompts, None, {}, self.num_generations)
            return tokens, logprobs
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        tokens = sample_tokens(
            LanguageModel(self.prompter, model=for_sampling(model, half=bool(self.args.bf16))),
            prompts,
            seeds,
            budget=self.max_completion_length,
            temperature=self.temperature,
        )
        model.train()
        return tokens, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        if not self.shares_prompts:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **more
            )
        rows = batch_size or len(input_ids)
        with self.accelerator.autocast():
            parts = [
                response_logprobs(
                    model,
                    input_ids[at : at + rows],
                    attention_mask[at : at + rows],
                    logits_to_keep,
                    self.temperature,
                )
                for at in range(0, len(input_ids), rows)
            ]
        logprobs, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logprobs, entropies, None

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        """Compute the loss on the rows and columns that count."""
        return super().compute_loss(model, lean(inputs), *rest, **more)

    # --- validation, log -------------------------------------------------------------------------

    def begin(self) -> dict[str, float]:
        """Solve the held-out puzzles before anything is learned."""
        return self.solve_held_out()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Solve the held-out puzzles, evaluated like those of any solver."""
        self.model.eval()
        measured = self.select_by({})
        self.log(measured)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, measured
        )
        return measured

    def figures(self, seconds: float) -> dict[str, float]:
        """Return metrics of the rollouts and where the time went; keep two responses to look at."""
        # The best and the worst response of a group, of one with signal if there is any.
        group = next((g for g in self.groups if g.has_signal), self.groups[0])
        ranked = sorted(group.rollouts, key=lambda rollout: sum(rollout.rewards))
        path = Path(str(self.args.output_dir)).with_name(SAMPLES)
        for rollout in (ranked[-1], ranked[0]):
            append_line(path, as_line(group, rollout, self.state.global_step))
        return self.sampler.take_figures(seconds)


class _EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's order, except that it depends on the seed and the epoch alone.

    TRL's depends on the epochs before, which a resumed run has not drawn.
    """

    def set_epoch(self, epoch: int) -> None:
        """Switch to the order of another epoch."""
        if self.shuffle:
            self.generator.manual_seed(self.seed * 100_003 + epoch)


def lean(inputs: dict[str, Any]) -> dict[str, Any]:
    """Drop rows that are fully masked, and columns that are padding in all remaining rows.

    One row always stays, so that every process takes part in the step; masked, it counts for
    nothing.
    """
    inputs = dict(inputs)
    if (masked := inputs.pop("tool_mask", None)) is not None:
        kept = (masked * inputs["completion_mask"]).any(1)
        if not bool(kept.all()):
            rows, keep = len(kept), kept.nonzero()[:, 0]
            if not len(keep):
                keep = torch.zeros(1, dtype=torch.long, device=kept.device)
                inputs["completion_mask"] = torch.zeros_like(inputs["completion_mask"])
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
    """Return a reward function for TRL that reads the rewards of the rollout."""

    def reward(rewards: list[tuple[float, ...]], **_: Any) -> list[float]:
        return [row[number] for row in rewards]

    reward.__name__ = name
    return reward
