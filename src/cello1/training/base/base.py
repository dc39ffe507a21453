"""`cello1 base`: a small model from scratch, which rates candidates and writes its reasons.

The input is mean profiles and training puzzles, the output a Hugging Face model folder. The sources
are gathered into one small file (`sources.py`), puzzles are simulated from it without end
(`practice.py`) and tokenized (`layout.py`, `tokens.py`), and a Qwen3 model of a few million
parameters is trained on them (`pretrain.py`), on a laptop or a GPU. An interrupted training
resumes and ends with the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.recipes import BaseModelSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Watch, appearing, write_atomic, write_json
from cello1.solvers.local.loading import load_model, load_tokenizer, model_folder
from cello1.training.base.layout import Layout
from cello1.training.base.practice import Practice, Size, knowledge
from cello1.training.base.sources import Sources, gather
from cello1.training.base.tokens import CHAT_TEMPLATE, make_tokenizer
from cello1.training.run.card import model_card
from cello1.training.run.checkpoints import STATE
from cello1.training.run.data import input_files, read_answered
from cello1.training.run.model_identity import RECORD
from cello1.training.run.run_training import new_record, run_training

SOURCES = "sources.npz"
_LISTED = 0.05  # a gene in at least this share of the lists of some type is one token
_CONTEXTS = 300  # number of contexts that the tokenizer is trained on
_OFTEN = 60  # repeats of short fixed texts in the training text of the tokenizer
_FAR_STEP = 1 << 30  # far from any step of training


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
        Called with (what is being done, share done).

    Returns
    -------
    Path
        The model folder, `out/model`: weights, tokenizer, card.

    Raises
    ------
    InputError
        When the sources cannot be used, the loss is not finite, or the disk is full.
    """
    settings = resolve(BaseModelSettings, settings, changes)
    if not settings.stages or not (settings.sources or settings.profiles or settings.puzzles):
        raise InputError(
            "base needs stages, and profiles (tables of mean expression) or puzzles (files of "
            "training puzzles); see recipes/"
        )
    solved = [name for name in ("copying", "masking") if getattr(settings, name)]
    if solved and settings.model is None:
        raise InputError(
            f"{' and '.join(solved)}: for a model that is trained further; give model, the folder "
            "of one that `cello1 base` has made"
        )
    folder = Path(out)
    if settings.sources is not None:
        files = [Path(settings.sources)]
    else:
        tables = [*settings.profiles, *([settings.cell_types] if settings.cell_types else [])]
        files = [Path(name) for name in tables]
        files += input_files(settings.puzzles, None, "puzzles") if settings.puzzles else []
    start = None if settings.model is None else model_folder(settings.model)
    record = new_record("base", settings, start)
    made: list[tuple[Any, Sources]] = []

    def train() -> None:
        sources = _sources(settings, folder, watch)
        trainer = _prepare(settings, sources, folder)
        trainer.resume()
        trainer.train(lambda share, loss: watch(f"base, loss {loss:.2f}", share))
        made.append((trainer, sources))

    return run_training(
        folder,
        record,
        inputs=files,
        train=train,
        publish=lambda final: _publish(*made[0], record, final),
    )


def _sources(settings: BaseModelSettings, folder: Path, watch: Watch) -> Sources:
    """Read the sources of practice, or gather them."""
    if settings.sources is not None:
        return Sources.load(Path(settings.sources))
    path = folder / SOURCES
    if not path.exists():
        watch("gathering profiles and cells", 0.0)
        cell_types = None if settings.cell_types is None else Path(settings.cell_types)
        puzzles = [read_answered(name) for name in settings.puzzles]
        gather([Path(name) for name in settings.profiles], cell_types, puzzles).save(path)
    return Sources.load(path)


def _prepare(settings: BaseModelSettings, sources: Sources, folder: Path) -> Any:
    import torch

    from cello1.training.base.copying import add_copying
    from cello1.training.base.masking import add_masking
    from cello1.training.base.pretrain import Trainer, new_model, start_from

    practice = Practice(
        sources, settings.seed, real=settings.real, spelled=settings.spelled,
        other=settings.other_names, invented=settings.invented,
    )  # fmt: skip
    telling, listed = knowledge(practice)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.model is not None:
        tokenizer: Any = load_tokenizer(settings.model)
        model: Any = load_model(settings.model, "float32")
        tokenizer.chat_template = CHAT_TEMPLATE  # that of older models opens the think block
        layout = Layout(tokenizer, practice, telling)
        if not getattr(model.config, "rates_candidates", False) or not layout.knows_types():
            raise InputError(
                f"{settings.model} is no model of `cello1 base` whose tokenizer knows these types; "
                "train it from scratch (model: null)"
            )
        if settings.copying and hasattr(model.config, "identity_size"):
            raise InputError(f"{settings.model} has a copyist already; leave copying out")
        if settings.copying and hasattr(model.config, "solved_layers"):
            raise InputError(
                f"{settings.model} has a masking layer, which has to be the last one; leave "
                "copying out"
            )
        if settings.copying:
            model = add_copying(model, layout, practice)
        if settings.masking:
            model = add_masking(model, layout, practice)
    else:
        tokenizer = make_tokenizer(
            [gene for gene, share in zip(practice.genes, listed, strict=True) if share >= _LISTED],
            sources.types,
            _words(practice),
            settings.vocabulary,
        )
        layout = Layout(tokenizer, practice, telling)
        model = new_model(
            tokenizer, hidden=settings.hidden, layers=settings.layers, heads=settings.heads,
            context=settings.context, seed=settings.seed,
        )  # fmt: skip
        if settings.from_tables:
            start_from(model, layout, settings.from_tables)
    return Trainer(
        model.to(device), layout, practice, settings.stages, settings.learning_rate, folder,
        workers=settings.workers,
    )  # fmt: skip


def _words(practice: Practice) -> list[str]:
    """Return the training texts of the tokenizer: names of types, contexts, parts of prompts."""
    sources = practice.sources
    contexts = [practice.draw(_FAR_STEP, i, Size(2, 5, 0)).context for i in range(_CONTEXTS)]
    contexts += [group.context for group in sources.lists]
    names = [name for known in (*sources.names, *sources.wider) for name in known]
    around = ["Context: These", "Cell 1 is x or y: ", "assistant\n", "system\n", "user\n", "a | b",
              "\n\n", ", and"]  # fmt: skip
    return [*sources.words, *sources.types * 3, *names, *practice.genes, *contexts,
            *around * _OFTEN]  # fmt: skip


def _publish(trainer: Any, sources: Sources, record: dict[str, Any], final: Path) -> None:
    """Write the model folder atomically."""
    record = {
        **record,
        "tables": [table.name for table in sources.tables],
        "donors": sorted({group.name for group in sources.lists}),
        "types": len(sources.types),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "steps": trainer.step,
        "tokens": trainer.tokens,
    }
    with appearing(final) as part:
        trainer.model.cpu().save_pretrained(part)
        trainer.layout.tokenizer.save_pretrained(part)
        write_json(part / RECORD, record)
        write_atomic(part / "README.md", model_card(record, "bsd-3-clause").encode())
    (final.parent / STATE).unlink(missing_ok=True)
