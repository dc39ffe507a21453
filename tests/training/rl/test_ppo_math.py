"""PPO's arithmetic against numbers worked out by hand."""

import math

import pytest
import torch

from cello1.training.rl.ppo.learner import (
    advantages,
    explained_variance,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)


def t(*rows):
    return torch.tensor(rows, dtype=torch.float64)


SAID = t([1, 1, 1], [1, 1, 0])


def test_advantages_by_hand():
    """Two responses, of three tokens and of two; gamma 0.9, lambda 0.5.

    First: surprises from the end: 1 - 0.4 = 0.6; 0 + 0.9 x 0.4 - 0.3 = 0.06;
    0.5 + 0.9 x 0.3 - 0.2 = 0.57. Advantages: 0.6; 0.06 + 0.45 x 0.6 = 0.33;
    0.57 + 0.45 x 0.33 = 0.7185. Second: -1 - 0.5 = -1.5; 0.9 x 0.5 - 0.1 = 0.35;
    0.35 + 0.45 x -1.5 = -0.325. What stands behind its end (7 and 9) does not count.
    """
    rewards = t([0.5, 0, 1], [0, -1, 7])
    values = t([0.2, 0.3, 0.4], [0.1, 0.5, 9])
    found, returns = advantages(rewards, values, SAID, 0.9, 0.5)
    assert torch.allclose(found, t([0.7185, 0.33, 0.6], [-0.325, -1.5, 0]))
    assert torch.allclose(returns, t([0.9185, 0.63, 1], [-0.225, -1, 0]))


def test_without_discount_the_advantage_is_what_is_still_earned_less_what_was_expected():
    """The paper's gamma = lambda = 1."""
    rewards, values = t([0.1, -0.2, 1]), t([0.5, 0.25, 2])
    found, returns = advantages(rewards, values, t([1, 1, 1]), 1, 1)
    assert torch.allclose(returns, t([0.9, 0.8, 1]))
    assert torch.allclose(found, t([0.4, 0.55, -1]))


def test_the_score_comes_with_the_last_token_and_straying_costs_at_every_one():
    log_ratio = t([0.5, -1, 0], [2, 0, 5])
    found = token_rewards(t(1, -1), log_ratio, SAID, 0.1)
    assert torch.allclose(found, t([-0.05, 0.1, 1], [-0.2, -1, 0]))


def test_whitened_tokens_have_mean_0_and_spread_1_and_equal_ones_say_nothing():
    found = whiten(t([1, 2, 3], [6, 3, 99]), SAID)
    spread = math.sqrt(2.8)  # of 1, 2, 3, 6, 3 with mean 3
    assert torch.allclose(found, t([-2, -1, 0], [3, 0, 0]) / spread)
    assert torch.equal(whiten(SAID * -1, SAID), torch.zeros_like(SAID))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, (0, 0)),
        (1.1, 2.0, -2.2, -2.2, (0, 0)),
        (1.5, 2.0, -2.4, 0.0, (0, 1)),  # a gain is counted up to 1.2 only
        (1.5, -2.0, 3.0, 3.0, (0, 0)),  # a loss is counted in full
        (0.5, 2.0, -1.0, -1.0, (0, 0)),
        (0.5, -2.0, 1.6, 0.0, (1, 0)),
    ],
)
def test_the_policy_loss_is_clipped_on_the_side_of_gains(ratio, advantage, loss, gradient, clipped):
    old = t([-1.0])
    new = (old + math.log(ratio)).requires_grad_()
    found = policy_loss(new, old, t([advantage]), 0.2)
    found.loss.sum().backward()
    assert found.loss.item() == pytest.approx(loss)
    assert new.grad.item() == pytest.approx(gradient)
    assert (found.low.item(), found.high.item()) == clipped


@pytest.mark.parametrize(
    ("new", "loss", "gradient"),
    [
        (0.4, 0.18, -0.6),  # 0.4 of 1, from 0: free to move by 0.5
        (0.9, 0.125, 0.0),  # counted as 0.5, the gain beyond it is not
        (-0.9, 1.805, -1.9),  # the wrong way: counted in full
    ],
)
def test_the_value_loss_is_clipped_on_the_side_of_gains(new, loss, gradient):
    value = t([new]).requires_grad_()
    found = value_loss(value, t([0]), t([1]), 0.5)
    found.loss.sum().backward()
    assert found.loss.item() == pytest.approx(loss)
    assert value.grad.item() == pytest.approx(gradient)
    assert found.high.item() == (new == 0.9)


def test_explained_variance():
    returns = t([1, 2, 3], [2, 2, 50])
    assert explained_variance(returns, returns, SAID) == 1
    assert explained_variance(returns * 0 + 7, returns, SAID) == pytest.approx(0)
    assert explained_variance(-returns, returns, SAID) == pytest.approx(-3)
    assert explained_variance(returns, SAID, SAID) == 0
