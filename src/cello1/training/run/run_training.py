"""The life cycle of a training: claim the run folder, train or resume, publish the best model.

Every training (`base`, `sft`, `rl` by any engine) runs through :func:`run_training`; those that
keep checkpoints, through :func:`run_with_checkpoints`.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from cello1.errors import InputError
from cello1.runs import LOG, Run, append_line, open_plain, write_json
from cello1.training.run.checkpoints import (
    best_checkpoint,
    check_checkpoint,
    checkpoints,
    clear_torn,
    cut_log,
    naming_disk_errors,
    publish,
    read_state,
    step_of,
)
from cello1.training.run.held_out import SELECTION_SCORE, out_of_patience
from cello1.training.run.model_identity import RECORD, model_identity, read_record, versions

_logger = logging.getLogger(__name__)
# Settings that do not change the result.
_NOT_IDENTITY = ("model", "gpus", "address", "workers")


def run_training(
    folder: Path,
    record: Mapping[str, Any],
    *,
    inputs: Sequence[Path],
    train: Callable[[], None],
    publish: Callable[[Path], None],
    final: str = "model",
    finished_by: str = LOG,
) -> Path:
    """Train, or resume an interrupted training.

    Parameters
    ----------
    folder
        The run folder.
    record
        The initial content of ``training.json``: ``command``, ``settings``, the identity of the
        ``base`` model, and the ``engine`` where there are several.
    inputs
        Files whose content the run depends on.
    train
        Trains to the end, from the newest checkpoint if there is one.
    publish
        Writes the result to the path it is given.
    final
        Name of the result in the run folder.
    finished_by
        The file whose existence fixes the settings of the run.

    Returns
    -------
    Path
        The result: a model, or an adapter.

    Raises
    ------
    InputError
        When the folder holds another run, or the disk is full.
    """
    made = folder / final
    with claim(folder, record, inputs, finished_by):
        if not made.exists():
            with quiet(), repeatable(), naming_disk_errors(folder):
                train()
                if is_main():
                    publish(made)
    return made


def is_main() -> bool:
    """Return whether this is the only process, or the main one of several that train together."""
    return os.environ.get("RANK", "0") == "0"


def claim(
    folder: Path, record: Mapping[str, Any], inputs: Sequence[Path], finished_by: str
) -> AbstractContextManager[Any]:
    """Open the run folder in the main process; until training has begun its settings may change."""
    if not is_main():
        return nullcontext()
    config = {k: v for k, v in record["settings"].items() if k not in _NOT_IDENTITY}
    if "base" in record:
        config["base"] = {k: v for k, v in record["base"].items() if k != "source"}
    if "engine" in record:
        config["engine"] = record["engine"]
    return Run(
        folder, command=record["command"], config=config, inputs=inputs, finished_by=finished_by
    )


def new_record(
    command: str,
    settings: BaseModel,
    base: Path | None,
    *,
    engine: str | None = None,
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the initial content of ``training.json``.

    Parameters
    ----------
    command
        The verb.
    settings
        Its section of the recipe.
    base
        Folder of the model that is trained, if there is one.
    engine
        The training engine, where there are several.
    packages
        Packages whose versions are recorded; by default those used to train here.
    """
    record: dict[str, Any] = {"command": command, "settings": settings.model_dump(mode="json")}
    if engine is not None:
        record["engine"] = engine
    if base is not None:
        record["base"] = {"source": record["settings"]["model"], **model_identity(base)}
    return {**record, "versions": versions(*packages)}


class Trainer(Protocol):
    """Runs the steps of a training that keeps checkpoints."""

    def begin(self) -> dict[str, Any]:
        """Return what is known before the first step."""
        ...

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train to the last step."""
        ...


def run_with_checkpoints(
    folder: Path,
    record: Mapping[str, Any],
    prepare: Callable[[], tuple[Trainer, dict[str, Any]]],
    *,
    inputs: Sequence[Path],
    final: str = "model",
    patience: int | None = None,
    logs: Sequence[str] = (LOG,),
    main_first: AbstractContextManager[Any] | None = None,
) -> Path:
    """Train from the newest complete checkpoint, or from the start, and publish the best one.

    Parameters
    ----------
    folder, record, inputs, final
        As for :func:`run_training`.
    prepare
        Makes the trainer and counts the data; called only if training is not finished.
    patience
        Evaluations without improvement that end the training.
    logs
        Files in the run folder with a ``step`` in every line; lines beyond the
        checkpoint are dropped.
    main_first
        Lets the main of several processes go first.

    Raises
    ------
    InputError
        As for :func:`run_training`, or when a checkpoint is damaged.
    """

    def train() -> None:
        with main_first or nullcontext():
            if is_main():
                clear_torn(folder / "checkpoints")
        newest = next(reversed(checkpoints(folder / "checkpoints")), None)
        if newest is not None and _is_over(newest, patience):
            return
        trainer, counts = prepare()
        begun = trainer.begin() if newest is None else {}
        if begun.get("eval_format_validity") == 0:
            _logger.warning(
                "before training, no response to %d held-out puzzles is in the format, so "
                "all get the same reward and little can be learned: fine-tune the model first "
                "(cello1 sft)",
                begun["eval_solved"],
            )
        if is_main():
            for name in logs:
                cut_log(folder / name, step_of(newest) if newest else -1)
            if newest is None:
                append_line(folder / LOG, {"step": 0, "event": "start", **counts, **begun})
            write_json(folder / RECORD, {**record, "data": counts})
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)

    return run_training(
        folder,
        record,
        inputs=inputs,
        train=train,
        publish=lambda made: _publish_best(folder, made),
        final=final,
    )


def _is_over(checkpoint: Path, patience: int | None) -> bool:
    """Return whether training ended with this checkpoint, by its steps or by its patience."""
    check_checkpoint(checkpoint)
    state = read_state(checkpoint)
    over: bool = state["global_step"] >= state["max_steps"]
    return over or out_of_patience(state["log_history"], patience)


def _publish_best(folder: Path, final: Path) -> None:
    """Publish the best checkpoint with the record of its training."""
    places = folder / "checkpoints"
    if not (found := checkpoints(places)):
        raise InputError(
            f"no step was taken in {folder}, so there is no model to publish; add data, or set "
            "more epochs or steps, and start with another --out"
        )
    state = read_state(found[-1])
    best = best_checkpoint(places, state.get("best_global_step"))
    step = step_of(best)
    measured = [e for e in state["log_history"] if e["step"] == step and SELECTION_SCORE in e]
    figures = {k: v for entry in measured for k, v in entry.items() if k.startswith("eval_")}
    record = read_record(folder)
    record["result"] = {"step": step, "steps_trained": state["global_step"], **figures}
    first, had_signal = _summary(folder / LOG)
    if had_signal is False:
        record["result"]["had_signal"] = False
        _logger.warning(
            "nothing was learned in %s: in no step did rewards differ; fine-tune the model first "
            "(cello1 sft), or choose other puzzles or another reward",
            folder,
        )
    if start := {k: v for k, v in first.items() if k.startswith("eval_")}:
        record["start"] = start
    write_json(folder / RECORD, record)
    publish(best, final, record)


def _summary(log: Path) -> tuple[dict[str, Any], bool | None]:
    """Return the first line of a log, and whether rewards ever differed (None without rewards)."""
    lines: list[dict[str, Any]] = []
    with open_plain(log) as file:
        for line in file:
            with suppress(ValueError):  # a line that was being written when the process died
                lines.append(json.loads(line))
    # Without groups, what differs between puzzles teaches as well.
    steps = [entry for entry in lines if "reward_std" in entry]
    signals = [e["no_signal"] < 1 if "no_signal" in e else e["reward_std"] != 0 for e in steps]
    return lines[0] if lines else {}, any(signals) if signals else None


@contextmanager
def repeatable() -> Iterator[None]:
    """On a CPU, let the same steps give the same weights whatever the number of threads.

    Several threads add up some gradients (those of rows that were selected twice) in the order in
    which they come, which differs from run to run in the last bits.
    """
    import torch

    if torch.cuda.is_available():  # there it costs speed, and kernels without such a variant
        yield
        return
    flags: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        flags.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    flags.fill_uninitialized_memory = False  # it finds faults, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        flags.fill_uninitialized_memory = before[2]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars, deprecations and hints of transformers, TRL, PEFT and datasets."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar
    from transformers.utils import logging as shown

    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    shown.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="peft|trl|torch")
            warnings.filterwarnings("ignore", message=".*rollout_func")
            yield
    finally:
        enable_progress_bar()
        shown.enable_progress_bar()  # type: ignore[no-untyped-call]
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
