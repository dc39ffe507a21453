"""Supervised fine-tuning on traces: TRL's SFTTrainer and PEFT, in a run folder that resumes.

The paper's cold start (arXiv 2506.02911, section 4): without it, reinforcement learning never
leaves zero. Held-out donors are solved at every evaluation, and the checkpoint that solves most
batches is the result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from cello1.recipes_training import SftSettings
from cello1.runs import Run, write_json
from cello1.training.checkpoints import (
    LOG,
    best_checkpoint,
    checkpoints,
    clear_torn,
    cut_log,
    publish,
    steps_of,
    telling_disk_errors,
)
from cello1.training.lineage import RECORD, identity, model_folder, versions
from cello1.training.quiet import quiet
from cello1.training.sft_data import SftData, input_files, read_sft_data
from cello1.training.sft_settings import adapter_config, trainer_config

Watch = Callable[[str, float], None]


def sft(settings: SftSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Fine-tune a model on traces; killed and called again, it goes on from its checkpoint.

    Parameters
    ----------
    settings
        The section `sft` of a recipe.
    out
        The run folder.
    watch
        Called with what is going on and the share of it that is done.

    Returns
    -------
    Path
        The adapter, or the model when all weights were trained, in the run folder.

    Raises
    ------
    InputError
        When the base, the traces or a setting cannot be used, the loss is no number, or the disk
        is full.
    """
    folder, base = Path(out), model_folder(settings.model)
    with quiet():
        config = trainer_config(settings, folder / "checkpoints")
    record = {
        "base": {"source": settings.model, **identity(base)},
        "settings": settings.model_dump(mode="json"),
    }
    final = folder / ("model" if settings.method == "full" else "adapter")
    with _claim(folder, record, settings):
        if final.exists():
            return final
        with config.main_process_first(local=False):
            if _is_main():
                clear_torn(folder / "checkpoints")
        with quiet():
            _train(settings, folder, base, config, record, watch)
        if _is_main():
            with telling_disk_errors(folder / "checkpoints"):
                _publish(folder, final)
    return final


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _claim(
    folder: Path, record: Mapping[str, Any], settings: SftSettings
) -> AbstractContextManager[Any]:
    """Open the run folder in one process; until training has begun its settings may change."""
    if not _is_main():
        return nullcontext()
    kept = {k: v for k, v in record["settings"].items() if k != "gpus"}
    base = {k: v for k, v in record["base"].items() if k != "source"}
    return Run(
        folder,
        command="sft",
        config={**kept, "base": base},
        inputs=input_files(settings),
        finished_by=LOG,
    )


def _train(
    settings: SftSettings,
    folder: Path,
    base: Path,
    config: Any,
    record: dict[str, Any],
    watch: Watch,
) -> None:
    newest = next(reversed(checkpoints(folder / "checkpoints")), None)
    if newest is not None and _is_over(newest, settings.patience):
        return
    trainer, data = _prepare(settings, folder, base, config, watch)
    if _is_main():
        cut_log(folder / LOG, steps_of([newest])[0] if newest else 0)
        if newest is None:
            first = json.dumps({"step": 0, "event": "start", **data.counts})
            (folder / LOG).write_text(first + "\n", "utf-8")
        begun = {**record, "data": data.counts, "versions": versions()}
        write_json(folder / RECORD, begun)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)


def _prepare(
    settings: SftSettings, folder: Path, base: Path, config: Any, watch: Watch
) -> tuple[Any, SftData]:
    """Load everything and put the trainer together."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback

    from cello1.training.examples import Student
    from cello1.training.sft_trainer import PuzzleTrainer, Reporter

    student = Student(base)
    # Full fine-tuning needs float32 weights under bfloat16 arithmetic; small steps vanish else.
    half = config.bf16 and settings.method != "full"
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=settings.attention,
    )
    student.take(model)
    data = read_sft_data(settings, student, student.context)
    nothing: dict[str, list[int]] = {"input_ids": [], "labels": []}
    rows, held = ([e.row() for e in part] for part in (data.learn, data.held_out))
    reporter = Reporter(folder / LOG, settings.patience, watch)
    if not (data.held_out or data.solve):
        config.eval_strategy = "no"
    trainer = PuzzleTrainer(
        student=student,
        held_out=data.solve,
        max_new_tokens=settings.max_new_tokens,
        watch=watch,
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held) if held else Dataset.from_dict(nothing),
        processing_class=student.tokenizer,
        peft_config=adapter_config(settings),
        callbacks=[reporter],
    )
    trainer.remove_callback(PrinterCallback)
    reporter.trainer = trainer
    return trainer, data


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))  # type: ignore[no-any-return]


def _is_over(checkpoint: Path, patience: int | None) -> bool:
    """Say whether training ended with this checkpoint, in steps or in patience."""
    from cello1.training.sft_trainer import out_of_patience

    state = _state(checkpoint)
    over = state["global_step"] >= state["max_steps"]
    return over or out_of_patience(state["log_history"], patience)


def _publish(folder: Path, final: Path) -> None:
    """Copy the best checkpoint to its place, with the record of how it came about."""
    state = _state(checkpoints(folder / "checkpoints")[-1])
    best = best_checkpoint(folder / "checkpoints", state.get("best_global_step"))
    step = steps_of([best])[0]
    record = json.loads((folder / RECORD).read_text("utf-8"))
    measured = [e for e in state["log_history"] if e["step"] == step and "eval_runtime" in e]
    figures = {k: v for entry in measured for k, v in entry.items() if k.startswith("eval_")}
    record["result"] = {"step": step, "steps_trained": state["global_step"], **figures}
    write_json(folder / RECORD, record)
    publish(best, final, record)
