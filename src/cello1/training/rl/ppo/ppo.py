"""Reinforcement learning by PPO on one machine: the ablation of the paper, short enough to read.

A step lets the policy answer a batch of puzzles, scores the responses (`scoring/reward.py`), and
improves policy and critic by them (`ppo_learner.py`, `ppo_math.py`). The loop itself is in
`ppo_trainer.py`. Paper: arXiv 2506.02911, section 4; TRL no longer has PPO. Everything random
depends on the seed and the step alone, so training killed at any moment goes on from its
checkpoint to the same weights. Many GPUs and billions of parameters are for verl (`verl.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from cello1.errors import UseError
from cello1.recipes import PpoSettings
from cello1.runs import Run, write_json
from cello1.solvers.local.loading import model_folder
from cello1.training.run.checkpoints import (
    LOG,
    best_checkpoint,
    checkpoints,
    clear_torn,
    publish,
    telling_disk_errors,
)
from cello1.training.run.lineage import RECORD, identity, versions
from cello1.training.run.quiet import quiet

Watch = Callable[[str, float], None]


def ppo(settings: PpoSettings, out: str | Path, *, watch: Watch = lambda what, share: None) -> Path:
    """Train a model by PPO; killed and called again, it goes on from its checkpoint.

    Parameters
    ----------
    settings
        The section `ppo` of a recipe.
    out
        The run folder.
    watch
        Called with what is going on and the share of it that is done.

    Returns
    -------
    Path
        The model that solved most held-out batches, in the run folder.

    Raises
    ------
    InputError
        When the model, the puzzles or a setting cannot be used, a loss is no number, or the disk
        is full.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UseError("this PPO runs in one process; on several GPUs use --engine verl")
    if not settings.model:
        raise UseError("no model is named to start from; add model=DIR, or ppo.model to the recipe")
    from cello1.training.rl.data import input_files

    folder, base = Path(out), model_folder(settings.model)
    start = identity(base)
    kept = {k: v for k, v in settings.model_dump(mode="json").items() if k != "model"}
    config = {"engine": "ppo", **kept, "base": start}
    files = input_files(settings)
    final = folder / "model"
    with Run(folder, command="rl", config=config, inputs=files, finished_by=LOG):
        if final.exists():
            return final
        clear_torn(folder / "checkpoints")
        record = {
            "command": "rl",
            "engine": "ppo",
            "base": {"source": settings.model, **start},
            "settings": settings.model_dump(mode="json"),
            "versions": versions(),
        }
        with quiet():
            from cello1.training.rl.ppo.trainer import PpoTrainer

            trainer = PpoTrainer(settings, folder, base, watch)
            write_json(folder / RECORD, {**record, "data": trainer.data.counts})
            trainer.train()
        with telling_disk_errors(folder / "checkpoints"):
            _publish(folder, final)
    return final


def _publish(folder: Path, final: Path) -> None:
    """Copy the best checkpoint's model to its place, with the record of how it came about."""
    from cello1.training.rl.ppo.state import read_progress

    end = read_progress(checkpoints(folder / "checkpoints")[-1])
    best = best_checkpoint(folder / "checkpoints", end.best_global_step)
    record = json.loads((folder / RECORD).read_text("utf-8"))
    step = end.global_step if end.best_global_step is None else end.best_global_step
    trained = {"step": step, "steps_trained": end.global_step, "tokens": end.num_tokens}
    record["result"] = trained | (end.best_metrics or {})
    write_json(folder / RECORD, record)
    publish(best, final, record)
