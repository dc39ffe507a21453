"""`cello1 base`: a small model from scratch, ready to be fine-tuned like any other.

Puzzles in, a Hugging Face folder out: the cells of built training puzzles are drawn into endless
new ones (`stream.py`), a tokenizer is made for them (`tokens.py`), and a Qwen3 model of a few
million parameters learns from them (`pretrain.py`) on a laptop. Killed and called again, it goes
on to the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BaseModelSettings, Stage
from cello1.runs import Run, write_atomic, write_json
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.local.loading import model_folder
from cello1.training.base.stream import Stream
from cello1.training.base.tokens import make_tokenizer
from cello1.training.run.checkpoints import LOG, STATE, telling_disk_errors
from cello1.training.run.lineage import RECORD, identity, versions

# What the tokenizer sees: puzzles spread over each source, and worked ones for the reasoning.
_PROMPTS, _WORKED = 400, 300
_WORKED_STEP = 1 << 30  # far from any step of training


def base(
    settings: BaseModelSettings,
    out: str | Path,
    *,
    watch: Callable[[str, float], None] = lambda what, share: None,
) -> Path:
    """Train a small model from scratch; killed and called again, it goes on.

    Parameters
    ----------
    settings
        The section `base` of a recipe.
    out
        The run folder.
    watch
        Called with what is going on and the share of it that is done.

    Returns
    -------
    Path
        The model folder, `out/model`: weights, tokenizer, card.

    Raises
    ------
    InputError
        When the puzzles cannot be used, the loss is no number, or the disk is full.
    """
    if not settings.puzzles or not settings.stages:
        raise InputError("base needs puzzles (files of training puzzles) and stages; see recipes/")
    folder, files = Path(out), [Path(name) for name in settings.puzzles]
    sources = [_with_answers(path) for path in files]
    config = {k: v for k, v in settings.model_dump(mode="json").items() if k != "puzzles"}
    if settings.model is not None:
        config["model"] = identity(model_folder(settings.model))
    with Run(folder, command="base", config=config, inputs=files, finished_by=LOG):
        final = folder / "model"
        if not final.exists():
            trainer = _prepare(settings, sources, folder)
            trainer.resume()
            with telling_disk_errors(folder):
                trainer.train(lambda share, loss: watch(f"base, loss {loss:.2f}", share))
                _publish(trainer, settings, sources, final)
    return final


def _with_answers(path: Path) -> list[Puzzle]:
    puzzles = [puzzle for puzzle in read_puzzles(path) if puzzle.answer is not None]
    if not puzzles:
        raise InputError(f"{path} has no puzzle with an answer; expected a train split")
    return puzzles


def _prepare(settings: BaseModelSettings, sources: list[list[Puzzle]], folder: Path) -> Any:
    from cello1.training.base.pretrain import Trainer, new_model

    stream = Stream(sources, [Centroids(puzzles) for puzzles in sources], settings.seed)
    if settings.model is not None:
        from cello1.solvers.local.loading import load_model, load_tokenizer

        tokenizer: Any = load_tokenizer(settings.model)
        model = load_model(settings.model, "float32")
        return Trainer(model, tokenizer, stream, settings, folder)
    whole = Stage(tokens=1, cells=(2, 15), genes=(50, 50))
    worked = [stream.batch(_WORKED_STEP + i, whole) for i in range(_WORKED)]
    shown = [p for puzzles in sources for p in puzzles[:: max(1, len(puzzles) // _PROMPTS)]]
    responses = [response for examples in worked for _, response in examples]
    tokenizer = make_tokenizer(shown, responses, settings.vocabulary)
    return Trainer(new_model(settings, tokenizer), tokenizer, stream, settings, folder)


def _publish(
    trainer: Any, settings: BaseModelSettings, sources: list[list[Puzzle]], final: Path
) -> None:
    """Write the model folder, whole or not at all."""
    part = final.with_name(".model.part")
    shutil.rmtree(part, ignore_errors=True)
    trainer.model.save_pretrained(part)
    trainer.tokenizer.save_pretrained(part)
    donors = sorted({str(p.meta.get("donor_id")) for puzzles in sources for p in puzzles})
    record = {
        "command": "base",
        "settings": settings.model_dump(mode="json"),
        "donors": donors,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "versions": versions(),
    }
    write_json(part / RECORD, record)
    write_atomic(part / "README.md", _card(record).encode())
    part.rename(final)
    (final.parent / STATE).unlink(missing_ok=True)


def _card(record: dict[str, Any]) -> str:
    start = record["settings"]["model"]
    how = "trained from scratch" if start is None else f"trained on from `{start}`"
    files = "\n".join(f"- `{Path(name).name}`" for name in record["settings"]["puzzles"])
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\nlicense: bsd-3-clause\n"
        "tags: [cell-type-annotation, single-cell, cello1]\n---\n"
        "# A small base model that annotates cell types, batch by batch\n\n"
        f"{record['parameters']:,} parameters, {how} by `cello1 base` on "
        f"{record['tokens']:,} tokens of puzzles, each with the worked response of the offline "
        f"teacher. Its cells come from the training puzzles of\n\n{files}\n\n"
        f"with {len(record['donors'])} donors: {', '.join(record['donors'][:40])}. It knows the "
        "types of these files and little else; fine-tune it with `cello1 sft`. The exact settings "
        "are in `training.json`.\n"
    )
