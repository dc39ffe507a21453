"""What every trainer of TRL lacks here: it solves held-out puzzles, and stops before it lies.

Importing this takes seconds; only rooms that train do. Put before a trainer of TRL in the list of
base classes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.checkpoints import telling_disk_errors, unmark
from cello1.training.run.held_out import held_out_figures, solve_greedily

Watch = Callable[[str, float], None]
MERIT = "eval_merit"
# Its methods are called through TRL's trainers, which have no types.
_Trainer: Any = Trainer


class Solving(_Trainer):  # type: ignore[misc]
    """A trainer that evaluates by solving puzzles.

    Attributes
    ----------
    prompter
        How the model is asked.
    held_out
        Puzzles to solve at every evaluation.
    max_new_tokens
        Budget of a response there.
    watch
        Called with what is going on and the share done.
    """

    prompter: Prompter
    held_out: Sequence[Puzzle]
    max_new_tokens: int
    watch: Watch

    def begin(self) -> dict[str, float]:
        """Return what is known before the first step."""
        return {}

    def figures(self, seconds: float) -> dict[str, float]:
        """Return what a line of the log says besides, after so many seconds in steps."""
        return {}

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights.

        Shards must step together, which rows of unlike length do not.
        """
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def training_step(self, *inputs: Any, **more: Any) -> torch.Tensor:
        """Take one step; stop at once when the loss is no number."""
        loss: torch.Tensor = super().training_step(*inputs, **more)
        if not torch.isfinite(loss):
            self._tell_nan(f"the loss is {float(loss)}")
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trained = (p for p in self.model.parameters() if p.requires_grad)
        if not all(bool(torch.isfinite(p.detach()).all()) for p in trained):
            self._tell_nan("a weight is no number")
        folder = Path(str(self.args.output_dir))
        if self.is_world_process_zero():  # what is written anew is not whole until it is
            unmark(folder / f"checkpoint-{self.state.global_step}")
        with telling_disk_errors(folder):
            self._save_more(folder / f"checkpoint-{self.state.global_step}")
            super()._save_checkpoint(model, trial)

    def _save_more(self, checkpoint: Path) -> None:
        """Write what a resumed run needs besides; the checkpoint is not whole before it is."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: `cello1 merge` writes a card that says more."""

    def _tell_nan(self, what: str) -> None:
        raise InputError(
            f"{what} in step {self.state.global_step + 1}: training stopped, and the checkpoints "
            "so far are intact; lower trainer.learning_rate, clip harder with "
            "trainer.max_grad_norm, or look for odd data, and start with another --out"
        )

    def solve_held_out(self) -> dict[str, float]:
        """Solve the held-out puzzles greedily and return the metrics."""
        if not self.held_out or self.is_sharded:
            return {}
        accelerator = self.accelerator
        mine = self.held_out[accelerator.process_index :: accelerator.num_processes]
        model = accelerator.unwrap_model(self.model)
        model.eval()
        language = LanguageModel(self.prompter, model=model)
        what = f"solving held-out puzzles, step {self.state.global_step}"
        with self.compute_loss_context_manager():
            said = solve_greedily(
                language, mine, self.max_new_tokens, lambda share: self.watch(what, share)
            )
        if accelerator.num_processes > 1:
            said = gather_object(said)
        return held_out_figures(self.held_out, said) if said else {}


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
        self.trainer: Solving | None = None
        self.seconds, self.began = 0.0, 0.0

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
        if "loss" in line and self.seconds:
            line |= self.trainer.figures(self.seconds)
            self.seconds = 0.0
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
