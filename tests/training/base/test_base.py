"""A base model from scratch, small enough to be trained in seconds."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cello1
from cello1.errors import InputError
from cello1.puzzles.prompt import messages
from cello1.recipes import BaseModelSettings, Stage
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.local.language import LanguageModel
from cello1.training.base.base import base
from cello1.training.base.pretrain import CELL_WEIGHT, encode, loss_of, new_model
from cello1.training.base.stream import Stream, shorten
from cello1.training.base.tokens import make_tokenizer

STAGE = Stage(tokens=4_000, cells=(2, 3), genes=(2, 4), distractors=1, batch_tokens=512)
FULL = Stage(tokens=4_000, cells=(4, 4), genes=(50, 50), batch_tokens=1_024)


def settings(file, **more):
    small = {"hidden": 32, "layers": 2, "heads": 2, "vocabulary": 700, "stages": (STAGE, FULL)}
    return BaseModelSettings(puzzles=(str(file),), **(small | more))


@pytest.fixture
def file(toys, tmp_path):
    cello1.write_puzzles(toys, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


@pytest.fixture
def stream(toys):
    return Stream([toys], [Centroids(toys)], 0)


def test_drawn_puzzles_keep_to_their_donor_and_are_solved_by_their_response(toys, stream):
    genes = {}
    for toy in toys:
        for label, cell in zip(toy.answer, toy.cells, strict=True):
            genes.setdefault((toy.meta["donor_id"], label), set()).update(cell)
    donors = sorted({donor for donor, _ in genes})
    for step in range(20):
        for puzzle, response in stream.batch(step, FULL):
            assert cello1.score(puzzle, response).exact
            cells = list(zip(puzzle.answer, puzzle.cells, strict=True))
            assert any(
                all(set(cell) <= genes.get((donor, label), set()) for label, cell in cells)
                for donor in donors
            )


def test_short_lists_keep_their_order_and_hold_telling_genes(toys, stream):
    for puzzle, _ in stream.batch(0, STAGE):
        assert 2 <= len(puzzle.cells) <= 3
        assert len(puzzle.candidates) <= len(puzzle.cells) + 1
        assert all(2 <= len(cell) <= 4 for cell in puzzle.cells)
    for seed, toy in enumerate(toys):
        cell, telling = toy.cells[0], toy.cells[0][-2:]
        short = shorten(cell, telling, 4, np.random.default_rng(seed))
        assert [gene for gene in cell if gene in short] == list(short)
        assert len(short) == 4
        assert set(telling) <= set(short)


def test_a_base_goes_on_from_another_with_its_tokenizer(file, tmp_path):
    first = base(settings(file), tmp_path / "first")
    second = base(settings(file, model=str(first), seed=1), tmp_path / "second")
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert (second / "config.json").read_bytes() == (first / "config.json").read_bytes()
    weights = [load_file(folder / "model.safetensors") for folder in (first, second)]
    moved = [float((weights[1][k] - weights[0][k]).abs().mean()) for k in weights[0]]
    # It learned, and stayed nearer to its start than random weights would be.
    assert 0 < max(moved) < float(weights[0]["model.embed_tokens.weight"].std())
    assert f"trained on from `{first}`" in (second / "README.md").read_text("utf-8")
    assert "trained from scratch" in (first / "README.md").read_text("utf-8")


def test_in_blind_puzzles_genes_say_nothing_and_every_type_comes_once(toys, stream):
    blind = STAGE.model_copy(update={"blind": True, "order": "listed", "genes": (3, 3)})
    met = {}
    for step in range(60):
        for puzzle, response in stream.batch(step, blind):
            assert cello1.score(puzzle, response).exact
            assert len(set(puzzle.answer)) == len(puzzle.cells)
            assert all(len(cell) == 3 and set(cell) <= set(stream.common) for cell in puzzle.cells)
            for label, cell in zip(puzzle.answer, puzzle.cells, strict=True):
                met.setdefault(label, set()).update(cell)
    # Sooner or later any gene stands beside any type.
    assert all(genes == set(stream.common) for genes in met.values())


def test_drafts_may_err_where_the_answer_does_not(toys, stream):
    drafted = FULL.model_copy(update={"order": "drafted"})
    right = []
    for step in range(40):
        for puzzle, response in stream.batch(step, drafted):
            assert cello1.score(puzzle, response).exact
            drafts = response.split("\n")[1 : len(puzzle.cells) + 1]
            firsts = [d.split(" or ")[0] for d in drafts]
            right += [d.endswith(x) for d, x in zip(firsts, puzzle.answer, strict=True)]
    assert 0.5 < sum(right) / len(right) < 1


def test_a_batch_depends_on_seed_and_step_alone(toys, stream):
    stream.batch(3, FULL)
    again = Stream([toys], [Centroids(toys)], 0)
    assert again.batch(7, STAGE) == stream.batch(7, STAGE)
    assert again.batch(8, STAGE) != stream.batch(7, STAGE)


def test_the_tokenizer_is_exact_and_a_gene_a_cell_a_type_and_a_tag_are_one_token(toys, stream):
    examples = stream.batch(0, FULL)
    words = make_tokenizer(toys, [r for _, r in examples], 900)
    for puzzle, response in examples:
        for text in [m.content for m in messages(puzzle)] + [response, "ungesehen: β-Zelle | 你好"]:
            assert words.decode(words.encode(text, add_special_tokens=False)) == text
        pieces = [words.decode([i]) for i in words.encode(response, add_special_tokens=False)]
        for piece in ("Cell 1", "<think>", "</think>", "<answer>", "</answer>", *puzzle.answer):
            assert piece in pieces
    assert len(words.encode("MS4A1, ", add_special_tokens=False)) == 1
    assert "Match the cells above to one of the following cell types:" in words.get_vocab()


def test_the_loss_counts_the_response_and_the_prompt_is_that_of_the_solver(
    toys, stream, file, tmp_path
):
    folder = base(settings(file), tmp_path / "run")
    language = LanguageModel(folder)
    examples = stream.batch(0, FULL)
    batch = encode(language.tokenizer, examples)
    for (puzzle, response), ids, weights in zip(examples, *batch, strict=True):
        prompt, _ = language.prompt(puzzle)
        assert ids[: len(prompt)].tolist() == prompt
        assert (weights[: len(prompt)] == 0).all()
        assert language.vocabulary.text(ids[weights > 0].tolist()) == response + "<|im_end|>"
        telling = [language.vocabulary.text([i]) for i in ids[weights == 1].tolist()]
        assert set(puzzle.answer) <= set(telling)
        assert all(t in puzzle.answer or t.endswith(", ") for t in telling)
        cells = [language.vocabulary.text([i]) for i in ids[weights == CELL_WEIGHT].tolist()]
        assert set(cells) == {f"Cell {i}" for i in range(1, len(puzzle.cells) + 1)}
    logits = language.model(input_ids=batch.ids).logits[:, :-1].log_softmax(-1)
    logs = logits.gather(-1, batch.ids[:, 1:, None])[..., 0]
    mean = -(logs * batch.weights[:, 1:]).sum() / batch.weights[:, 1:].sum()
    assert torch.allclose(loss_of(language.model, batch), mean, atol=1e-5)


def test_of_drills_only_the_genes_count_and_each_is_listed_by_its_cell(stream, toys):
    words = make_tokenizer(toys, [], 700)
    drill = STAGE.model_copy(update={"drill": True})
    examples = stream.batch(1, drill)
    for asked, said in examples:
        cells = dict(line.split(": ") for line in asked.strip().split("\n"))
        for line in said.strip().split("\n"):
            cell, genes = line.split(": ")
            assert set(genes.strip(" ,").split(", ")) <= set(cells[cell].split(", "))
    batch = encode(words, examples)
    for ids, weights in zip(*batch, strict=True):
        counted = words.decode(ids[weights > 0])
        assert counted
        assert "Cell" not in counted
        assert set(weights.tolist()) == {0.0, 1.0}


def test_puzzles_have_the_cells_wanted_where_a_source_has_as_many(toys):
    most = len(toys[0].cells)
    few = [replace(p, cells=p.cells[:-1], answer=p.answer[:-1]) for p in toys]
    stream = Stream([few, toys], [Centroids(few), Centroids(toys)], 0)
    large = Stage(tokens=1, cells=(most, most), genes=(50, 50), batch_tokens=4_096)
    assert {len(p.cells) for step in range(5) for p, _ in stream.batch(step, large)} == {most}
    larger = large.model_copy(update={"cells": (most + 1, most + 1)})
    assert max(len(p.cells) for p, _ in stream.batch(0, larger)) == most


def test_it_learns(file, stream, tmp_path):
    longer = STAGE.model_copy(update={"tokens": 120_000})
    run = base(settings(file, stages=(longer,), learning_rate=5e-3), tmp_path / "run").parent
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def weights(run):
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def work(given, out):
    from cello1.training.base import pretrain

    torch.set_num_threads(1)
    pretrain.CHECKPOINT_SECONDS = 0.05
    base(given, out)


def test_killed_with_9_and_resumed_it_ends_with_the_same_weights(file, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cello1.training.base.pretrain", "cello1.training.base.base"])
    given = settings(file, stages=(STAGE.model_copy(update={"tokens": 40_000}), FULL))
    whole = context.Process(target=work, args=(given, tmp_path / "whole"))
    whole.start()
    whole.join()
    run = tmp_path / "run"
    for kill in range(2):
        process = context.Process(target=work, args=(given, run))
        process.start()
        while process.is_alive() and not (run / "state.safetensors").exists():
            time.sleep(0.005)
        time.sleep(0.2 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert (run / "state.safetensors").exists()
    last = context.Process(target=work, args=(given, run))
    last.start()
    last.join()
    assert weights(run) == weights(tmp_path / "whole")
    log = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert log == list(range(1, len(log) + 1))


def test_a_full_disk_leaves_the_earlier_checkpoint(file, tmp_path, monkeypatch):
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
    with pytest.raises(InputError, match=r"make room .* \(there: state\.safetensors\)"):
        base(settings(file), run)
    monkeypatch.undo()
    base(settings(file), run)
    base(settings(file), tmp_path / "whole")
    assert weights(run) == weights(tmp_path / "whole")


def test_killed_before_the_first_checkpoint_no_step_stands_twice_in_the_log(file, tmp_path):
    run = tmp_path / "run"

    class KilledError(Exception):
        pass

    def kill(what, share):
        if share > 0.3:
            raise KilledError

    with pytest.raises(KilledError):
        base(settings(file), run, watch=kill)
    assert not (run / "state.safetensors").exists()
    base(settings(file), run)
    log = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert log == list(range(1, len(log) + 1))


def test_a_loss_that_is_no_number_stops_with_a_clear_error(file, tmp_path):
    with pytest.raises(InputError, match="lower learning_rate"):
        base(settings(file, learning_rate=1e30), tmp_path / "run")


def test_puzzles_without_answers_are_refused(toys, tmp_path):
    from dataclasses import replace

    cello1.write_puzzles([replace(p, answer=None) for p in toys], tmp_path / "asked.parquet")
    with pytest.raises(InputError, match="answers"):
        base(settings(tmp_path / "asked.parquet"), tmp_path / "run")
    with pytest.raises(InputError, match="puzzles"):
        base(BaseModelSettings(), tmp_path / "run2")


def test_types_and_genes_never_seen_can_still_be_spelled(toys):
    words = make_tokenizer(toys, [], 700)
    model = new_model(settings("x"), words)
    assert model.config.vocab_size == len(words)
    ids = words.encode("gamma-delta T cell | NEVERSEEN7, ", add_special_tokens=False)
    assert words.decode(ids) == "gamma-delta T cell | NEVERSEEN7, "
