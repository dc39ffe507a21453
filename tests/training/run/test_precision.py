"""Half precision: where there are units for it, in products only, and the same up to rounding."""

import copy

import pytest
import torch
from sft_toys import toy_base, toy_traces

from cello1.solvers.local.language import LanguageModel
from cello1.training.rl.ppo.learner import lay_out, load_policy, logprobs
from cello1.training.rl.rollout import sample_tokens
from cello1.training.run.precision import arithmetic, for_sampling, training_dtype


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toy_base(tmp_path_factory.mktemp("precision") / "base")


@pytest.fixture
def rows(base):
    language = LanguageModel(base)
    prompts = [language.prompt(puzzle)[0] for puzzle in toy_traces(3)]
    return lay_out(prompts, [[3, 4, 5], [6], [7, 8]], "cpu")


@pytest.mark.usefixtures("half")
def test_a_processor_with_matrix_units_computes_in_half_precision():
    assert training_dtype("cpu") == training_dtype(torch.device("cpu")) == torch.bfloat16
    with arithmetic("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.usefixtures("single")
def test_one_without_does_not():
    assert training_dtype("cpu") == torch.float32
    with arithmetic("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_an_older_torch_without_the_question_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert training_dtype("cpu") == torch.float32


def test_log_probabilities_are_those_of_float32_up_to_rounding(base, rows, monkeypatch):
    found = []
    for has in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has: has)
        policy = load_policy(base, "cpu")
        logs, _ = logprobs(policy, rows)
        (logs * rows.response_mask).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in policy.parameters()])
        assert {p.dtype for p in policy.parameters()} == {torch.float32} == {logs.dtype}
        found.append((logs[rows.response_mask.bool()], gradients))
    (logs, gradients), (rounded, roughly) = found
    assert not torch.equal(logs, rounded)
    assert torch.allclose(logs, rounded, atol=0.05)
    assert torch.nn.functional.cosine_similarity(gradients, roughly, dim=0) > 0.99


def test_responses_are_drawn_from_a_copy_whose_weights_are_those_of_now(base):
    model = load_policy(base, "cpu")
    assert for_sampling(model, half=False) is model
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.25
    drawn = for_sampling(model, half=True)
    assert drawn.dtype == torch.bfloat16
    for name, weight in drawn.state_dict().items():
        assert torch.equal(weight, (before[name] + 0.25).bfloat16())
    language = LanguageModel(base)
    prompt, _ = language.prompt(toy_traces(1)[0])
    said = sample_tokens(
        LanguageModel(language.prompter, model=drawn), [prompt] * 3, [(i,) for i in range(3)],
        budget=5, temperature=1.0,
    )  # fmt: skip
    assert [len(tokens) for tokens in said] == [5, 5, 5]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
