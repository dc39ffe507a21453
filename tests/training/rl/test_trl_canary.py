"""What is used of TRL and transformers beyond their public interface is as it was when written.

When one of these fails after an upgrade, read `training/run/trl.py`, `rl/trl/trainer.py` and
`sft/trainer.py` against the new release before the bounds in pyproject.toml are moved.
"""

import inspect

import pytest
from transformers import Trainer
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.utils import RepeatSampler

from cello1.training.rl.trl.trainer import GroupTrainer
from cello1.training.run.trl import SolvingTrainer
from cello1.training.sft.trainer import PuzzleTrainer

SIGNATURES = {
    (GRPOTrainer, "_get_train_sampler"): "self, dataset",
    (GRPOTrainer, "_generate_single_turn"): (
        "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images"
    ),
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): (
        "self, model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy"
    ),
    (GRPOTrainer, "compute_loss"): "self, model, inputs, return_outputs, num_items_in_batch",
    (SFTTrainer, "compute_loss"): "self, model, inputs, return_outputs, num_items_in_batch",
    (Trainer, "_get_train_sampler"): "self, train_dataset",
    (Trainer, "_get_eval_sampler"): "self, eval_dataset",
    (Trainer, "_save_checkpoint"): "self, model, trial",
    (RepeatSampler, "__init__"): (
        "self, data_source, mini_repeat_count, batch_size, repeat_count, shuffle, seed"
    ),
}


@pytest.mark.parametrize("where", list(SIGNATURES), ids=lambda where: where[1])
def test_signatures_are_those_written_for(where):
    owner, name = where
    found = ", ".join(inspect.signature(inspect.unwrap(getattr(owner, name))).parameters)
    assert found.startswith(SIGNATURES[where])


def test_no_other_private_name_is_overridden():
    found = set()
    for ours in (SolvingTrainer, GroupTrainer, PuzzleTrainer):
        for theirs in (GRPOTrainer, SFTTrainer, Trainer):
            private = {n for n in vars(ours) if n.startswith("_") and not n.startswith("__")}
            found |= {n for n in private if hasattr(theirs, n) and n != "_abc_impl"}
    assert found == {
        "_get_train_sampler", "_get_eval_sampler", "_save_checkpoint",
        "_get_per_token_logps_and_entropies",
    }  # fmt: skip


def test_what_rollouts_rely_on():
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._generate))
    assert "output = self.rollout_func(prompts, self)" in source
    assert 'extra_fields.pop("env_mask", None)' in source
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._generate_and_score_completions))
    assert "loss_mask = completion_mask if tool_mask is None else completion_mask * tool_mask" in (
        source
    )
    source = inspect.getsource(SFTTrainer)
    assert '_metrics[mode]["entropy"]' in source
    assert "_total_train_tokens" in source
