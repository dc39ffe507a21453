"""GRPO killed with SIGKILL at five random moments: same steps, same weights, no checkpoint lost."""

import json
import multiprocessing
import os
import random
import signal
import time

import torch
from rl_toys import toy_files, toy_rl

from cello1.training.rl.rl import rl
from cello1.training.run.checkpoints import checkpoints

MODULES = ["cello1.training.rl.trl.trainer", "rl_toys", "datasets", "peft"]


def work(settings, out, *, ends=True):
    def watch(what, share):
        if not ends and (what, share) == ("steps", 1.0):
            time.sleep(60)  # within the last step, so that the blow finds it alive

    torch.set_num_threads(1)
    rl(settings, out, watch=watch)


def steps_in(run):
    """Return the steps that a log has, whole lines only."""
    try:
        text = (run / "log.jsonl").read_text()
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    return [line["step"] for line in lines if "loss" in line]


def test_killed_with_9_at_five_random_moments_it_ends_as_if_nothing_had_been(tmp_path):
    files = toy_files(tmp_path)
    settings = toy_rl(*files, method="full", no_signal="drop")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)

    def begin(run, **how):
        process = context.Process(target=work, args=(settings, run), kwargs=how, daemon=True)
        process.start()
        return process

    whole, run = tmp_path / "whole", tmp_path / "run"
    begin(whole).join()
    assert steps_in(whole) == list(range(1, 9))
    dice, kept = random.Random(7), -1
    for _ in range(5):
        process = begin(run, ends=False)
        goal = dice.randrange(1, 8)
        while process.is_alive() and max(steps_in(run), default=0) < goal:
            time.sleep(0.005)
        time.sleep(dice.random() * 0.3)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = [int(path.name.split("-")[1]) for path in checkpoints(run / "checkpoints")]
        assert max(found, default=0) >= kept
        kept = max(found, default=0)
    assert max(steps_in(run)) < 8
    last = begin(run)
    last.join()
    assert last.exitcode == 0
    assert steps_in(run) == steps_in(whole)
    name = "model/model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()
