"""One batch of responses, one improvement: the heart of PPO, for any models and any scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch

from cello1.errors import InputError
from cello1.recipes import PpoSettings
from cello1.training.rl.ppo.math import (
    advantages,
    explained_variance,
    mean,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from cello1.training.rl.ppo.model import Critic, Rows, logprobs

Tensor = torch.Tensor
Terms = tuple[Tensor, dict[str, Tensor]]


class Learner:
    """A policy, what it must not stray from, and a critic, with an optimiser for each that learns.

    Parameters
    ----------
    policy
        The causal language model that learns.
    reference
        The same model as it was; None when straying costs nothing.
    critic
        Foretells returns.
    settings
        The section `ppo` of a recipe.
    """

    def __init__(self, policy: Any, reference: Any, critic: Critic, settings: PpoSettings) -> None:
        self.policy, self.reference, self.critic = policy, reference, critic
        self.settings = settings
        self.optimizers = {
            "policy": _adam(policy, settings.learning_rate),
            "critic": _adam(critic, settings.value_learning_rate),
        }

    def learn(self, rows: Rows, scores: Tensor, dice: torch.Generator) -> dict[str, float]:
        """Improve policy and critic by one batch.

        Parameters
        ----------
        rows
            Prompts with the responses that the policy, as it is, gave at temperature 1.
        scores
            Rewards of the responses, shape (rows,).
        dice
            For the order in which rows are taken; a generator on the CPU.

        Returns
        -------
        dict
            What to log, under the names of TRL.

        Raises
        ------
        InputError
            When a loss or a gradient is no number; that step is not taken.
        """
        given, figures = self._look_back(rows, scores)
        totals: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.settings.passes):
            order = torch.randperm(len(scores), generator=dice)
            for chosen in torch.split(order, self.settings.minibatch):
                for name, value in self._update(rows, given, chosen).items():
                    totals[name].append(value)
        return figures | {name: sum(values) / len(values) for name, values in totals.items()}

    @torch.no_grad()
    def _look_back(self, rows: Rows, scores: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Rate every token that was said, before anything is changed."""
        old = torch.zeros_like(rows.said)
        entropy, log_ratio, values = old.clone(), old.clone(), old.clone()
        for part, at in self._parts(rows, torch.arange(len(scores))):
            where = at, slice(part.said.shape[1])
            old[where], entropy[where] = logprobs(self.policy, part)
            if self.reference is not None:
                log_ratio[where] = old[where] - logprobs(self.reference, part)[0]
            values[where] = self.critic(part)
        said, s = rows.said, self.settings
        rewards = token_rewards(scores.to(said.device), log_ratio, said, s.kl)
        advantage, returns = advantages(rewards, values, said, s.gamma, s.lam)
        figures = {
            # An estimate that is never below 0; what is paid for is the plain log-ratio.
            "kl": float(mean(torch.exp(-log_ratio) + log_ratio - 1, said)),
            "entropy": float(mean(entropy, said)),
            "explained_variance": explained_variance(values, returns, said),
        }
        given = {
            "old": old,
            "values": values,
            "returns": returns,
            "advantage": whiten(advantage, said),
        }
        return given, figures

    def _update(self, rows: Rows, given: dict[str, Tensor], chosen: Tensor) -> dict[str, float]:
        """Take one step of each optimiser on some rows."""

        def policy_terms(part: Rows, old: dict[str, Tensor]) -> Terms:
            new, _ = logprobs(self.policy, part)
            found = policy_loss(new, old["old"], old["advantage"], self.settings.clip)
            shares = {
                "clip_ratio/low_mean": found.low,
                "clip_ratio/high_mean": found.high,
                "clip_ratio/region_mean": found.low + found.high,
            }
            return found.loss, shares

        def value_terms(part: Rows, old: dict[str, Tensor]) -> Terms:
            clip = self.settings.value_clip
            found = value_loss(self.critic(part), old["values"], old["returns"], clip)
            return found.loss, {"value_clip_ratio": found.low + found.high}

        policy = self._step("policy", policy_terms, rows, given, chosen)
        value = self._step("critic", value_terms, rows, given, chosen)
        return policy | {f"value_{k}" if "clip" not in k else k: v for k, v in value.items()}

    def _step(
        self,
        who: str,
        terms: Callable[[Rows, dict[str, Tensor]], Terms],
        rows: Rows,
        given: dict[str, Tensor],
        chosen: Tensor,
    ) -> dict[str, float]:
        """Descend the mean over all tokens of the rows, a few rows in memory at a time."""
        optimizer = self.optimizers[who]
        optimizer.zero_grad(set_to_none=True)
        tokens = rows.said[chosen].sum()
        figures: dict[str, float] = defaultdict(float)
        for part, at in self._parts(rows, chosen):
            old = {name: x[at, : part.said.shape[1]] for name, x in given.items()}
            loss, shares = terms(part, old)
            total = (loss * part.said).sum() / tokens
            total.backward()  # type: ignore[no-untyped-call]
            figures["loss"] += float(total.detach())
            for name, share in shares.items():
                figures[name] += float((share * part.said).sum() / tokens)
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm))
        for what, number in (("loss", figures["loss"]), ("gradient", norm)):
            if not math.isfinite(number):
                raise InputError(
                    f"the {what} of the {who} is {number}: training stopped, and the checkpoints "
                    "so far are intact; lower ppo.learning_rate or ppo.value_learning_rate, or "
                    "clip harder with ppo.max_grad_norm, and start with another --out"
                )
        optimizer.step()
        return {**figures, "grad_norm": norm}

    def _parts(self, rows: Rows, chosen: Tensor) -> Iterator[tuple[Rows, Tensor]]:
        """Cut rows into parts that fit the memory, those of like length together."""
        lengths = rows.mask[chosen].sum(dim=1).cpu()
        ranked = chosen[lengths.argsort(stable=True)]
        for at in torch.split(ranked, self.settings.micro_batch):
            yield rows.take(at), at


def _adam(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
