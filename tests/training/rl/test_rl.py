import errno
import json

import pytest
import torch
from rl_toys import toy_files, toy_rl
from safetensors.torch import load_file
from sft_toys import toy_traces

from cello1.errors import InputError, UseError
from cello1.puzzles.table import write_puzzles
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter
from cello1.training.merge import merge
from cello1.training.rl.data import read_rl_data
from cello1.training.rl.rl import rl
from cello1.training.rl.rollout import sample_tokens
from cello1.training.rl.trl.grpo import grpo_config, make_trainer
from cello1.training.run.checkpoints import checkpoints


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return toy_files(tmp_path_factory.mktemp("rl"))


def prepared(settings, out):
    config = grpo_config(settings, out / "checkpoints")
    return make_trainer(settings, out, _folder(settings), config, lambda what, share: None)[0]


def _folder(settings):
    from cello1.solvers.local.loading import model_folder

    return model_folder(settings.model)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_killed_and_resumed_gives_the_same_weights(files, tmp_path):
    """Over several epochs, with every part that has a state or dice of its own."""
    settings = toy_rl(*files, method="full", no_signal="drop")

    repeatable = set()

    def die(what, share):
        repeatable.add(torch.are_deterministic_algorithms_enabled())
        if what == "steps" and share > 0.6:
            raise KeyboardInterrupt

    whole = rl(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        rl(settings, tmp_path / "killed", watch=die)
    # Several threads would add up gradients in the order in which they come.
    assert repeatable == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    assert [p.name for p in checkpoints(tmp_path / "killed" / "checkpoints")][-1] == "checkpoint-4"
    torn = tmp_path / "killed" / "checkpoints" / "checkpoint-5"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    resumed = rl(settings, tmp_path / "killed")
    weights = "model.safetensors"
    assert (whole / weights).read_bytes() == (resumed / weights).read_bytes()
    names = ("step", "loss", "reward", "no_signal", "num_tokens", "eval_cell_accuracy")
    logs = [
        [[entry.get(name) for name in names] for entry in lines(run.parent / "log.jsonl")]
        for run in (whole, resumed)
    ]
    assert logs[0] == logs[1]
    shown = [(run.parent / "samples.jsonl").read_text() for run in (whole, resumed)]
    assert shown[0] == shown[1]
    steps = [e for e in lines(whole.parent / "log.jsonl") if "loss" in e]
    assert [e["step"] for e in steps] == list(range(1, 9))
    assert steps[-1]["epoch"] > 2  # the order of a later epoch was resumed
    for entry in steps:
        shares = [entry[f"share_{k}"] for k in ("generating", "training", "rewarding")]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert {"kl", "entropy", "reward_std", "format_validity", "truncated"} <= set(entry)
    record = json.loads((whole / "training.json").read_text())
    assert record["command"] == "rl"
    assert {"eval_batch_accuracy", "eval_uniqueness"} <= set(record["result"]) & set(
        record["start"]
    )
    assert rl(settings, tmp_path / "killed") == resumed  # nothing left to do


def test_an_adapter_learns_what_is_rewarded_and_is_merged(files, tmp_path):
    trainer = {
        "max_steps": 25,
        "learning_rate": 3e-2,
        "gradient_accumulation_steps": 4,
        "beta": 0.0,
    }
    settings = toy_rl(*files, no_signal="drop", evaluate_every=25, solve=0, trainer=trainer)
    adapter = rl(settings, tmp_path / "run")
    reward = [e["reward"] for e in lines(tmp_path / "run" / "log.jsonl") if "reward" in e]
    assert sum(reward[-5:]) / 5 > sum(reward[:3]) / 3 + 0.1
    assert adapter.name == "adapter"
    card = (merge(tmp_path / "run", tmp_path / "model") / "README.md").read_text()
    assert "reinforcement learning with rewards for its responses" in card
    assert "12 puzzles" in card


@pytest.mark.usefixtures("single")
def test_log_probabilities_and_gradients_are_those_of_trl(files, tmp_path):
    trainer = prepared(toy_rl(*files, method="full"), tmp_path)
    assert trainer.shares_prompts
    prompter, model = trainer.prompter, trainer.model
    language = LanguageModel(prompter, model=model)
    prompts = [prompter.prompt(p)[0] for p in [*trainer.practise.values()][:3] for _ in range(4)]
    said = sample_tokens(language, prompts, [(i,) for i in range(12)], budget=9, temperature=1.0)
    assert len({len(tokens) for tokens in said}) > 2
    pad, wide, long = 0, max(map(len, prompts)), max(map(len, said))
    rows = list(zip(prompts, said, strict=True))
    ids = [[pad] * (wide - len(p)) + p + s + [pad] * (long - len(s)) for p, s in rows]
    mask = [[0] * (wide - len(p)) + [1] * len(p + s) + [0] * (long - len(s)) for p, s in rows]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor(ids)[order], torch.tensor(mask)[order]
    weight = torch.linspace(-1, 1, 12)[:, None] * inputs[1][:, -long:]
    found = []
    for shares in (True, False):
        trainer.shares_prompts = shares
        model.zero_grad()
        logprobs, entropies, _ = trainer._get_per_token_logps_and_entropies(
            model, *inputs, long, compute_entropy=True
        )
        (logprobs * weight).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        real = inputs[1][:, -long:].bool()
        found.append((logprobs.detach()[real], entropies.detach()[real], gradients))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_tokens_are_drawn_as_often_as_the_model_says(files):
    base, _ = files
    language = LanguageModel(base)
    prompt, _ = language.prompt(toy_traces(1)[0])
    drawn = sample_tokens(
        language, [prompt] * 1000, [(3, i) for i in range(1000)], budget=1, temperature=1.0
    )
    with torch.inference_mode():
        shares = language.model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([t for (t,) in drawn]), minlength=len(shares)).float()
    likely = shares > 0.02
    assert likely.sum() >= 3
    error = (counts / 1000 - shares)[likely].abs() / (shares * (1 - shares) / 1000).sqrt()[likely]
    assert error.max() < 4


def test_long_prompts_are_left_out_and_counted(files, tmp_path):
    base, _ = files
    long = toy_traces(1)[0]
    cells = tuple((*cell, *(f"RPL{i}" for i in range(99))) for cell in long.cells)
    write_puzzles([*toy_traces(), long.__class__(long.context, cells, long.candidates, long.answer,
                  {"donor_id": "d1"})], tmp_path / "p.parquet")  # fmt: skip
    prompter = Prompter(base)
    settings = toy_rl(base, tmp_path / "p.parquet", held_out=0, max_prompt=600)
    data = read_rl_data(settings, prompter, 4096, 8)
    assert (data.counts["practised"], data.counts["dropped_too_long"]) == (20, 1)
    with pytest.raises(InputError, match="the prompts of all 21 puzzles are longer than 20 tokens"):
        read_rl_data(settings.model_copy(update={"max_prompt": 20}), prompter, 4096, 8)
    shared = settings.model_copy(update={"validation": str(tmp_path / "p.parquet")})
    with pytest.raises(InputError, match=r"5 donors .* learned from as well"):
        read_rl_data(shared, prompter, 4096, 8)


def test_a_loss_that_is_no_number_stops(files, tmp_path):
    settings = toy_rl(*files, trainer={"learning_rate": 1e38, "max_grad_norm": 0})
    with pytest.raises(InputError, match=r"is not finite|the loss is nan"):
        rl(settings, tmp_path)
    for path in checkpoints(tmp_path / "checkpoints"):
        weights = load_file(path / "adapter_model.safetensors")
        assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_full_disk_leaves_the_earlier_checkpoint(files, tmp_path, monkeypatch):
    from transformers import Trainer

    saved = Trainer._save_optimizer_and_scheduler

    def full(self, folder):
        if self.state.global_step >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(self, folder)

    settings = toy_rl(*files, trainer={"max_steps": 4})
    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(InputError, match="make room and run the same"):
        rl(settings, tmp_path)
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2"]
    load_file(tmp_path / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    monkeypatch.undo()
    assert (rl(settings, tmp_path) / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainer": {"lerning_rate": 1}}, r"lerning_rate is unknown \(did you mean learning_rate"),
        ({"trainer": {"reward_weights": [1]}}, "reward_weights is not set here"),
        ({"trainer": {"loss_type": "gspo"}}, "loss_type 'gspo' is none of"),
        ({"trainer": {"per_device_train_batch_size": 5}}, "divisible|not a multiple"),
        ({"trainer": {"steps_per_generation": 6}}, "responses serve 3 steps"),
        ({"reward": "best"}, "there is no reward 'best'"),
        ({"reward": "math.sqrt"}, "reward 'math.sqrt' fails on a score"),
        ({"reward": {}}, "rl.reward names no reward"),
    ],
)
def test_settings_that_make_no_sense(files, tmp_path, settings, said):
    with pytest.raises(UseError, match=said):
        grpo_config(toy_rl(*files, **settings), tmp_path)
