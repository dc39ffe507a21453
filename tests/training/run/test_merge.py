import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sft_toys import toy_base, toy_files, toy_settings, toy_traces
from transformers import AutoModelForCausalLM

from cello1.errors import InputError
from cello1.scoring.evaluate import evaluate
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.training.merge import merge
from cello1.training.sft.sft import sft


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Return a finished run, its base and its traces; weights far from those of the base."""
    folder = tmp_path_factory.mktemp("merge")
    base, traces = toy_files(folder)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA toy.\n")
    trainer = {"max_steps": 4, "learning_rate": 0.1}
    sft(toy_settings(base, traces, trainer=trainer), folder / "run")
    return folder / "run", base, traces


def logits(model):
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([[5, 9, 40, 77, 3]])).logits


def test_merged_and_adapter_say_the_same(tuned, tmp_path):
    run, base, _ = tuned
    merged = merge(run, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    adapted = logits(PeftModel.from_pretrained(plain, run / "adapter"))
    after = logits(AutoModelForCausalLM.from_pretrained(merged))
    assert (adapted - before).abs().max() > 0.1
    assert torch.allclose(adapted, after, atol=1e-4)
    answers = {}
    solver = LanguageSolver(LanguageModel(merged), max_new_tokens=4)
    solver.solve(toy_traces(2), answers.__setitem__)
    assert len(answers) == 2
    card = (merged / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "held out: d2" in card
    assert json.loads((merged / "training.json").read_text())["merged"]["logits_differ_by"] < 1e-4


def die_when_written(what, share):
    if share == 0.7:
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_with_9_nothing_is_there_and_again_it_is_the_same(tuned, tmp_path):
    run, _, _ = tuned
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "peft"])
    how = {"watch": die_when_written}
    process = context.Process(target=merge, args=(run, tmp_path / "model"), kwargs=how)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / ".model.part" / "model.safetensors").exists()
    assert not (tmp_path / "model").exists()
    again, whole = merge(run, tmp_path / "model"), merge(run, tmp_path / "whole")
    assert not (tmp_path / ".model.part").exists()
    for path in whole.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_dora_keeps_the_dtype_of_the_base(tuned, tmp_path):
    _, base, traces = tuned
    half = tmp_path / "half"
    shutil.copytree(base, half)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    trainer = {"max_steps": 1, "learning_rate": 0.1}
    sft(toy_settings(half, traces, method="dora", solve=0, trainer=trainer), tmp_path / "run")
    merged = merge(tmp_path / "run", tmp_path / "model")
    weights = load_file(merged / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}


def test_the_card_shows_intervals(tuned, tmp_path):
    from dataclasses import asdict

    puzzles = toy_traces(12)
    right = {p.id: p.meta["assistant_msg"] for p in puzzles[:6]}
    wrong = {p.id: "no" for p in puzzles[6:]}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(asdict(evaluate(puzzles, right | wrong))))
    card = (merge(tuned[0], tmp_path / "m", metrics=path, licence="mit") / "README.md").read_text()
    assert "license: mit" in card
    assert "| batch-level accuracy | 0.500 | " in card
    path.write_text("{}")
    with pytest.raises(InputError, match="holds no metrics"):
        merge(tuned[0], tmp_path / "n", metrics=path)


def test_another_base_is_refused(tuned, tmp_path):
    run, base, _ = tuned
    other = toy_base(tmp_path / "other", seed=1)  # same shapes, other weights
    with pytest.raises(InputError, match=r"trained on another base .*: weights differ"):
        merge(run, tmp_path / "model", base=other)
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    assert merge(run, tmp_path / "model", base=moved).exists()
    with pytest.raises(InputError, match="exists and is not empty"):
        merge(run, tmp_path / "model", base=moved)
    with pytest.raises(InputError, match="no model folder"):
        merge(run, tmp_path / "m2", base=tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        merge(run, tmp_path / "m2", base=run)
    assert not (tmp_path / "m2").exists()


def test_no_adapter_no_merge(tuned, tmp_path):
    run, base, _ = tuned
    with pytest.raises(InputError, match="whole model, not an adapter"):
        merge(base, tmp_path / "m")
    with pytest.raises(InputError, match="holds no adapter"):
        merge(tmp_path, tmp_path / "m")
    alone = tmp_path / "a" / "b" / "c"
    shutil.copytree(run / "adapter", alone)
    (alone / "training.json").unlink()
    with pytest.raises(InputError, match=r"has no training\.json"):
        merge(alone, tmp_path / "m")
    bad = tmp_path / "bad"
    shutil.copytree(run / "adapter", bad)
    weights = load_file(bad / "adapter_model.safetensors")
    save_file({k: w[:1].clone() for k, w in weights.items()}, bad / "adapter_model.safetensors")
    with pytest.raises(InputError, match="cannot be put on"):
        merge(bad, tmp_path / "m")
    assert not (tmp_path / "m").exists()
