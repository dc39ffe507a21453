"""A base model from scratch, small enough to be trained in seconds."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import cello1
from cello1.errors import InputError
from cello1.recipes import BaseModelSettings, Stage
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.training.base.base import SOURCES, base
from cello1.training.base.pretrain import Trainer, sees

EASY = Stage(steps=8, cells=(2, 3), genes=(4, 8), distractors=2, plain=True, batch_tokens=512)
FULL = Stage(steps=6, cells=(3, 4), genes=(8, 20), written=0.5, batch_tokens=1_024)


def settings(tables, **more):
    small = {"hidden": 32, "layers": 2, "heads": 2, "vocabulary": 700, "stages": (EASY, FULL)}
    return BaseModelSettings(**{**tables, **small, **more})


@pytest.fixture
def tables(profiles, toys, tmp_path):
    """What a base model learns from: one table of profiles, and puzzles of real cells."""
    cello1.write_puzzles(toys, tmp_path / "train.parquet")
    return {"profiles": (str(profiles),), "puzzles": (str(tmp_path / "train.parquet"),)}


def weights(run):
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def steps_logged(run):
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_model_loads_rates_and_says_what_it_learned_from(tables, toys, tmp_path):
    folder = base(settings(tables), tmp_path / "run")
    record = json.loads((folder / "training.json").read_text())
    assert record["tables"] == ["blood_means"]
    assert record["donors"] == [f"d{i}" for i in range(5)]
    card = (folder / "README.md").read_text("utf-8")
    assert "blood_means" in card
    assert f"{record['parameters']:,} parameters, trained from scratch" in card
    solver = LikelihoodSolver(LanguageModel(folder))
    scores = solver.scores(toys[0])
    # Log-probabilities among what is on offer.
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_it_learns_to_look_up_and_to_write(tables, tmp_path):
    stages = (
        EASY.model_copy(update={"steps": 60, "genes": (30, 50)}),
        FULL.model_copy(update={"steps": 40, "written": 1.0}),
    )
    given = settings(tables, stages=stages, learning_rate=5e-3, hidden=64)
    run = base(given, tmp_path / "run").parent
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [line["look_up"] for line in log[:60]]
    assert np.mean(found[-20:]) < 0.5 * np.mean(found[:5])
    written = [line["written"] for line in log if "written" in line]
    assert np.mean(written[-5:]) < 0.85 * np.mean(written[:5])


def test_decoding_asks_what_training_asked(tables, toys, tmp_path, laid_out):
    """The likelihood decoder's scores are the very choices that the loss is taken of."""
    folder = base(settings(tables), tmp_path / "run")
    language = LanguageModel(folder)
    layout, lessons, questions = laid_out(language.tokenizer, tables)
    numbers = torch.tensor([layout.cell(i, "")[0] for i in range(1, 33)])
    from cello1.training.base.pretrain import choose, ratings

    with torch.no_grad():
        logs = choose(language.model, questions, numbers).logs
    trained = ratings(questions, [lesson for lesson, _ in lessons], logs.numpy())
    solver = LikelihoodSolver(language)
    for rating, (lesson, puzzle) in zip(trained, lessons, strict=True):
        assert lesson.prompt == [*language.prompt(puzzle)[0], *layout.think]
        assert np.allclose(rating, solver.scores(puzzle), atol=1e-4)


def test_a_question_sees_the_prompt_and_itself():
    block = torch.tensor([[0, 0, 1, 1, 2, 0]])
    assert sees(block)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_a_base_trains_on_from_another_with_its_tokenizer(tables, tmp_path):
    first = base(settings(tables), tmp_path / "first")
    given = {"sources": str(tmp_path / "first" / SOURCES)}
    second = base(settings(given, model=str(first), seed=1), tmp_path / "second")
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert weights(tmp_path / "second") != weights(tmp_path / "first")
    assert f"trained on from `{first}`" in (second / "README.md").read_text("utf-8")


def test_sources_stand_in_for_the_tables_and_give_the_same_weights(tables, tmp_path):
    base(settings(tables), tmp_path / "first")
    given = {"sources": str(tmp_path / "first" / SOURCES)}
    base(settings(given, workers=1), tmp_path / "second")
    assert weights(tmp_path / "second") == weights(tmp_path / "first")


def work(given, out, last=None):
    from cello1.training.base import pretrain

    def log_and_die(path, line):
        append_line(path, line)
        if line["step"] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    pretrain.CHECKPOINT_SECONDS = 0.0
    append_line, pretrain.append_line = pretrain.append_line, log_and_die
    base(given, out)


@pytest.mark.parametrize("copying", [False, True], ids=["from nothing", "with solved layers"])
def test_killed_with_9_and_resumed_it_ends_with_the_same_weights(tables, tmp_path, copying):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cello1.training.base.pretrain", "cello1.training.base.base"])
    given = settings(tables, stages=(EASY.model_copy(update={"steps": 40}), FULL))
    if copying:
        first = base(settings(tables), tmp_path / "first")
        given = settings(
            {"sources": str(tmp_path / "first" / SOURCES)}, model=str(first), copying=True,
            masking=True, stages=(FULL.model_copy(update={"steps": 20, "written": 1.0}),),
        )  # fmt: skip
    whole = context.Process(target=work, args=(given, tmp_path / "whole"))
    whole.start()
    whole.join()
    run = tmp_path / "run"
    for step in (3, 12):
        process = context.Process(target=work, args=(given, run, step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (run / "state.safetensors").exists()
        assert steps_logged(run) == list(range(1, step + 1))
    last = context.Process(target=work, args=(given, run))
    last.start()
    last.join()
    assert weights(run) == weights(tmp_path / "whole")
    log = steps_logged(run)
    assert log == list(range(1, len(log) + 1))


def test_a_full_disk_leaves_the_earlier_checkpoint(tables, tmp_path, monkeypatch):
    from cello1.training.base import pretrain

    written, times = pretrain.write_atomic, []

    def full(path, content):
        times.append(path)
        if len(times) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written(path, content)

    monkeypatch.setattr(pretrain, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pretrain, "write_atomic", full)
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"make room .* \(present: state\.safetensors\)"):
        base(settings(tables), run)
    monkeypatch.undo()
    base(settings(tables), run)
    base(settings(tables), tmp_path / "whole")
    assert weights(run) == weights(tmp_path / "whole")


def test_killed_before_the_first_checkpoint_no_step_stands_twice_in_the_log(tables, tmp_path):
    run = tmp_path / "run"

    class KilledError(Exception):
        pass

    def kill(what, share):
        if share > 0.3:
            raise KilledError

    with pytest.raises(KilledError):
        base(settings(tables), run, watch=kill)
    assert not (run / "state.safetensors").exists()
    base(settings(tables), run)
    log = steps_logged(run)
    assert log == list(range(1, len(log) + 1))


def test_a_loss_that_is_not_finite_stops_with_a_clear_error(tables, tmp_path):
    with pytest.raises(InputError, match="lower learning_rate"):
        base(settings(tables, learning_rate=1e30), tmp_path / "run")


def test_what_cannot_be_learned_from_is_refused(tables, toys, tmp_path):
    cello1.write_puzzles([replace(p, answer=None) for p in toys], tmp_path / "asked.parquet")
    with pytest.raises(InputError, match="answer"):
        base(settings({"puzzles": (str(tmp_path / "asked.parquet"),)}), tmp_path / "run")
    with pytest.raises(InputError, match="profiles"):
        base(BaseModelSettings(), tmp_path / "run2")
    with pytest.raises(InputError, match="copying: for a model that is trained further"):
        base(
            settings({"puzzles": (str(tmp_path / "asked.parquet"),)}, copying=True), tmp_path / "r"
        )
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="no sources of practice"):
        base(settings({"sources": str(tmp_path / "torn.npz")}), tmp_path / "run3")
    two = [p for p in toys if set(p.answer[:2])]
    two = [replace(p, cells=p.cells[:2], answer=p.answer[:2]) for p in two]
    two = [
        replace(p, candidates=p.answer, meta={**p.meta, "donor_id": " ".join(sorted(p.answer))})
        for p in two
    ]
    cello1.write_puzzles(two, tmp_path / "two.parquet")
    with pytest.raises(InputError, match="3 types or more"):
        base(settings({"puzzles": (str(tmp_path / "two.parquet"),)}), tmp_path / "run4")


def test_the_learning_rate_rises_and_fades(tables, tmp_path):
    trainer = object.__new__(Trainer)
    trainer.learning_rate, trainer.total, trainer.step = 1e-3, 1_000, 0
    rates = []
    for trainer.step in range(0, 1_001, 10):
        rates.append(trainer.rate())
    assert max(rates) == pytest.approx(1e-3)
    assert 0 < rates[0] < rates[1] < rates[2]
    assert rates[-1] == pytest.approx(2e-5)
