"""`--check` with a stand-in of Qwen2.5-7B-Instruct: its config and a tokenizer, no weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sft_toys import toy_base, toy_traces
from transformers import Qwen2Config

from cello1.errors import InputError, UseError
from cello1.recipes import read_recipe
from cello1.training.run.traces import write_traces
from cello1.training.sft.check import check_sft

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "cell-o1-7b.yaml"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    model = toy_base(folder / "model")
    (model / "model.safetensors").unlink()
    Qwen2Config(
        vocab_size=152_064,
        hidden_size=3_584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(model)
    write_traces(toy_traces(400, donors=20), folder / "traces.parquet")
    return [f"sft.model={model}", f"sft.traces={folder / 'traces.parquet'}"]


def test_the_paper_s_recipe(qwen):
    found = check_sft(read_recipe(RECIPE, qwen).sft)
    assert found.parameters == 7_615_616_512  # what the model's card calls 7.61 B
    # Per layer, r (in + out) of q, k, v, o, gate, up and down.
    linear = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18_944)
    assert found.trained_parameters == 28 * 256 * linear
    assert (found.traces_per_step, found.steps_per_epoch, found.steps) == (128, 3, 30)
    assert len(found.counts["held_out_donors"]) == 2
    assert found.response_ends.endswith("</answer><|im_end|>")
    assert found.prompt_begins.startswith("<|im_start|>system\n")
    assert 20 < found.memory_gib < 40  # it ran on GPUs of 40 GB
    assert found.hours > 0


def test_all_weights_need_more(qwen):
    more = ["sft.method=full", "sft.trainer.max_steps=7"]
    found = check_sft(read_recipe(RECIPE, [*qwen, *more]).sft)
    assert found.trained_parameters == found.parameters
    assert found.memory_gib > 110
    assert found.steps == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.trainer.num_epochs=3", "num_epochs is unknown"),
        ("sft.layers=[no_such]", "fit no layer"),
        ("sft.max_length=100", "longer than 100 tokens"),
        ("sft.traces=gone.parquet", "does not exist"),
        ("sft.traces=[]", "no traces are named"),
    ],
)
def test_what_would_stop_the_run(qwen, override, said):
    with pytest.raises(InputError, match=said):
        check_sft(read_recipe(RECIPE, [*qwen, override]).sft)


def test_a_tokenizer_without_template(qwen, tmp_path):
    model = Path(qwen[0].partition("=")[2])
    for path in model.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no chat template"):
        check_sft(read_recipe(RECIPE, [*qwen, f"sft.model={tmp_path}"]).sft)


def test_unknown_keys_of_the_section(qwen):
    with pytest.raises(UseError, match=r"sft\.ranks: Extra inputs are not permitted"):
        read_recipe(RECIPE, [*qwen, "sft.ranks=3"])


def test_the_command_line(qwen, tmp_path):
    def call(*words):
        command = [sys.executable, "-m", "cello1", "sft", str(RECIPE), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    short = [word.removeprefix("sft.") for word in qwen]
    told = call(*short, "trainer.learning_rate=1e-6", "--check", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["gpus"] == 16
    assert yaml.safe_load(RECIPE.read_text())["sft"]["gpus"] == 16
    told = call(*short)
    assert told.returncode == 2
    assert "name the run folder with --out" in told.stderr
    assert not list(tmp_path.iterdir())
