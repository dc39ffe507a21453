"""The arithmetic of PPO, on tensors of shape (rows, tokens).

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with generalised advantage
estimation (Schulman et al. 2016, arXiv 1506.02438). A row is one response; a token is one action;
`said` is 1 where a row has a token and 0 behind its end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

Tensor = torch.Tensor


class Clipped(NamedTuple):
    """A loss per token, and where clipping took the gradient away."""

    loss: Tensor
    low: Tensor
    high: Tensor


def mean(values: Tensor, said: Tensor) -> Tensor:
    """Return the mean over tokens."""
    return (values * said).sum() / said.sum()


def token_rewards(scores: Tensor, log_ratio: Tensor, said: Tensor, kl: float) -> Tensor:
    """Return what every token earns: the score at the end, less a price for leaving the reference.

    Parameters
    ----------
    scores
        Of the whole responses, shape (rows,).
    log_ratio
        Log-probability of every token under the policy less that under the reference. Its mean
        is the Kullback-Leibler divergence.
    said
        Where there are tokens.
    kl
        The price.
    """
    rewards = -kl * log_ratio * said
    last = said.sum(dim=1).long() - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def advantages(
    rewards: Tensor, values: Tensor, said: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Estimate how much better every token did than expected (arXiv 1506.02438, eq. 16).

    Parameters
    ----------
    rewards, values
        What every token earned, and what was expected before it.
    said
        Where there are tokens; behind the last one nothing is expected.
    gamma, lam
        Discount, and the trade of bias (0: trust the values) for variance (1: trust the rewards).

    Returns
    -------
    tuple
        Advantages, and the returns that the values should have foretold.
    """
    values = values * said
    found = torch.zeros_like(values)
    later = values.new_zeros(len(values))
    expected = values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        surprise = rewards[:, t] + gamma * expected - values[:, t]
        later = (surprise + gamma * lam * later) * said[:, t]
        found[:, t] = later
        expected = values[:, t]
    return found, found + values


def whiten(values: Tensor, said: Tensor) -> Tensor:
    """Bring the values of all tokens to mean 0 and standard deviation 1.

    Values that do not differ become 0: then there is nothing to learn.
    """
    centred = (values - mean(values, said)) * said
    spread = mean(centred**2, said).sqrt()
    return centred / (spread + 1e-8)


def policy_loss(new: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Clipped:
    """Return the clipped policy loss of every token (arXiv 1707.06347, eq. 7).

    Parameters
    ----------
    new, old
        Log-probabilities under the policy as it is, and as it was when it wrote the response.
    advantage
        Of every token.
    clip
        How far the ratio of the two may move from 1 before a gain is no longer counted.
    """
    ratio = torch.exp(new - old)
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    low = (ratio < 1 - clip) & (advantage < 0)
    high = (ratio > 1 + clip) & (advantage > 0)
    return Clipped(loss, low.float(), high.float())


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float) -> Clipped:
    """Return half the squared error of every value, the worse of the clipped and the free one.

    Parameters
    ----------
    new, old
        Values as they are, and as they were before this batch.
    returns
        What they should have been.
    clip
        How far a value may move before a gain is no longer counted.
    """
    held = old + (new - old).clamp(-clip, clip)
    free, bound = (new - returns) ** 2, (held - returns) ** 2
    cut = bound > free
    return Clipped(
        torch.max(free, bound) / 2, (cut & (new < old)).float(), (cut & (new > old)).float()
    )


def explained_variance(values: Tensor, returns: Tensor, said: Tensor) -> float:
    """Return the share of the returns' variance that the values foretold; 0 where there is none."""

    def variance(x: Tensor) -> float:
        return float(mean((x - mean(x, said)) ** 2, said))

    total = variance(returns)
    return 1 - variance(returns - values) / total if total > 0 else 0.0
