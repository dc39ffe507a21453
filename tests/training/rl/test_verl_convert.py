"""Checkpoints of verl become model folders, whatever the number of processes."""

import json
import pickle

import pytest
import torch
from sft_toys import toy_base
from verl_shards import write_shards

from cello1.errors import InputError
from cello1.solvers.local.language import LanguageModel
from cello1.training.rl.verl.convert import convert_verl


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toy_base(tmp_path_factory.mktemp("verl") / "base")


@pytest.mark.parametrize(("size", "replicas"), [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2)])
def test_shards_become_the_model_they_were_cut_from(base, tmp_path, size, replicas):
    step = tmp_path / "global_step_7"
    weights = write_shards(base, step, size, replicas=replicas)
    record = {"engine": "verl", "result": {"step": 7}}
    made = convert_verl(step, tmp_path / "model", record=record, dtype=torch.float32)
    found = LanguageModel(made, dtype=torch.float32).model.state_dict()
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(found[name], weight), name
    assert json.loads((made / "training.json").read_text()) == record
    assert not list(made.glob("*.pt"))


def test_the_weights_are_written_in_bfloat16(base, tmp_path):
    weights = write_shards(base, tmp_path / "global_step_1", 2)
    made = convert_verl(tmp_path / "global_step_1" / "actor", tmp_path / "model")
    found = LanguageModel(made, dtype=torch.float32).model.state_dict()
    assert all(torch.equal(found[n], w.bfloat16().float()) for n, w in weights.items())
    assert json.loads((made / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_is_missing_or_foreign_is_told(base, tmp_path):
    with pytest.raises(InputError, match=r"no huggingface/config\.json"):
        convert_verl(tmp_path, tmp_path / "model")
    step = tmp_path / "global_step_1"
    write_shards(base, step, 2)
    first = step / "actor" / "model_world_size_2_rank_0.pt"
    second = step / "actor" / "model_world_size_2_rank_1.pt"
    shard = second.read_bytes()
    second.unlink()
    with pytest.raises(InputError, match=r"lacks the shards of processes \[1\] of 2"):
        convert_verl(step, tmp_path / "model")
    second.write_bytes(shard[:1000])
    with pytest.raises(InputError, match=r"rank_1\.pt cannot be read as a shard"):
        convert_verl(step, tmp_path / "model")
    second.write_bytes(shard)
    other = torch.load(second, weights_only=True)
    other.pop("model.norm.weight")
    torch.save(other, second)
    with pytest.raises(InputError, match="hold different weights"):
        convert_verl(step, tmp_path / "model")
    both = torch.load(first, weights_only=True)
    both.pop("model.norm.weight")
    torch.save(both, first)
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.norm\.weight"):
        convert_verl(step, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_code_in_a_shard_is_not_run(base, tmp_path):
    step = tmp_path / "global_step_1"
    write_shards(base, step, 1)
    with (step / "actor" / "model_world_size_1_rank_0.pt").open("wb") as file:
        pickle.dump({"lm_head.weight": Evil()}, file)
    with pytest.raises(InputError, match="cannot be read as a shard"):
        convert_verl(step, tmp_path / "model")
