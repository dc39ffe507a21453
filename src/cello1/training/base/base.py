"""`cello1 base`: a small model from scratch, ready to be fine-tuned like any other.

Puzzles in, a Hugging Face folder out: the cells of built training puzzles are drawn into endless
new ones (`stream.py`), a tokenizer is made for them (`tokens.py`), and a Qwen3 model of a few
million parameters learns from them (`pretrain.py`) on a laptop. Interrupted and called again,
it resumes to the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BaseModelSettings, Stage
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Watch, write_atomic, write_json
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.local.loading import model_folder
from cello1.training.base.stream import Stream
from cello1.training.base.tokens import make_tokenizer
from cello1.training.run.card import model_card
from cello1.training.run.checkpoints import STATE, appearing
from cello1.training.run.data import input_files, read_answered
from cello1.training.run.model_identity import RECORD
from cello1.training.run.run_training import new_record, run_training

# What the tokenizer sees: puzzles spread over each source, and worked ones for the reasoning.
_PROMPTS, _WORKED = 400, 300
_WORKED_STEP = 1 << 30  # far from any step of training


@takes(BaseModelSettings)
def base(
    settings: BaseModelSettings | str | Path | None,
    out: str | Path,
    *,
    watch: Watch = lambda what, share: None,
    **changes: Any,
) -> Path:
    """Train a small model from scratch. Can be interrupted: the same call resumes.

    Parameters
    ----------
    settings, **changes
        :class:`cello1.recipes.BaseModelSettings`, a recipe with a section `base`, or None for the
        defaults; and fields by keyword, which win.
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
        When the puzzles cannot be used, the loss is not finite, or the disk is full.
    """
    settings = resolve(BaseModelSettings, settings, changes)
    if not settings.puzzles or not settings.stages:
        raise InputError("base needs puzzles (files of training puzzles) and stages; see recipes/")
    folder, files = Path(out), input_files(settings.puzzles, None, "puzzles")
    sources = [read_answered(name) for name in settings.puzzles]
    start = None if settings.model is None else model_folder(settings.model)
    record = new_record("base", settings, start)
    made = []

    def train() -> None:
        trainer = _prepare(settings, sources, folder)
        trainer.resume()
        trainer.train(lambda share, loss: watch(f"base, loss {loss:.2f}", share))
        made.append(trainer)

    return run_training(
        folder,
        record,
        inputs=files,
        train=train,
        publish=lambda final: _publish(made[0], record, sources, final),
    )


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
    trainer: Any, record: dict[str, Any], sources: list[list[Puzzle]], final: Path
) -> None:
    """Write the model folder, whole or not at all."""
    record = {
        **record,
        "donors": sorted({str(p.meta.get("donor_id")) for puzzles in sources for p in puzzles}),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "steps": trainer.step,
        "tokens": trainer.tokens,
    }
    with appearing(final) as part:
        trainer.model.save_pretrained(part)
        trainer.tokenizer.save_pretrained(part)
        write_json(part / RECORD, record)
        write_atomic(part / "README.md", model_card(record, "bsd-3-clause").encode())
    (final.parent / STATE).unlink(missing_ok=True)
