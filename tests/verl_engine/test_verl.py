"""What we write for verl, read by verl itself; run by `make test-verl`.

This folder must not be called `verl`: a folder beside the other tests would be importable under its
name, and would be taken for the real one.
"""

import asyncio
import json
import subprocess

import pytest
import torch
from verl_shards import write_shards

from cello1.errors import UseError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.table import read_puzzles
from cello1.recipes import VerlSettings, read_recipe
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.verl.verl import prepare_verl, verl

pytest.importorskip("verl", reason="verl lives in an environment of its own: make test-verl")

from omegaconf import OmegaConf


def settings_of(base, puzzles, **more):
    small = {"batch": 8, "minibatch": 4, "group": 2, "nodes": 1, "gpus": 1, "tensor_parallel": 1,
             "max_prompt": 600, "max_response": 100, "solve": 3, "held_out": 0.2}  # fmt: skip
    return VerlSettings(model=str(base), puzzles=str(puzzles), **(small | more))


@pytest.fixture(scope="module")
def prepared(base, puzzles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    command = prepare_verl(settings_of(base, puzzles, reward="cell+batch"), folder)
    return folder, command


def test_the_configuration_is_whole_and_verl_starts_from_it(prepared):
    folder, command = prepared
    shown = subprocess.run([*command, "--cfg", "job"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    config = OmegaConf.create(shown.stdout)
    written = OmegaConf.load(folder / "config.yaml")
    assert OmegaConf.to_container(config) == OmegaConf.to_container(written)
    assert config.algorithm.adv_estimator == "grpo"
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.use_kl_loss, actor.kl_loss_type, actor.kl_loss_coef) == (
        True, "low_var_kl", 0.001,
    )  # fmt: skip
    assert (rollout.n, rollout.temperature, rollout.response_length) == (2, 1.0, 100)
    assert config.algorithm.use_kl_in_reward is False
    assert config.trainer.resume_mode == "auto"
    logs = config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH
    assert logs == str(folder.resolve() / "logs" / "000.jsonl")


def test_ppo_has_a_critic_and_pays_for_straying_in_the_reward(base, puzzles, tmp_path):
    prepare_verl(settings_of(base, puzzles, algorithm="ppo"), tmp_path)
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert config.algorithm.adv_estimator == "gae"
    assert config.algorithm.use_kl_in_reward is True
    assert config.actor_rollout_ref.actor.use_kl_loss is False
    assert config.actor_rollout_ref.rollout.n == 1
    assert config.critic.optim.lr == 1e-5


def test_the_recipe_of_the_paper_is_accepted(base, puzzles, tmp_path):
    from pathlib import Path

    recipe = Path(__file__).resolve().parents[2] / "recipes" / "cell-o1-7b.yaml"
    given = [f"verl.model={base}", f"verl.puzzles={puzzles}", "verl.solve=3"]
    prepare_verl(read_recipe(recipe, given).verl, tmp_path)
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert config.data.train_batch_size == 64
    assert config.actor_rollout_ref.rollout.n == 5
    assert config.trainer.nnodes * config.trainer.n_gpus_per_node == 16


def test_names_of_verl_are_handed_through_and_others_refused(base, puzzles, tmp_path):
    known = {"actor_rollout_ref.actor.clip_ratio_high": 0.28, "+trainer.note": "mine"}
    prepare_verl(settings_of(base, puzzles, config=known), tmp_path / "a")
    config = OmegaConf.load(tmp_path / "a" / "config.yaml")
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.28
    assert config.trainer.note == "mine"
    with pytest.raises(UseError, match=r"trainer\.nots cannot be set"):
        prepare_verl(settings_of(base, puzzles, config={"trainer.nots": 1}), tmp_path / "b")
    part = "actor_rollout_ref.actor."
    wrong = {part + "ppo_mini_batch_size": 16, part + "use_dynamic_bsz": False}
    with pytest.raises(UseError, match=r"verl refuses these settings: \[actor\] Please set"):
        prepare_verl(settings_of(base, puzzles, config=wrong), tmp_path / "c")


def test_verl_asks_in_our_tokens_and_pays_what_our_scorer_says(prepared, base, puzzles):
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    folder, _ = prepared
    config = OmegaConf.load(folder / "config.yaml")
    prompter = Prompter(base)
    by_id = {p.id: p for p in read_puzzles(puzzles)}
    rows = RLHFDataset(list(config.data.train_files), prompter.tokenizer, config.data)
    assert len(rows) == 16

    async def judge(row, text):
        manager = load_reward_manager(config, prompter.tokenizer)
        ids = torch.tensor([prompter.vocabulary.encode(text) + prompter.ending()])
        tensors = {"responses": ids, "attention_mask": torch.ones_like(ids),
                   "prompts": ids[:, :0]}  # fmt: skip
        others = {k: v for k, v in collate_fn([row]).items() if not torch.is_tensor(v)}
        return await manager.run_single(DataProto.from_dict(tensors, non_tensors=others))

    for row in (rows[0], rows[5]):
        puzzle = by_id[row["extra_info"]["id"]]
        asked = prompter.tokenizer.apply_chat_template(
            list(row["raw_prompt"]), tokenize=False, add_generation_prompt=True
        )
        assert prompter.vocabulary.encode(asked) == prompter.prompt(puzzle)[0]
        turned = (puzzle.answer[1], puzzle.answer[0], *puzzle.answer[2:])
        cut = response_text("B", puzzle.answer)[:-3]
        for text, paid in (
            (response_text("So.", puzzle.answer), 1.0),
            (response_text("So.", turned), (1 / 3 + 0) / 2),
            (response_text("So.", (puzzle.answer[0],) * 3), -1.0),
            (cut, -1.0),
            ("no idea", -1.0),
        ):
            found = asyncio.run(judge(row, text))
            assert found["reward_score"] == pytest.approx(paid), text
            assert found["reward_extra_info"]["acc"] == (paid == 1.0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_converter_agrees_with_that_of_verl(base, tmp_path, size):
    from safetensors.torch import load_file
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    from cello1.training.rl.verl.convert import convert_verl

    step = tmp_path / "global_step_3"
    write_shards(base, step, size)
    ours = convert_verl(step, tmp_path / "ours")
    FSDPModelMerger(
        ModelMergerConfig(
            operation="merge",
            backend="fsdp",
            local_dir=str(step / "actor"),
            target_dir=str(tmp_path / "theirs"),
            hf_model_config_path=str(step / "actor" / "huggingface"),
        )
    ).merge_and_save()
    mine, other = (load_file(f / "model.safetensors") for f in (ours, tmp_path / "theirs"))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_without_gpus_it_says_so_before_anything_is_started(base, puzzles, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UseError, match=r"verl\.gpus is 1 and this machine has 0"):
        verl(settings_of(base, puzzles), tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="verl trains on GPUs only")
def test_it_trains_and_the_best_checkpoint_becomes_a_model(base, puzzles, tmp_path):
    made = verl(settings_of(base, puzzles, epochs=1, evaluate_every=1), tmp_path)
    assert json.loads((made / "training.json").read_text())["engine"] == "verl"
    assert (made / "model.safetensors").exists()
