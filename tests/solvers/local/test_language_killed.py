"""500 puzzles by a language model, killed with -9 at ten random moments and resumed each time."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter

import pytest

from cello1.puzzles.table import write_puzzles
from cello1.runs import read_records
from cello1.solvers.run import solve

KILLS, PUZZLES = 10, 500


def work(file, model, run, *, ends=True):
    """What the command does, in a process of its own."""
    from cello1.solvers.local.language import LanguageModel, LanguageSolver

    def watch(done, total):
        if not ends and done == total - 1:
            time.sleep(60)  # so that the blow finds it alive

    solve(file, LanguageSolver(LanguageModel(model), max_new_tokens=40), run, watch=watch)


@pytest.fixture(scope="module")
def start():
    """Start a worker; a server that has loaded torch already forks it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cello1.solvers.local.language", "cello1.solvers.run"])

    def call(*arguments, **how):
        process = context.Process(target=work, args=arguments, kwargs=how, daemon=True)
        process.start()
        return process

    return call


def lines(run):
    path = run / "responses.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def said(run):
    """Return everything a run recorded but the time it took, in the order of the ids."""
    records = sorted(read_records(run), key=lambda r: r["id"])
    for record in records:
        del record["seconds"]
    return json.dumps(records, ensure_ascii=False).encode()


def test_ten_kills_lose_nothing_double_nothing_and_change_no_byte(start, toy, tiny_model, tmp_path):
    file, run = tmp_path / "puzzles.parquet", tmp_path / "run"
    write_puzzles([toy(seed, f"d{seed % 5}") for seed in range(PUZZLES)], file)
    dice = random.Random(0)
    moments = sorted(dice.sample(range(PUZZLES), KILLS))
    for moment in moments:
        process = start(file, tiny_model, run, ends=False)
        while process.is_alive() and lines(run) < moment:
            time.sleep(0.001)
        time.sleep(dice.random() / 20)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert lines(run) < PUZZLES
    last = start(file, tiny_model, run)
    last.join()
    assert last.exitcode == 0
    counts = Counter(record["id"] for record in read_records(run))
    assert len(counts) == PUZZLES
    assert set(counts.values()) == {1}
    whole = start(file, tiny_model, tmp_path / "whole")
    whole.join()
    assert said(run) == said(tmp_path / "whole")
