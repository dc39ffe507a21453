"""One training from start to end: its run folder, where it goes on, and what it leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from cello1.recipes import RlSettings, SftSettings
from cello1.runs import Run, write_json
from cello1.training.run.checkpoints import (
    LOG,
    best_checkpoint,
    checkpoints,
    clear_torn,
    cut_log,
    publish,
    steps_of,
    telling_disk_errors,
)
from cello1.training.run.lineage import RECORD, identity, versions
from cello1.training.run.quiet import quiet

# Makes the trainer and counts the data.
Prepare = Callable[[], tuple[Any, dict[str, Any]]]


def conduct(
    command: str,
    settings: SftSettings | RlSettings,
    folder: Path,
    base: Path,
    *,
    config: Any,
    inputs: Sequence[Path],
    prepare: Prepare,
    logs: Sequence[str] = (LOG,),
) -> Path:
    """Train, or go on where a killed call of the same command was.

    Parameters
    ----------
    command
        The verb, for the record.
    settings
        Its section of the recipe.
    folder
        The run folder.
    base
        Folder of the model that learns.
    config
        TRL's config; its output is ``checkpoints`` in the run folder.
    inputs
        Files whose content the run depends on.
    prepare
        Called when there is something to train.
    logs
        Files in the run folder with a ``step`` in every line; steps that are lost are cut off.

    Returns
    -------
    Path
        The adapter, or the model when all weights were trained.
    """
    record = {
        "command": command,
        "base": {"source": settings.model, **identity(base)},
        "settings": settings.model_dump(mode="json"),
    }
    final = folder / ("model" if settings.method == "full" else "adapter")
    with _claim(folder, record, inputs):
        if final.exists():
            return final
        with config.main_process_first(local=False):
            if _is_main():
                clear_torn(folder / "checkpoints")
        with quiet():
            _train(folder, record, settings.patience, prepare, logs)
        if _is_main():
            with telling_disk_errors(folder / "checkpoints"):
                _publish(folder, final)
    return final


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _claim(
    folder: Path, record: Mapping[str, Any], inputs: Sequence[Path]
) -> AbstractContextManager[Any]:
    """Open the run folder in one process; until training has begun its settings may change."""
    if not _is_main():
        return nullcontext()
    kept = {k: v for k, v in record["settings"].items() if k != "gpus"}
    base = {k: v for k, v in record["base"].items() if k != "source"}
    return Run(
        folder,
        command=record["command"],
        config={**kept, "base": base},
        inputs=inputs,
        finished_by=LOG,
    )


def _train(
    folder: Path,
    record: dict[str, Any],
    patience: int | None,
    prepare: Prepare,
    logs: Sequence[str],
) -> None:
    newest = next(reversed(checkpoints(folder / "checkpoints")), None)
    if newest is not None and _is_over(newest, patience):
        return
    trainer, counts = prepare()
    begun = trainer.begin() if newest is None else {}
    if _is_main():
        for name in logs:
            cut_log(folder / name, steps_of([newest])[0] if newest else -1)
        if newest is None:
            first = json.dumps({"step": 0, "event": "start", **counts, **begun})
            (folder / LOG).write_text(first + "\n", "utf-8")
        write_json(folder / RECORD, {**record, "data": counts, "versions": versions()})
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))  # type: ignore[no-any-return]


def _is_over(checkpoint: Path, patience: int | None) -> bool:
    """Say whether training ended with this checkpoint, in steps or in patience."""
    from cello1.training.run.solving import out_of_patience

    state = _state(checkpoint)
    over = state["global_step"] >= state["max_steps"]
    return over or out_of_patience(state["log_history"], patience)


def _publish(folder: Path, final: Path) -> None:
    """Copy the best checkpoint to its place, with the record of how it came about."""
    state = _state(checkpoints(folder / "checkpoints")[-1])
    best = best_checkpoint(folder / "checkpoints", state.get("best_global_step"))
    step = steps_of([best])[0]
    record = json.loads((folder / RECORD).read_text("utf-8"))
    measured = [e for e in state["log_history"] if e["step"] == step and "eval_merit" in e]
    figures = {k: v for entry in measured for k, v in entry.items() if k.startswith("eval_")}
    record["result"] = {"step": step, "steps_trained": state["global_step"], **figures}
    with (folder / LOG).open(encoding="utf-8") as log:
        first = json.loads(log.readline())
    if start := {k: v for k, v in first.items() if k.startswith("eval_")}:
        record["start"] = start
    write_json(folder / RECORD, record)
    publish(best, final, record)
