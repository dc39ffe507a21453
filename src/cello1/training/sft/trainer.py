"""TRL's SFTTrainer, which here solves held-out puzzles and logs its speed.

Importing this takes ten seconds; :mod:`cello1.training.sft.sft` does it only to train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from cello1.training.run.loss import chosen_logits, has_plain_logits
from cello1.training.run.trl import SolvingTrainer
from cello1.training.sft.data import IGNORED

_POOL = 50  # batches that are sorted by length together


class LengthSampler(Sampler[int]):
    """A shuffled order in which neighbours have similar lengths, so that there is little padding.

    The order depends on the seed and the epoch alone, so a resumed run continues it.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Switch to the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=rng).tolist()
        pool = self.batch * _POOL
        batches = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda i: -self.lengths[i])
            batches += [near[i : i + self.batch] for i in range(0, len(near), self.batch)]
        # A batch that is not full must stay the last.
        tail = [] if len(batches[-1]) == self.batch else [batches.pop()]
        for i in torch.randperm(len(batches), generator=rng).tolist():
            yield from batches[i]
        for rest in tail:
            yield from rest


class PuzzleTrainer(SolvingTrainer, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that also evaluates by solving puzzles; see :class:`SolvingTrainer`."""

    real_tokens = all_tokens = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in rows["input_ids"]]
        return LengthSampler(lengths, self.args.train_batch_size, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return SequentialSampler(eval_dataset)  # the grouping one fails without traces

    def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> torch.Tensor:
        """Take one step and count its tokens."""
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        self.all_tokens += ids.numel()
        self.real_tokens += ids.numel() if mask is None else int(mask.sum())
        return super().training_step(model, inputs, *rest, **more)

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """Compute the loss as TRL does, but on a CPU only where it counts."""
        if not self._is_plain(inputs, more):
            return super().compute_loss(model, inputs, *rest, **more)
        ids, labels = inputs["input_ids"], inputs["labels"]
        chosen = labels != IGNORED
        with self.accelerator.autocast():
            logits = chosen_logits(model, ids, chosen).float()
        logs, wanted = logits.log_softmax(-1), labels[:, 1:][chosen[:, 1:]]
        losses = -logs.gather(-1, wanted[:, None])
        count = more.get("num_items_in_batch")
        self._note(logs.detach(), wanted, inputs["attention_mask"])
        return losses.sum() / (len(wanted) if count is None else count)

    def _is_plain(self, inputs: Any, more: Any) -> bool:
        """Return whether the loss is a mean over tokens of whole rows, in one process on a CPU."""
        usual = self.args.loss_type == "nll" and self.label_smoother is None
        alone = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu"
        rows = "position_ids" not in inputs and not more.get("return_outputs")
        return (
            usual and alone and rows and not self.aux_loss_enabled and has_plain_logits(self.model)
        )

    def _note(self, logs: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> None:
        """Record the metrics of TRL under its names."""
        measured = self._metrics["train" if self.model.training else "eval"]
        entropy = -(logs.exp() * logs).sum(-1).mean()
        measured["entropy"].append(float(entropy))
        measured["mean_token_accuracy"].append(float((logs.argmax(-1) == wanted).float().mean()))
        if self.model.training:
            self._total_train_tokens += int(mask.sum())
        measured["num_tokens"] = [self._total_train_tokens]

    def figures(self, seconds: float) -> dict[str, float]:
        """Return tokens per second and the fraction of padding."""
        real, every = self.real_tokens, self.all_tokens
        self.real_tokens = self.all_tokens = 0
        if not every:
            return {}
        rate = self.args.world_size * real / seconds
        return {
            "tokens_per_second": round(rate, 1),
            "padding_waste": round(1 - real / every, 4),
        }

    def evaluation_loop(self, dataloader: Any, *rest: Any, **more: Any) -> Any:
        """Measure the loss on held-out traces, then solve held-out puzzles."""
        measured: dict[str, float] = {}
        output: Any = EvalLoopOutput(np.empty(0), None, measured, 0)
        if len(dataloader.dataset):
            output = super().evaluation_loop(dataloader, *rest, **more)
            measured = output.metrics
        self.select_by(measured)
        return output
