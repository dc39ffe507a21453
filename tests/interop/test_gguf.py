"""Models as GGUF: read back, they are the same models."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="needs gguf: pip install 'cello1[gguf]'")
pytest.importorskip("torch", reason="needs torch: pip install 'cello1[local]'")

import torch
from gguf import GGUFReader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
)
from typer.testing import CliRunner

from cello1.cli import app
from cello1.errors import InputError
from cello1.interop.gguf import PIECES, export_gguf
from cello1.solvers.local.mini import FOLDER

sys.path.append(str(Path(__file__).resolve().parents[1] / "solvers"))
from tiny import make_model, make_tokenizer

TEXTS = ["B cell | T cell", "CD3D, CD3E, TRAC", "Cell 1: MS4A1, CD79A"] * 20


def read(path):
    reader = GGUFReader(path)
    return reader, lambda key: reader.fields[key].contents()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    run = CliRunner().invoke(app, ["export", "gguf", "mini", "--out", str(path)])
    assert run.exit_code == 0, run.output
    assert "llama-server" in run.output
    return path


def same_weights(folder, path):
    want = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    # transformers does not read the width of Qwen3's heads from such a file.
    config = AutoConfig.from_pretrained(folder)
    got = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=torch.float32
    ).state_dict()
    assert set(want) == set(got)
    for name, tensor in want.items():
        assert torch.equal(tensor, got[name]), name


def test_the_embedded_model_keeps_every_weight(embedded):
    same_weights(FOLDER, embedded)


def test_its_tokens_and_its_template_come_along(embedded):
    _, field = read(embedded)
    core = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
    words, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    config = json.loads((FOLDER / "config.json").read_text("utf-8"))
    assert len(words) == len(kinds) == config["vocab_size"]
    assert len(set(words)) == len(words)
    kind = dict(zip(words, kinds, strict=True))
    assert kind["<|im_end|>"] == 3
    for whole in ("<think>", "</answer>", "CD3D, ", "Cell 12", ": ", ", ", "fibroblast"):
        assert kind[whole] == 4, whole
    assert kind["Cell" + chr(0x120)] == 1  # a piece of a word, never a whole one
    assert len(field("tokenizer.ggml.merges")) == len(core["model"]["merges"])
    template = field("tokenizer.chat_template")
    assert "generation %}" not in template
    assert "add_generation_prompt" in template
    assert words[field("tokenizer.ggml.eos_token_id")] == "<|im_end|>"


def test_our_tokenizer_cuts_by_the_rule_that_files_name():
    split = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["pre_tokenizer"]
    assert split["pretokenizers"][0]["pattern"]["Regex"] == PIECES


@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_with_shared_keys_keeps_every_weight(tied, tmp_path):
    tokenizer = make_tokenizer(TEXTS, vocab=300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert export_gguf(tmp_path / "model", tmp_path / "model.gguf") > 0
    same_weights(tmp_path / "model", tmp_path / "model.gguf")
    _, field = read(tmp_path / "model.gguf")
    assert field("tokenizer.ggml.pre") == "gpt-2"
    assert field("tokenizer.ggml.token_type")[-3:] == [5, 5, 5]


def test_half_precision_is_written_on_request(tmp_path):
    model = make_model(tmp_path / "model", make_tokenizer(TEXTS, vocab=300))
    export_gguf(model, tmp_path / "half.gguf", dtype="float16")
    reader, _ = read(tmp_path / "half.gguf")
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    want = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    got = next(t for t in reader.tensors if t.name == "blk.0.attn_v.weight")
    weight = want.model.layers[0].self_attn.v_proj.weight.detach().numpy()
    assert np.array_equal(got.data, weight.astype(np.float16))


def test_what_llama_cpp_must_convert_is_said(tmp_path):
    tokenizer = make_tokenizer(TEXTS, vocab=300)
    model = make_model(tmp_path / "odd", tokenizer)
    core = json.loads((model / "tokenizer.json").read_text())
    core["pre_tokenizer"] = {"type": "Whitespace"}
    (model / "tokenizer.json").write_text(json.dumps(core))
    with pytest.raises(InputError, match=r"cuts text in a way not known.*convert_hf_to_gguf"):
        export_gguf(model, tmp_path / "odd.gguf")
    other = make_model(tmp_path / "other", tokenizer)
    MistralConfig().save_pretrained(other)
    with pytest.raises(InputError, match="is a mistral model; expected llama, qwen2, qwen3"):
        export_gguf(other, tmp_path / "other.gguf")
    assert not list(tmp_path.glob("*.gguf"))
    assert not list(tmp_path.glob(".*.part"))
