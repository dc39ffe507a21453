"""The learner on problems whose answer is known, and what it computes against plain arithmetic."""

import pytest
import torch
from sft_toys import toy_base
from transformers import Qwen3Config, Qwen3ForCausalLM

from cello1.errors import InputError
from cello1.recipes import PpoSettings
from cello1.training.rl.ppo.learner import Critic, Learner, lay_out, load_policy, logprobs

ARMS = 5


@pytest.fixture(scope="module")
def bandit_model(tmp_path_factory):
    """A model of five tokens, each of which is an arm."""
    folder = tmp_path_factory.mktemp("bandit")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=ARMS, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=16,
        tie_word_embeddings=False,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toy_base(tmp_path_factory.mktemp("ppo") / "base")


def learner_of(folder, **more):
    torch.manual_seed(1)
    settings = PpoSettings(**({"micro_batch": 64} | more))
    reference = load_policy(folder, "cpu").requires_grad_(False) if settings.kl else None
    return Learner(load_policy(folder, "cpu"), reference, Critic(folder).eval(), settings)


def probabilities(model, prompt):
    rows = lay_out([prompt] * ARMS, [[arm] for arm in range(ARMS)], "cpu")
    with torch.no_grad():
        return logprobs(model, rows)[0][:, 0].exp()


def play(learner, prompts, payoff, steps):
    """Let the policy play, and learn from what its arms pay."""
    dice, figures = torch.Generator().manual_seed(0), {}
    for _ in range(steps):
        asked = [prompts[i % len(prompts)] for i in range(64)]
        chances = {tuple(p): probabilities(learner.policy, p) for p in prompts}
        arms = [int(torch.multinomial(chances[tuple(p)], 1, generator=dice)) for p in asked]
        paid = torch.tensor([payoff(p, arm) for p, arm in zip(asked, arms, strict=True)])
        figures = learner.learn(lay_out(asked, [[arm] for arm in arms], "cpu"), paid, dice)
    return figures


def test_a_bandit_comes_to_the_best_arm_of_each_prompt(bandit_model):
    prompts, best = [[0, 1], [1, 0, 2]], {2: 3, 3: 1}  # by the length of the prompt
    learner = learner_of(
        bandit_model, kl=0, learning_rate=5e-3, value_learning_rate=5e-3, minibatch=32, passes=2
    )
    figures = play(learner, prompts, lambda p, arm: float(best[len(p)] == arm), 40)
    for prompt in prompts:
        assert probabilities(learner.policy, prompt)[best[len(prompt)]] > 0.97
    assert figures["entropy"] < 0.3
    assert figures["kl"] == 0


def test_a_bandit_that_pays_for_straying_comes_to_the_known_optimum(bandit_model):
    """The best policy is p(arm) ~ reference(arm) x exp(payoff(arm) / price)."""
    payoff, price, prompt = torch.tensor([0.0, 1.0, 0.5, -1.0, 0.8]), 0.5, [0, 1]
    learner = learner_of(
        bandit_model, kl=price, learning_rate=2e-3, value_learning_rate=5e-3, minibatch=64
    )
    start = probabilities(learner.reference, prompt)
    optimum = (start.log() + payoff / price).softmax(0)
    figures = play(learner, [prompt], lambda _, arm: float(payoff[arm]), 110)
    found = probabilities(learner.policy, prompt)
    assert (start - optimum).abs().sum() / 2 > 0.3
    assert (found - optimum).abs().sum() / 2 < 0.06
    assert torch.equal(probabilities(learner.reference, prompt), start)
    assert figures["kl"] > 0


def test_the_critic_learns_what_a_prompt_is_worth(bandit_model):
    learner = learner_of(
        bandit_model, kl=0, learning_rate=1e-9, value_learning_rate=1e-2, minibatch=64
    )
    prompts = [[0, 1], [1, 0, 2]]
    figures = play(learner, prompts, lambda p, arm: 1.0 if len(p) == 2 else -0.5, 40)
    rows = lay_out(prompts, [[0], [0]], "cpu")
    with torch.no_grad():
        assert torch.allclose(learner.critic(rows)[:, 0], torch.tensor([1.0, -0.5]), atol=0.1)
    assert figures["explained_variance"] > 0.9
    assert figures["value_loss"] < 0.02


@pytest.mark.usefixtures("single")
def test_probabilities_do_not_depend_on_what_shares_the_batch(base):
    policy = load_policy(base, "cpu")
    prompts, said = [[5, 6, 7, 8], [9]], [[3], [4, 5, 6]]
    rows = lay_out(prompts, said, "cpu")
    together, entropy = logprobs(policy, rows)
    for row, (prompt, response) in enumerate(zip(prompts, said, strict=True)):
        logits = policy(input_ids=torch.tensor([prompt + response])).logits[0]
        logs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        alone = logs[torch.arange(len(response)), torch.tensor(response)]
        assert torch.allclose(together[row, : len(response)], alone, atol=1e-4)
        wanted = -(logs.exp() * logs).sum(-1)
        assert torch.allclose(entropy[row, : len(response)], wanted, atol=1e-4)
        part = rows.take(torch.tensor([row]))
        assert part.ids.tolist() == [prompt + response]


@pytest.mark.usefixtures("single")
def test_small_parts_give_the_gradient_of_the_whole(base):
    prompts = [[5, 6, 7, 8], [9], [4, 4], [8, 7, 6]]
    said = [[3], [4, 5, 6], [9, 9], [7, 5, 5, 5]]
    scores = torch.tensor([1.0, -1.0, 0.5, 0.0])
    weights = []
    for size in (1, 4):
        learner = learner_of(base, kl=0.1, micro_batch=size, minibatch=4)
        rows, dice = lay_out(prompts, said, "cpu"), torch.Generator().manual_seed(0)
        learner.learn(rows, scores, dice)
        norms = [p.grad.clone() for p in learner.policy.parameters()]
        weights.append(norms)
    for a, b in zip(*weights, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_at_first_nothing_is_clipped_and_nothing_has_strayed(base):
    learner = learner_of(base, minibatch=2)
    rows, dice = lay_out([[5], [6, 7]], [[1, 2], [3]], "cpu"), torch.Generator().manual_seed(0)
    figures = learner.learn(rows, torch.tensor([1.0, -1.0]), dice)
    assert figures["kl"] == 0
    assert figures["clip_ratio/region_mean"] == 0
    assert figures["grad_norm"] > 0
    assert {"loss", "value_loss", "value_grad_norm", "entropy"} <= figures.keys()


@pytest.mark.parametrize("who", ["policy", "critic"])
def test_a_loss_that_is_no_number_stops(base, who):
    learner = learner_of(base)
    weight = next(getattr(learner, who).parameters())
    weight.data[:] = float("nan")
    rows = lay_out([[5], [6, 7]], [[1, 2], [3]], "cpu")
    with pytest.raises(InputError, match=f"of the (policy|{who}) is nan: training stopped"):
        learner.learn(rows, torch.tensor([1.0, -1.0]), torch.Generator())
