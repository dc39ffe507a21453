"""One update from one batch of responses: the core of PPO, for any models and any scores.

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with generalised advantage
estimation (Schulman et al. 2016, arXiv 1506.02438). Tensors have the shape (rows, tokens): a row is
one response, a token one action; `mask` is 1 where a row has a token and 0 behind its end. Prompts
are padded on the left and responses on the right, so that all responses of a batch begin in one
column and only their columns are turned into probabilities.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoModel

from cello1.errors import InputError
from cello1.recipes import PpoSettings
from cello1.solvers.local.attention import decode_faster
from cello1.solvers.local.loading import load_model
from cello1.training.run.precision import arithmetic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor
Terms = tuple[Tensor, dict[str, Tensor]]

# --- arithmetic ----------------------------------------------------------------------------------


class Clipped(NamedTuple):
    """A loss per token, and where clipping removed the gradient."""

    loss: Tensor
    low: Tensor
    high: Tensor


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens."""
    return (values * mask).sum() / mask.sum()


def token_rewards(scores: Tensor, log_ratio: Tensor, mask: Tensor, kl: float) -> Tensor:
    """Return the reward of every token: a score at the end, less a price for leaving the reference.

    Parameters
    ----------
    scores
        Scores of the whole responses, shape (rows,).
    log_ratio
        Log-probability of every token under the policy less that under the reference. Its mean
        is the Kullback-Leibler divergence.
    mask
        Where there are tokens.
    kl
        The penalty.
    """
    rewards = -kl * log_ratio * mask
    last = mask.sum(dim=1).long() - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Estimate the advantage of every token (arXiv 1506.02438, eq. 16).

    Parameters
    ----------
    rewards, values
        Rewards of the tokens, and the values predicted before them.
    mask
        Where there are tokens; after the last one the value is 0.
    gamma, lam
        Discount, and the trade-off of bias (0: trust values) and variance (1: trust rewards).

    Returns
    -------
    tuple
        Advantages, and the returns that the values should have predicted.
    """
    values = values * mask
    found = torch.zeros_like(values)
    later = values.new_zeros(len(values))
    expected = values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * expected - values[:, t]
        later = (delta + gamma * lam * later) * mask[:, t]
        found[:, t] = later
        expected = values[:, t]
    return found, found + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Normalize the values of all tokens to mean 0 and standard deviation 1.

    Constant values become 0: then there is nothing to learn.
    """
    centred = (values - mean(values, mask)) * mask
    spread = mean(centred**2, mask).sqrt()
    return centred / (spread + 1e-8)


def policy_loss(new: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Clipped:
    """Return the clipped policy loss of every token (arXiv 1707.06347, eq. 7).

    Parameters
    ----------
    new, old
        Log-probabilities under the current policy, and under the one that wrote the response.
    advantage
        Of every token.
    clip
        How far their ratio may move from 1 before a gain no longer counts.
    """
    ratio = torch.exp(new - old)
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    low = (ratio < 1 - clip) & (advantage < 0)
    high = (ratio > 1 + clip) & (advantage > 0)
    return Clipped(loss, low.float(), high.float())


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float) -> Clipped:
    """Return half the squared error of every value, the larger of clipped and unclipped.

    Parameters
    ----------
    new, old
        Current values, and those before this batch.
    returns
        The targets.
    clip
        How far a value may move before a gain no longer counts.
    """
    held = old + (new - old).clamp(-clip, clip)
    free, bound = (new - returns) ** 2, (held - returns) ** 2
    cut = bound > free
    return Clipped(
        torch.max(free, bound) / 2, (cut & (new < old)).float(), (cut & (new > old)).float()
    )


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return the fraction of the variance of the returns that the values explain; 0 without any."""

    def variance(x: Tensor) -> float:
        return float(mean((x - mean(x, mask)) ** 2, mask))

    total = variance(returns)
    return 1 - variance(returns - values) / total if total > 0 else 0.0


# --- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Prompts and responses.

    Attributes
    ----------
    ids, mask
        Token ids and where there are tokens, shape (rows, prompt columns + response columns).
    response_mask
        Where there are tokens of responses, shape (rows, response columns), float.
    """

    ids: Tensor
    mask: Tensor
    response_mask: Tensor

    def take(self, rows: Tensor) -> Rows:
        """Return some rows, without the columns that none of them needs."""
        response_mask = self.response_mask[rows]
        width = int(response_mask.sum(dim=1).max())
        start = self.ids.shape[1] - self.response_mask.shape[1]
        first = int(self.mask[rows].argmax(dim=1).min())
        kept = slice(first, start + width)
        return Rows(self.ids[rows, kept], self.mask[rows, kept], response_mask[:, :width])

    def positions(self) -> Tensor:
        """Return the position of every token in its own text."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)


def lay_out(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: str
) -> Rows:
    """Put prompts and responses side by side; padding is masked."""
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids = torch.zeros(len(prompts), left + right, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        place = slice(left - len(prompt), left + len(response))
        ids[row, place] = torch.tensor([*prompt, *response])
        mask[row, place] = 1
    return Rows(ids.to(device), mask.to(device), mask[:, left:].float().to(device))


def load_policy(folder: Path, device: str) -> PreTrainedModel:
    """Load a language model with float32 weights; in bfloat16 small steps would vanish.

    It stays in evaluation mode: dropout would change the probabilities that tokens were drawn with.
    """
    model = load_model(folder, torch.float32)
    model.to(device).eval()  # type: ignore[arg-type]
    decode_faster(model)
    return model


def logprobs(model: PreTrainedModel, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every response token, and the entropy of its distribution.

    Returns
    -------
    tuple
        Both of shape (rows, response columns), float32; meaningless for padding.
    """
    width = rows.response_mask.shape[1]
    with arithmetic(rows.ids.device):
        logits = model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            position_ids=rows.positions(),
            use_cache=False,
            logits_to_keep=width + 1,
        ).logits[:, :-1]
    logs = logits.float().log_softmax(dim=-1)
    chosen = logs.gather(-1, rows.ids[:, -width:, None])[..., 0]
    return chosen, -(logs.detach().exp() * logs.detach()).sum(dim=-1)


class Critic(torch.nn.Module):
    """Predicts the return of a response at every token: a model's trunk with a value head.

    A trunk of its own, as in the paper, so that the two learning rates do not interfere. The
    head starts at 0, and so do the predictions.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.trunk: Any = load_model(folder, torch.float32, kind=AutoModel)
        width = self.trunk.config.get_text_config(decoder=True).hidden_size
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, rows: Rows) -> Tensor:
        """Return the value before every token, shape (rows, response columns)."""
        width = rows.response_mask.shape[1]
        with arithmetic(rows.ids.device):
            states = self.trunk(
                input_ids=rows.ids,
                attention_mask=rows.mask,
                position_ids=rows.positions(),
                use_cache=False,
            ).last_hidden_state
        return torch.as_tensor(self.head(states[:, -width - 1 : -1].float()))[..., 0]


# --- learning ------------------------------------------------------------------------------------


class Learner:
    """A policy, its reference, a critic, and optimizers for policy and critic.

    Parameters
    ----------
    policy
        The causal language model to train.
    reference
        The model before training; None without a penalty.
    critic
        Predicts returns.
    settings
        The section `ppo` of a recipe.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel | None,
        critic: Critic,
        settings: PpoSettings,
    ) -> None:
        self.policy, self.reference, self.critic = policy, reference, critic
        self.settings = settings
        self.optimizers = {
            "policy": _adam(policy, settings.learning_rate),
            "critic": _adam(critic, settings.value_learning_rate),
        }

    def learn(self, rows: Rows, scores: Tensor, rng: torch.Generator) -> dict[str, float]:
        """Update policy and critic with one batch.

        Parameters
        ----------
        rows
            Prompts, and responses of the current policy at temperature 1.
        scores
            Rewards of the responses, shape (rows,).
        rng
            Generator for the order of the rows, on the CPU.

        Returns
        -------
        dict
            Metrics to log, under the names of TRL.

        Raises
        ------
        InputError
            When a loss or a gradient is not finite; that step is not taken.
        """
        given, figures = self._evaluate(rows, scores)
        totals: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.settings.passes):
            order = torch.randperm(len(scores), generator=rng)
            for chosen in torch.split(order, self.settings.minibatch):
                for name, value in self._update(rows, given, chosen).items():
                    totals[name].append(value)
        return figures | {name: sum(values) / len(values) for name, values in totals.items()}

    @torch.no_grad()
    def _evaluate(self, rows: Rows, scores: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Evaluate every response token, before any weight changes."""
        old = torch.zeros_like(rows.response_mask)
        entropy, log_ratio, values = old.clone(), old.clone(), old.clone()
        for part, at in self._parts(rows, torch.arange(len(scores))):
            where = at, slice(part.response_mask.shape[1])
            old[where], entropy[where] = logprobs(self.policy, part)
            if self.reference is not None:
                log_ratio[where] = old[where] - logprobs(self.reference, part)[0]
            values[where] = self.critic(part)
        response_mask, s = rows.response_mask, self.settings
        rewards = token_rewards(scores.to(response_mask.device), log_ratio, response_mask, s.kl)
        advantage, returns = advantages(rewards, values, response_mask, s.gamma, s.lam)
        figures = {
            # An estimate that is never negative; the penalty is on the plain log-ratio.
            "kl": float(mean(torch.exp(-log_ratio) + log_ratio - 1, response_mask)),
            "entropy": float(mean(entropy, response_mask)),
            "explained_variance": explained_variance(values, returns, response_mask),
        }
        given = {
            "old": old,
            "values": values,
            "returns": returns,
            "advantage": whiten(advantage, response_mask),
        }
        return given, figures

    def _update(self, rows: Rows, given: dict[str, Tensor], chosen: Tensor) -> dict[str, float]:
        """Take one step of each optimizer on some rows."""

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
        """Take a gradient step on the mean over all tokens, a micro-batch at a time."""
        optimizer = self.optimizers[who]
        optimizer.zero_grad(set_to_none=True)
        tokens = rows.response_mask[chosen].sum()
        figures: dict[str, float] = defaultdict(float)
        for part, at in self._parts(rows, chosen):
            old = {name: x[at, : part.response_mask.shape[1]] for name, x in given.items()}
            loss, shares = terms(part, old)
            total = (loss * part.response_mask).sum() / tokens
            total.backward()  # type: ignore[no-untyped-call]
            figures["loss"] += float(total.detach())
            for name, share in shares.items():
                figures[name] += float((share * part.response_mask).sum() / tokens)
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
        """Split rows into micro-batches of similar lengths."""
        lengths = rows.mask[chosen].sum(dim=1).cpu()
        ranked = chosen[lengths.argsort(stable=True)]
        for at in torch.split(ranked, self.settings.micro_batch):
            yield rows.take(at), at


def _adam(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
