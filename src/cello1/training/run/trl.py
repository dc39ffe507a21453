"""What the trainers on TRL share: settings passed through, the model, evaluation by solving.

Importing this takes seconds, so only training does.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from transformers import PrinterCallback, Trainer, TrainerCallback

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import LOG, Watch, append_line
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.loading import load_model, model_folder
from cello1.solvers.local.prompter import Prompter
from cello1.training.run.checkpoints import naming_disk_errors, unmark
from cello1.training.run.held_out import (
    SELECTION_SCORE,
    held_out_figures,
    out_of_patience,
    selection_score,
    solve_greedily,
)
from cello1.training.run.precision import for_sampling, training_dtype
from cello1.training.run.run_training import new_record, quiet, run_with_checkpoints

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel
    from transformers import TrainerControl as Control
    from transformers import TrainerState as State
    from transformers import TrainingArguments as Arguments

    from cello1.recipes import RlSettings, SftSettings
    from cello1.recipes.sft import AdapterSection

# Its methods are called through TRL's trainers, which have no types.
_Trainer: Any = Trainer
# TRL's settings that are set here, and what to use instead; {} is the section of the recipe.
_OURS = {
    "output_dir": "--out",
    "seed": "{}.seed",
    "data_seed": "{}.seed",
    "eval_strategy": "{}.evaluate_every",
    "eval_steps": "{}.evaluate_every",
    "model_init_kwargs": "{}.attention",
    "metric_for_best_model": "nothing: held-out batch accuracy decides",
    "greater_is_better": "nothing: held-out batch accuracy decides",
    "load_best_model_at_end": "nothing: the best checkpoint is the result",
    "resume_from_checkpoint": "nothing: the same command resumes",
    "trust_remote_code": "nothing: remote code is never trusted",
    "use_cpu": "nothing: a GPU is used where there is one",
}


def run_trl(
    command: str,
    settings: SftSettings | RlSettings,
    out: str | Path,
    inputs: Sequence[Path],
    config_of: Callable[[Any, Path], Any],
    make_trainer: Callable[[Any, Path, Path, Any, Watch], tuple[SolvingTrainer, Any]],
    watch: Watch,
    logs: Sequence[str] = (LOG,),
) -> Path:
    """Train by TRL in a run folder that resumes.

    Parameters
    ----------
    command, settings, out, inputs, watch, logs
        The verb, its settings, the run folder, the files it reads, progress, and the logs it
        writes.
    config_of
        From settings and the folder of the checkpoints to a config of TRL.
    make_trainer
        From settings, run folder, base model, config and `watch` to the trainer and its data.

    Returns
    -------
    Path
        The adapter, or the model when all weights were trained.
    """
    folder, base = Path(out), model_folder(settings.model)
    with quiet():
        config = config_of(settings, folder / "checkpoints")

    def prepare() -> tuple[SolvingTrainer, dict[str, Any]]:
        trainer, data = make_trainer(settings, folder, base, config, watch)
        return trainer, data.counts

    return run_with_checkpoints(
        folder,
        new_record(command, settings, base),
        prepare,
        inputs=inputs,
        final="model" if settings.method == "full" else "adapter",
        patience=settings.patience,
        logs=logs,
        main_first=config.main_process_first(local=False),
    )


def passed_through(
    section: str, given: Mapping[str, Any], config: type[Any], ours: Mapping[str, str]
) -> dict[str, Any]:
    """Return settings for a config of TRL; text such as `1e-5`, as YAML reads it, becomes a number.

    Parameters
    ----------
    section
        Of the recipe, for messages.
    given
        The settings under ``trainer``.
    config
        A dataclass such as TRL's SFTConfig.
    ours
        Further settings that cannot be given, each with what to use instead.

    Raises
    ------
    UseError
        When keys are unknown or set here; all of them are named.
    """
    fields = {field.name: str(field.type) for field in dataclasses.fields(config)}
    ours = {**_OURS, **ours}
    faults = []
    for key in given:
        if key in ours:
            faults.append(f"{key} is not set here (use {ours[key].format(section)})")
        elif key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            faults.append(f"{key} is unknown" + (f" (did you mean {near[0]}?)" if near else ""))
    if faults:
        raise UseError(
            f"{section}.trainer: {'; '.join(faults)}; the names are those of TRL's "
            f"{config.__name__}"
        )
    return {key: _number(value, fields[key]) for key, value in given.items()}


def _number(value: Any, kind: str) -> Any:
    if isinstance(value, str) and ("float" in kind or "int" in kind) and "str" not in kind:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def make_config(
    config: type[Any],
    section: str,
    settings: SftSettings | RlSettings,
    output: Path,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    fixed: Mapping[str, Any],
) -> Any:
    """Make a config of TRL for this machine.

    Parameters
    ----------
    config
        SFTConfig or GRPOConfig.
    section, settings
        Of the recipe.
    output
        Folder of the checkpoints.
    defaults, given, fixed
        Our defaults, the values of the recipe, which win, and those that cannot be changed.

    Raises
    ------
    UseError
        When a value is not valid.
    """
    gpu = torch.cuda.is_available()
    values = {
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would show the last good loss instead
        "bf16": training_dtype("cuda" if gpu else "cpu") == torch.bfloat16,
        "gradient_checkpointing": gpu,
        "ddp_find_unused_parameters": False,
        **defaults,
        **given,
        "use_cpu": not gpu,
        "output_dir": str(output),
        "seed": settings.seed,
        "data_seed": settings.seed,
        "metric_for_best_model": SELECTION_SCORE,
        "greater_is_better": True,
        **fixed,
    }
    try:
        return config(**values)
    except (ValueError, TypeError) as error:
        raise UseError(f"{section}.trainer is not valid: {' '.join(str(error).split())}") from error


def load_trainee(base: Path, settings: AdapterSection, *, half: bool) -> PreTrainedModel:
    """Load the model to train.

    Full fine-tuning needs float32 weights under bfloat16 arithmetic; otherwise small steps vanish.
    """
    dtype = torch.bfloat16 if half and settings.method != "full" else torch.float32
    return load_model(base, dtype, attn_implementation=settings.attention)


def adapter_config(settings: AdapterSection) -> LoraConfig | None:
    """Return PEFT's LoraConfig, or None when all weights are trained."""
    if settings.method == "full":
        return None
    from peft import LoraConfig

    every = settings.layers == ("all-linear",)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.method == "dora",
        target_modules="all-linear" if every else list(settings.layers),
        task_type="CAUSAL_LM",
    )


class SolvingTrainer(_Trainer):  # type: ignore[misc]
    """A trainer that evaluates by solving puzzles, and aborts on a non-finite loss.

    List it before a trainer of TRL among the base classes.

    Parameters
    ----------
    prompter
        How the model is asked.
    held_out
        Puzzles to solve at every evaluation.
    settings
        The section of a recipe.
    log
        File that gets a line for every entry of the log.
    watch
        Called with what is going on and the share done.
    more
        For TRL's trainer.
    """

    def __init__(
        self,
        *,
        prompter: Prompter,
        held_out: Sequence[Puzzle],
        settings: SftSettings | RlSettings,
        log: Path,
        watch: Watch,
        **more: Any,
    ) -> None:
        self.prompter, self.held_out, self.watch = prompter, held_out, watch
        self.max_new_tokens = settings.max_new_tokens
        reporter = Reporter(log, settings.patience, watch)
        super().__init__(
            processing_class=prompter.tokenizer,
            peft_config=adapter_config(settings),
            callbacks=[reporter],
            **more,
        )
        self.remove_callback(PrinterCallback)
        reporter.trainer = self

    not_logged: tuple[str, ...] = ()  # metrics of TRL that would mislead here

    def begin(self) -> dict[str, float]:
        """Return what is known before the first step."""
        return {}

    def figures(self, seconds: float) -> dict[str, float]:
        """Return further metrics for a line of the log, after so many seconds of steps."""
        return {}

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights.

        Shards must step together, and rows of different lengths do not.
        """
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def training_step(self, *inputs: Any, **more: Any) -> torch.Tensor:
        """Take one step; abort when the loss is not finite."""
        loss: torch.Tensor = super().training_step(*inputs, **more)
        if not torch.isfinite(loss):
            self._abort(f"the loss is {float(loss)}")
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trained = (p for p in self.model.parameters() if p.requires_grad)
        if not all(bool(torch.isfinite(p.detach()).all()) for p in trained):
            self._abort("a weight is not finite")
        folder = Path(str(self.args.output_dir))
        if self.is_world_process_zero():  # incomplete until it is rewritten
            unmark(folder / f"checkpoint-{self.state.global_step}")
        with naming_disk_errors(folder):
            super()._save_checkpoint(model, trial)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: `cello1 merge` writes a better one."""

    def _abort(self, what: str) -> None:
        raise InputError(
            f"{what} in step {self.state.global_step + 1}: training stopped, and the checkpoints "
            "so far are intact; lower trainer.learning_rate, clip harder with "
            "trainer.max_grad_norm, or check the data, and start with another --out"
        )

    def solve_held_out(self) -> dict[str, float]:
        """Solve the held-out puzzles greedily and return the metrics."""
        if not self.held_out or self.is_sharded:
            return {}
        accelerator = self.accelerator
        mine = self.held_out[accelerator.process_index :: accelerator.num_processes]
        model = accelerator.unwrap_model(self.model)
        model.eval()
        speaker = for_sampling(model, half=bool(self.args.bf16))
        language = LanguageModel(self.prompter, model=speaker)
        what = f"solving held-out puzzles, step {self.state.global_step}"
        answered = solve_greedily(
            language, mine, self.max_new_tokens, lambda share: self.watch(what, share)
        )
        if accelerator.num_processes > 1:
            answered = gather_object(answered)
        return held_out_figures(self.held_out, answered) if answered else {}

    def select_by(self, measured: dict[str, float]) -> dict[str, float]:
        """Solve the held-out puzzles and add their figures to what was measured."""
        measured.update(self.solve_held_out())
        measured[SELECTION_SCORE] = selection_score(measured)
        return measured


class Reporter(TrainerCallback):
    """Shows progress, writes the log, saves after every evaluation, and stops early.

    Parameters
    ----------
    log
        The file.
    patience
        Evaluations without improvement that end the training; None never stops early.
    watch
        Called with what is going on and the share done.
    """

    def __init__(self, log: Path, patience: int | None, watch: Watch) -> None:
        self.log, self.patience, self.watch = log, patience, watch
        self.trainer: SolvingTrainer | None = None
        self.seconds, self.began = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock: only training counts for tokens per second."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Arguments, state: State, control: Control, **_: Any) -> None:
        """Stop the clock and show progress."""
        self.seconds += time.perf_counter() - self.began
        self.watch("steps", state.global_step / max(1, state.max_steps))
        last = state.global_step >= state.max_steps
        if args.eval_strategy == "epoch":
            # An epoch ends with an evaluation, and that with a checkpoint. One before it would
            # let a run that is killed in between resume without that evaluation.
            if last or float(state.epoch or 0.5).is_integer():
                control.should_save = False
        elif last:  # the end is always evaluated and kept
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "steps"
            control.should_save = control.should_save or args.save_strategy != "epoch"

    def on_log(self, args: Arguments, state: State, *_: Any, logs: Any = None, **__: Any) -> None:
        """Append one line."""
        if not state.is_world_process_zero or self.trainer is None:
            return
        line: dict[str, Any] = {"step": state.global_step, **_plain(logs or {})}
        for name in self.trainer.not_logged:
            line.pop(name, None)
        if "loss" in line and self.seconds:
            line |= self.trainer.figures(self.seconds)
            self.seconds = 0.0
        append_line(self.log, line)

    def on_evaluate(self, args: Arguments, state: State, control: Control, **_: Any) -> None:
        """Save every evaluated state, and stop when they no longer improve."""
        control.should_save = True
        if out_of_patience(state.log_history, self.patience):
            control.should_training_stop = True


def _plain(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that JSON has; a number that is not finite is written as text."""
    odd = {k: str(v) for k, v in logs.items() if isinstance(v, float) and not math.isfinite(v)}
    return {**logs, **odd}
