"""TRL's SFTTrainer with what it lacks here: it solves held-out puzzles, and says what it does.

Importing this takes ten seconds; only :mod:`cello1.training.sft` does, when it trains.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import evaluate
from cello1.solvers.base import Failure, Response
from cello1.solvers.language import LanguageSolver
from cello1.training.checkpoints import telling_disk_errors, unmark
from cello1.training.examples import IGNORED, Student
from cello1.training.loss import chosen_logits, is_straight
from cello1.training.sampling import LengthSampler

Watch = Callable[[str, float], None]
MERIT = "eval_merit"
# Batch accuracy decides; cell accuracy settles ties, the loss settles what is left.
_CELL_WEIGHT, _LOSS_WEIGHT = 1e-4, 1e-8


class PuzzleTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that also evaluates by solving puzzles.

    Parameters
    ----------
    student
        The model as solvers see it.
    held_out
        Puzzles to solve at every evaluation.
    max_new_tokens
        Budget of a response.
    watch
        Called with what is going on and the share done.
    """

    def __init__(
        self,
        *,
        student: Student,
        held_out: Sequence[Puzzle],
        max_new_tokens: int,
        watch: Watch,
        **more: Any,
    ) -> None:
        self.student, self.held_out, self.max_new_tokens = student, held_out, max_new_tokens
        self.watch = watch
        self.real_tokens = self.all_tokens = 0
        super().__init__(**more)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in rows["input_ids"]]
        return LengthSampler(lengths, self.args.train_batch_size, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return SequentialSampler(eval_dataset)  # the grouping one fails where there are no traces

    def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> torch.Tensor:
        """Take one step; stop at once when the loss is no number."""
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        self.all_tokens += ids.numel()
        self.real_tokens += ids.numel() if mask is None else int(mask.sum())
        loss: torch.Tensor = super().training_step(model, inputs, *rest, **more)
        if not torch.isfinite(loss):
            self._tell_nan(f"the loss is {float(loss)}")
        return loss

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        """Compute the loss as TRL does; on a processor only where it counts, which TRL does not."""
        if not self._is_plain(inputs, more):
            return super().compute_loss(model, inputs, *rest, **more)
        ids, labels = inputs["input_ids"], inputs["labels"]
        chosen = labels != IGNORED
        logits = chosen_logits(model, ids, chosen).float()
        logs, wanted = logits.log_softmax(-1), labels[:, 1:][chosen[:, 1:]]
        losses = -logs.gather(-1, wanted[:, None])
        count = more.get("num_items_in_batch")
        self._note(logs.detach(), wanted, inputs["attention_mask"])
        return losses.sum() / (len(wanted) if count is None else count)

    def _is_plain(self, inputs: Any, more: Any) -> bool:
        """Say whether the loss is the mean over tokens of whole rows, in one process on a CPU."""
        usual = self.args.loss_type == "nll" and self.label_smoother is None
        alone = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu"
        rows = "position_ids" not in inputs and not more.get("return_outputs")
        return usual and alone and rows and not self.aux_loss_enabled and is_straight(self.model)

    def _note(self, logs: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> None:
        """Measure what TRL measures, under its names."""
        measured = self._metrics["train" if self.model.training else "eval"]
        entropy = -(logs.exp() * logs).sum(-1).mean()
        measured["entropy"].append(float(entropy))
        measured["mean_token_accuracy"].append(float((logs.argmax(-1) == wanted).float().mean()))
        if self.model.training:
            self._total_train_tokens += int(mask.sum())
        measured["num_tokens"] = [self._total_train_tokens]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trained = (p for p in self.model.parameters() if p.requires_grad)
        if not all(bool(torch.isfinite(p.detach()).all()) for p in trained):
            self._tell_nan("a weight is no number")
        folder = Path(self.args.output_dir)
        if self.is_world_process_zero():  # what is written anew is not whole until it is
            unmark(folder / f"checkpoint-{self.state.global_step}")
        with telling_disk_errors(folder):
            super()._save_checkpoint(model, trial)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: `cello1 merge` writes a card that says more."""

    def _tell_nan(self, what: str) -> None:
        raise InputError(
            f"{what} in step {self.state.global_step + 1}: training stopped, and the checkpoints "
            "so far are intact; lower trainer.learning_rate, clip harder with "
            "trainer.max_grad_norm, or look for odd traces, and start with another --out"
        )

    def evaluation_loop(self, dataloader: Any, *rest: Any, **more: Any) -> Any:
        """Measure the loss on held-out traces, then solve held-out puzzles."""
        measured: dict[str, float] = {}
        output: Any = EvalLoopOutput(np.empty(0), None, measured, 0)
        if len(dataloader.dataset):
            output = super().evaluation_loop(dataloader, *rest, **more)
            measured = output.metrics
        measured.update(self._solve())
        loss = measured.get("eval_loss", 0.0)
        measured[MERIT] = (
            measured.get("eval_batch_accuracy", 0.0)
            + _CELL_WEIGHT * measured.get("eval_cell_accuracy", 0.0)
            - _LOSS_WEIGHT * (loss if math.isfinite(loss) else 1e9)
        )
        return output

    def _solve(self) -> dict[str, float]:
        # Shards of a model must step together, which rows of unlike length do not.
        if not self.held_out or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return {}
        accelerator = self.accelerator
        mine = self.held_out[accelerator.process_index :: accelerator.num_processes]
        model = accelerator.unwrap_model(self.model)
        model.eval()
        self.student.take(model)
        solver = LanguageSolver(self.student, max_new_tokens=self.max_new_tokens)
        found: dict[str, Response | Failure] = {}
        what = f"solving held-out puzzles, step {self.state.global_step}"

        def on_done(puzzle_id: str, result: Response | Failure) -> None:
            found[puzzle_id] = result
            self.watch(what, len(found) / len(mine))

        with self.compute_loss_context_manager():
            solver.solve(mine, on_done)
        said = [
            (puzzle_id, result.text, result.completion_tokens or 0)
            for puzzle_id, result in found.items()
            if isinstance(result, Response)
        ]
        if accelerator.num_processes > 1:
            said = gather_object(said)
        if not said:
            return {}
        texts, tokens = {i: text for i, text, _ in said}, {i: n for i, _, n in said}
        overall = evaluate(self.held_out, texts, tokens=tokens).overall
        return {
            "eval_batch_accuracy": overall.batch_accuracy.estimate,
            "eval_cell_accuracy": overall.cell_accuracy.estimate,
            "eval_format_validity": overall.format_validity.estimate,
            "eval_response_tokens": overall.length,
            "eval_solved": float(overall.n),
        }


class Reporter(TrainerCallback):
    """Shows progress, writes log.jsonl, saves after every evaluation, and stops in time.

    Parameters
    ----------
    log
        The file.
    patience
        Evaluations without a better one that end the training; None: it never ends early.
    watch
        Called with what is going on and the share done.
    """

    def __init__(self, log: Path, patience: int | None, watch: Watch) -> None:
        self.log, self.patience, self.watch = log, patience, watch
        self.trainer: PuzzleTrainer | None = None
        self.seconds, self.began = 0.0, 0.0
        self.counted = (0, 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Start the clock: only training counts for tokens per second."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Stop the clock and show progress."""
        self.seconds += time.perf_counter() - self.began
        self.watch("steps", state.global_step / max(1, state.max_steps))
        last = state.global_step >= state.max_steps
        if args.eval_strategy == "epoch":
            # An epoch ends with an evaluation, and that with a checkpoint. One before it would
            # let a run that is killed in between go on without that evaluation.
            if last or float(state.epoch).is_integer():
                control.should_save = False
        elif last:  # the end is always judged and kept
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "steps"
            control.should_save = control.should_save or args.save_strategy != "epoch"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Append one line."""
        if not state.is_world_process_zero or self.trainer is None:
            return
        line: dict[str, Any] = {"step": state.global_step, **_plain(logs or {})}
        real, every = self.trainer.real_tokens, self.trainer.all_tokens
        new, padded = real - self.counted[0], every - self.counted[1]
        if "loss" in line and self.seconds and padded:
            line["tokens_per_second"] = round(args.world_size * new / self.seconds, 1)
            line["padding_waste"] = round(1 - new / padded, 4)
            self.seconds, self.counted = 0.0, (real, every)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Keep every evaluated state, and stop when they get no better."""
        control.should_save = True
        if out_of_patience(state.log_history, self.patience):
            control.should_training_stop = True


def out_of_patience(history: Sequence[dict[str, Any]], patience: int | None) -> bool:
    """Say whether the last evaluations, as many as patience allows, brought nothing better."""
    merits = [entry[MERIT] for entry in history if MERIT in entry]
    if patience is None or not merits:
        return False
    return len(merits) - 1 - merits.index(max(merits)) >= patience


def _plain(logs: dict[str, Any]) -> dict[str, Any]:
    """Return values that JSON has; a loss that is no number is written as text."""
    odd = {k: str(v) for k, v in logs.items() if isinstance(v, float) and not math.isfinite(v)}
    return {**logs, **odd}
