"""Attack every verb, and count what goes wrong: kill, stop, fill, damage and deceive.

Run ``python benchmarks/attack.py [--scale 0.1] [--only NAME ...] [--seed 0]`` on Linux. At scale 1
every verb that writes is killed 12 times and 1,000 damaged files are read; a smaller scale tries
less of everything. Prints a table with a row per attack and one line for everything that went
wrong, and ends with status 1 if anything did; ``--out docs/reliability.md`` puts the table there.

* tried: attacks, of all verbs together;
* lost, doubled: results that an undisturbed run has and the disturbed one lacks or has twice, once
  it has been resumed;
* processes, files: what is left running, or lying, when it should not;
* tracebacks, secrets: what users must never see, and what no file or terminal must ever show;
* other: another exit status than promised, more than one line, code that ran, a file touched.

Puzzles, cells, models and servers are toys made on the spot: what is attacked is the real command,
in a process of its own. Most of the time of such a command is that of importing torch and TRL,
where there is nothing to lose; verbs without workers are therefore forked from a process that has
imported everything and done nothing else. Those with workers start from the beginning, and so does
everything without rights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
TESTS = [str(ROOT / "tests" / part) for part in ("", "solvers", "training")]
sys.path += TESTS

import cello1 as co  # noqa: E402
from cello1.errors import InputError  # noqa: E402

FAULTS = ("lost", "doubled", "processes", "files", "tracebacks", "secrets", "other")
KEY, PASSWORD = "sk-attack-4711-never-shown", "pass-attack-0815-never-shown"
NOBODY = 65_534
PATIENCE = 300.0  # seconds after which a command hangs
MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B", "BANK1"],
    "classical monocyte": ["LYZ", "CD14", "S100A8", "VCAN"],
    "platelet": ["PPBP", "PF4", "GP9", "TUBB1"],
    "natural killer cell": ["NKG7", "GNLY", "KLRD1", "PRF1"],
    "CD4-positive, alpha-beta T cell": ["CD3D", "CD3E", "TRAC", "IL7R"],
}
# What the verbs import: once, in a process from which they are forked.
WARM = [
    "torch", "transformers", "trl", "peft", "datasets", "scanpy", "sklearn.neighbors", "igraph",
    "matplotlib.pyplot", "h5py", "cello1.cli.app", "cello1.annotate.run", "cello1.atlas.build",
    "cello1.behaviour.measures", "cello1.cells.simulate", "cello1.interop.hub",
    "cello1.report.page", "cello1.solvers.run", "cello1.solvers.endpoint.solver",
    "cello1.solvers.classical.centroids", "cello1.training.base.pretrain", "cello1.training.merge",
    "cello1.training.rl.trl.trainer", "cello1.training.sft.trainer",
]  # fmt: skip
IS_THERE = "exists and is not empty; choose another --out"  # of verbs that overwrite nothing
BEGIN, END = "<!-- attack.py --out writes from here -->\n", "<!-- to here -->\n"


@dataclass
class Row:
    """What one attack tried, and what went wrong."""

    name: str
    verb: str = ""
    tried: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def blame(self, kind: str, what: str, times: int = 1) -> None:
        """Count a fault and keep a line about it."""
        self.faults[kind] += times
        self.notes.append(f"{self.full_name}: {kind}: {what}")

    @property
    def full_name(self) -> str:
        """The attack, and the verb where it is on one."""
        return f"{self.name} of {self.verb}" if self.verb else self.name


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str
    seconds: float = 0.0
    begun: float = 0.0  # seconds until it had written something

    @property
    def said(self) -> str:
        """Everything that was printed."""
        return self.out + self.err


@dataclass
class Verb:
    """A command under attack, and what it does when it is left alone."""

    name: str
    arguments: list[str]  # {box} stands for a folder of its own
    alone: Done | None = None
    result: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    given: Path | None = None  # a run that is copied there as `r`, because the verb writes into it

    @property
    def is_warm(self) -> bool:
        """Whether it may be forked: it starts no workers, which would import this program."""
        return "--workers" not in self.arguments

    def fill(self, box: Path) -> Path:
        """Put into a folder what the verb finds there."""
        if self.given:
            shutil.copytree(self.given, box / "r")
        return box


@dataclass
class Ground:
    """Where the attacks are made, and with what."""

    folder: Path
    scale: float
    seed: int
    name: str = "toys"

    def __post_init__(self) -> None:
        """Seed by the name, so that an attack alone does what it does among the others."""
        self.rng = random.Random(f"{self.seed} {self.name}")
        self.temporary = self.folder / f"tmp-{self.name}"
        self.temporary.mkdir(exist_ok=True)

    def times(self, whole: int, least: int = 1) -> int:
        """Return how many trials of `whole` there are at this scale."""
        return max(least, round(whole * self.scale))

    def box(self) -> Path:
        """Make a folder for one trial."""
        return Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{self.name}-"))


# ---- Commands: started as users start them, in a session of their own.


def environment(ground: Ground, **more: str) -> dict[str, str]:
    """Return the environment of a command: no network, one thread, own temporary files."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *TESTS]),
        "TMPDIR": str(ground.temporary),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "COLUMNS": "120",
        **more,
    }


class Forked:
    """A command forked from a process that has imported everything; as `subprocess.Popen`."""

    def __init__(self, *told: Any) -> None:
        self.process = get_context("forkserver").Process(target=become, args=told)
        self.process.start()
        self.pid: int = self.process.pid or 0

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.exitcode

    def wait(self) -> int:
        """Wait for the exit status."""
        self.process.join()
        return self.process.exitcode or 0

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()


def become(
    arguments: list[str], env: dict[str, str], out: str, err: str, limit: int | None = None
) -> None:
    """Be the command: this process is that of a fork, and ends with it."""
    status = 70
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(env)
        tempfile.tempdir = None
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            opened = os.open(path, os.O_RDWR)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        sys.argv = ["cello1", *arguments]
        if limit:
            limit_files(limit)
        from cello1.cli import main

        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


class Running:
    """A command that runs, and what it prints."""

    def __init__(
        self,
        ground: Ground,
        arguments: list[str],
        box: Path,
        *,
        warm: bool = False,
        before: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> None:
        self.box, self.began = box, time.monotonic()
        line = [a.replace("{box}", str(box)) for a in arguments]
        self.said = [tempfile.NamedTemporaryFile("w+", dir=ground.folder) for _ in range(2)]  # noqa: SIM115
        self.process: Any
        if warm:
            self.process = Forked(line, environment(ground), *(f.name for f in self.said), limit)
        else:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "cello1", *line], stdin=subprocess.DEVNULL,
                stdout=self.said[0], stderr=self.said[1], env=environment(ground),
                start_new_session=True, preexec_fn=partial(limit_files, limit) if limit else None,
            )  # fmt: skip

    def wait(self, seconds: float = PATIENCE) -> Done:
        """Wait for the end, and note when the first result appeared."""
        begun = 0.0
        while self.process.poll() is None and time.monotonic() - self.began < seconds:
            if not begun and any(self.box.rglob("*")):
                begun = time.monotonic() - self.began
            time.sleep(0.02)
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        status: int = self.process.wait()
        took = time.monotonic() - self.began
        said = [Path(file.name).read_text(errors="replace") for file in self.said]
        for file in self.said:
            file.close()
        return Done(status, said[0], said[1], took, begun)

    def wait_until(self, share: float, alone: Done) -> bool:
        """Wait until a share of the time between first result and end is over; False: it ended."""
        while not any(self.box.rglob("*")) and self.process.poll() is None:
            time.sleep(0.005)
        end = time.monotonic() + share * max(alone.seconds - alone.begun, 0.05)
        while time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.005)
        return self.process.poll() is None

    def left(self, seconds: float) -> list[int]:
        """Return the processes of the session that still run after so many seconds; end them."""
        end = time.monotonic() + seconds
        while (found := session(self.process.pid)) and time.monotonic() < end:
            time.sleep(0.02)
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return found


def session(leader: int) -> list[int]:
    """Return the processes of a session, without those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found


def run(ground: Ground, arguments: list[str], box: Path, **more: Any) -> Done:
    """Run a command to its end."""
    return Running(ground, arguments, box, **more).wait()


def forked(ground: Ground, arguments: list[str], seconds: int = 60, **env: str) -> Done:
    """Run a command in a fork of this process: as good for input, and much faster."""
    with (
        tempfile.NamedTemporaryFile("w+", dir=ground.folder) as out,
        tempfile.NamedTemporaryFile("w+", dir=ground.folder) as err,
    ):
        began, child = time.monotonic(), os.fork()
        if not child:
            become(arguments, environment(ground, **env), out.name, err.name)
        status = None
        while status is None and time.monotonic() - began < seconds:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if ended else None
            time.sleep(0.01)
        if status is None:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = [Path(file.name).read_text(errors="replace") for file in (out, err)]
        return Done(status, *said, time.monotonic() - began)


# ---- What a command left, compared with what it leaves when nobody disturbs it.


def outcome(box: Path) -> dict[str, Any]:
    """Return what lies in a folder: ids of records, hashes of results, names of all else."""
    found: dict[str, Any] = {}
    for path in sorted(box.rglob("*")):
        name = str(path.relative_to(box))
        if path.is_dir() or path.name.endswith(".lock"):
            continue
        if path.suffix == ".jsonl":
            found[name] = Counter(record_names(path))
        elif path.suffix in (".parquet", ".safetensors", ".npz", ".h5ad"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = None
    return found


def record_names(path: Path) -> Iterator[str]:
    """Yield what each line of a log or of responses is about."""
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if "id" in record:
            yield f"{record['id']} {record.get('sample', '')}"
        elif "loss" in record:
            yield f"step {record['step']}"


def compare(row: Row, verb: Verb, box: Path, ground: Ground) -> None:
    """Blame whatever differs from the result of the undisturbed run."""
    found = outcome(box)
    for name in sorted(verb.result.keys() - found.keys()):
        row.blame("lost", f"{verb.name} has no {name}")
    for name in sorted(found.keys() - verb.result.keys()):
        row.blame("files", f"{verb.name} left {name}")
    for name in sorted(found.keys() & verb.result.keys()):
        expected, there = verb.result[name], found[name]
        if isinstance(expected, Counter):
            if missing := expected - there:
                row.blame("lost", f"{verb.name}, {name}: {len(missing)} records", len(missing))
            if more := there - expected:
                row.blame("doubled", f"{verb.name}, {name}: {len(more)} records", len(more))
        elif expected != there:
            row.blame("lost", f"{verb.name}: {name} is another")
    for left in ground.temporary.iterdir():
        row.blame("files", f"{verb.name} left {left.name} among temporary files")
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def hear(row: Row, verb: Verb, done: Done, statuses: tuple[int, ...], lines: int = 1) -> None:
    """Blame an exit status that is not promised, tracebacks, and more than one new line."""
    usual = set(verb.alone.err.splitlines()) if verb.alone else set()
    new = [line for line in done.err.splitlines() if line.strip() and line not in usual]
    listened(row, verb.name, done)
    if done.status not in statuses:
        row.blame("other", f"{verb.name} ended with {done.status}: {' / '.join(new)[-300:]}")
    elif done.status and len(new) > lines and "Traceback" not in done.err:
        row.blame("other", f"{verb.name} said {len(new)} lines: {' / '.join(new)[-300:]}")


def listened(row: Row, name: str, done: Done) -> None:
    """Blame tracebacks, faults of our own and secrets in what was printed."""
    if "Traceback (most" in done.said or "fault of cello1" in done.said:
        row.blame("tracebacks", f"{name}: {' / '.join(done.said.strip().splitlines()[-3:])[-400:]}")
    if KEY in done.said or PASSWORD in done.said:
        row.blame("secrets", f"{name} prints one")


def finish(row: Row, verb: Verb, ground: Ground, box: Path) -> None:
    """Run the same command to its end and compare the results."""
    done = run(ground, verb.arguments, box, warm=verb.is_warm)
    if not (done.status == 1 and IS_THERE in done.err):  # then all was done: see compare()
        hear(row, verb, done, (0,))
    compare(row, verb, box, ground)
    shutil.rmtree(box)


# ---- What is attacked.


def make_verbs(ground: Ground, url: str) -> dict[str, Verb]:
    """Make toys on the spot and return the commands that work on them; `url` is a sound server."""
    from rl_toys import toy_files
    from sft_toys import toy_traces

    from cello1.training.run.traces import write_traces

    toys = ground.folder / "toys"
    toys.mkdir()
    noise = [f"RPL{i}" for i in range(30)] + [f"ACTB{i}" for i in range(60)]
    genes = [*noise, *(gene for own in MARKERS.values() for gene in own)]
    rng = np.random.default_rng(ground.rng.randrange(2**32))
    profiles = pd.DataFrame(
        {
            t: np.where(np.isin(genes, own), 12, np.where(np.isin(genes, noise), 2, 0.02))
            * rng.uniform(0.8, 1.2, len(genes))
            for t, own in MARKERS.items()
        },
        index=pd.Index(genes, name="gene"),
    )
    profiles.reset_index().to_parquet(toys / "profiles.parquet")
    cells = []
    for i in range(4):
        data = co.simulate(profiles, donors=4, cells_per_type=30, seed=i)
        data.obs["cluster"] = data.obs["cell_type"].astype(str).astype("category").cat.codes
        data.obs["cluster"] = data.obs["cluster"].astype(str)
        data.obs["donor_id"] = f"f{i}-" + data.obs["donor_id"].astype(str)
        cells.append(toys / f"cells{i}.h5ad")
        data.write_h5ad(cells[-1])
    build = ["--split", "donor", "--n-min", "3", "--n-max", "5", "--min-genes", "5"]
    co_build = ["build", *map(str, cells), "--out", str(toys / "built"), *build, "--per-n", "60"]
    ready = run(ground, co_build, toys)
    if ready.status:
        raise SystemExit(f"the toys cannot be built: {ready.err}")
    model, puzzles = toy_files(toys)
    write_traces(toy_traces(), toys / "traces.parquet")
    sections: dict[str, Any] = {
        "base": {
            "profiles": [str(toys / "profiles.parquet")], "hidden": 32, "layers": 2, "heads": 2,
            "vocabulary": 700,
            "stages": [{"steps": 12, "cells": [2, 4], "genes": [4, 8], "batch_tokens": 512}],
        },
        "sft": {
            "model": str(model), "traces": [str(toys / "traces.parquet")], "rank": 4, "alpha": 8,
            "solve": 2, "max_new_tokens": 8, "max_length": 1024,
            "trainer": {"num_train_epochs": 3, "per_device_train_batch_size": 4,
                        "gradient_accumulation_steps": 1, "learning_rate": 1e-3,
                        "logging_steps": 1, "save_steps": 2},
        },
        "rl": {
            "model": str(model), "puzzles": [str(puzzles)], "reward": "rl_toys.ended", "rank": 4,
            "alpha": 8, "evaluate_every": 2, "solve": 2, "max_new_tokens": 8, "held_out": 0.2,
            "trainer": {"num_generations": 4, "per_device_train_batch_size": 8,
                        "gradient_accumulation_steps": 2, "max_completion_length": 8,
                        "learning_rate": 1e-3, "max_steps": 8},
        },
    }  # fmt: skip
    sections["atlas"] = {
        "sources": [{"name": "toy", "profiles": str(toys / "profiles.parquet")}], "draws": 400,
    }  # fmt: skip
    recipe = toys / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(sections))
    built, solve = str(toys / "built"), ["--split", "train", "--solver"]
    for line in (
        ["solve", built, "--solver", "markers", "--out", str(toys / "r")],
        ["solve", built, "--solver", "chance", "--out", str(toys / "chance")],
        ["sft", str(recipe), "--out", str(toys / "tuned")],
    ):
        ready = run(ground, line, toys, warm=True)
        if ready.status:
            raise SystemExit(f"the toys cannot be made: {ready.err[-2000:]}")
    few = toys / "few.parquet"
    co.write_puzzles(co.read_puzzles(toys / "built/test.parquet")[:40], few)
    lines = {
        "build": ["build", *map(str, cells), *build, "--per-n", "200", "--workers", "2",
                  "--out", "{box}/out"],
        "sft": ["sft", str(recipe), "--out", "{box}/out"],
        "rl": ["rl", str(recipe), "--out", "{box}/out"],
        "base": ["base", str(recipe), "--out", "{box}/out"],
        "annotate": ["annotate", str(cells[0]), "--groupby", "cluster", "-o", "{box}/out.h5ad"],
        "solve": ["solve", built, *solve, "markers", "--out", "{box}/out"],
        "solve by a server": ["solve", str(few), "--solver", "openai:m", "--base-url", url,
                              "--out", "{box}/out"],
        "distill": ["distill", built, "--teacher", "centroids", "--samples", "2",
                    "--out", "{box}/out"],
        "report": ["report", str(toys / "r"), "-o", "{box}/page.html"],
        "merge": ["merge", str(toys / "tuned"), "--out", "{box}/out"],
        "simulate": ["simulate", str(toys / "profiles.parquet"), "--donors", "4",
                     "--out", "{box}/out"],
        "cross": ["cross", str(toys / "built/train.parquet"), "--out", "{box}/x.parquet"],
        "atlas build": ["atlas", "build", str(recipe), "--out", "{box}/out"],
        "export": ["export", "hub", built, "--repo", "toy/puzzles", "--out", "{box}/out"],
        "rate": ["rate", str(toys / "r"), str(toys / "chance"), "--out", "{box}/out"],
        "eval": ["eval", "{box}/r"],
        "behaviour": ["behaviour", "{box}/r"],
    }  # fmt: skip
    inside = ("eval", "behaviour")
    return {
        name: Verb(name, line, given=toys / "r" if name in inside else None)
        for name, line in lines.items()
    }


def leave_alone(verb: Verb, ground: Ground) -> None:
    """Run a command undisturbed once, to know what it makes, says and takes."""
    if verb.alone:
        return
    box = verb.fill(ground.box())
    before = weigh(box)
    alone = run(ground, verb.arguments, box, warm=verb.is_warm)
    if alone.status:
        raise RuntimeError(f"{verb.name} fails when it is left alone: {alone.err[-2000:]}")
    verb.result, verb.size = outcome(box), weigh(box) - before
    verb.alone = alone
    shutil.rmtree(box)


def weigh(box: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in box.rglob("*") if path.is_file())


# ---- Attacks on what runs.


def killed(ground: Ground, verb: Verb) -> Row:
    """SIGKILL at random moments, several times on one folder, then to the end."""
    row, box, fresh = Row("SIGKILL", verb.name), verb.fill(ground.box()), True
    for i in range(ground.times(12, 2)):
        running, fresh = Running(ground, verb.arguments, box, warm=verb.is_warm), False
        ended = not running.wait_until(ground.rng.random(), verb.alone)
        running.process.kill()
        running.wait()
        row.tried += 1
        if left := running.left(5):
            row.blame("processes", f"{verb.name} left {len(left)}", len(left))
        if ended or i % 4 == 3:
            finish(row, verb, ground, box)
            box, fresh = verb.fill(ground.box()), True
    if not fresh:
        finish(row, verb, ground, box)
    return row


def stopped(ground: Ground, verb: Verb) -> Row:
    """SIGTERM, and SIGINT to the process alone (a notebook) or to the whole group (Ctrl-C)."""
    row = Row("SIGTERM, SIGINT", verb.name)
    kinds = [(signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGINT, True, 130)]
    for sent, to_group, status in kinds * ground.times(2):
        box = verb.fill(ground.box())
        running = Running(ground, verb.arguments, box, warm=verb.is_warm)
        if running_on := running.wait_until(ground.rng.random(), verb.alone):
            (os.killpg if to_group else os.kill)(running.process.pid, sent)
        began = time.monotonic()
        done = running.wait()
        took = time.monotonic() - began
        row.tried += 1
        if running_on and done.status in (0, -sent) and outcome(box).keys() == verb.result.keys():
            running_on, done.status = False, 0  # all was done; the interpreter was about to leave
        hear(row, verb, done, (status,) if running_on else (0,))
        if left := running.left(2):
            row.blame("processes", f"{verb.name}: {len(left)} after {sent.name}", len(left))
        if done.status and took > 10:
            row.blame("other", f"{verb.name} took {took:.0f} s to end after {sent.name}")
        for part in box.rglob("*.part"):
            row.blame("files", f"{verb.name} left {part.name} after {sent.name}")
        finish(row, verb, ground, box)
    return row


def twice(ground: Ground, verb: Verb) -> Row:
    """Two commands at once on one folder: one does it, the other says so or finds it done."""
    row = Row("two at once", verb.name)
    for _ in range(ground.times(2)):
        box = verb.fill(ground.box())
        both = [Running(ground, verb.arguments, box, warm=verb.is_warm) for _ in range(2)]
        ended = [running.wait() for running in both]
        row.tried += 1
        for done in ended:
            hear(row, verb, done, (0, 1))
            if done.status and "in use" not in done.err and IS_THERE not in done.err:
                row.blame("other", f"{verb.name} says of the other one: {done.err[-200:]}")
        if all(done.status for done in ended):
            row.blame("lost", f"neither {verb.name} came to its end")
        finish(row, verb, ground, box)
    return row


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None] | None]:
    """Mount a disk of so many bytes and yield what makes it large; None where none can be."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    larger = ["mount", "-o", "remount,size=500m", str(folder)]
    try:
        yield lambda: subprocess.run(larger, check=True, capture_output=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def filled(ground: Ground, verb: Verb) -> Row:
    """Let the disk be full at some share of what the command writes, then free it."""
    row = Row("full disk, then freed", verb.name)
    for _ in range(ground.times(4)):
        box = ground.box()
        room = max(4096, int(verb.size * ground.rng.uniform(0.05, 0.9)))
        # A disk hands out whole pages.
        taken = sum(1 + f.stat().st_size // 4096 for f in (verb.given or box).rglob("*"))
        with small_disk(box, room + (4096 * taken if verb.given else 0)) as enlarge:
            verb.fill(box)
            # Without mounts: no file beyond a part of that.
            limit = None if enlarge else room // 4
            done = run(ground, verb.arguments, box, warm=verb.is_warm, limit=limit)
            row.tried += 1
            hear(row, verb, done, (0, 1))
            full = ("No space left on device", "File too large", "MB free")
            if done.status == 1 and not any(words in done.err for words in full):
                row.blame("other", f"{verb.name} on a full disk says: {done.err[-300:]}")
            if enlarge:
                enlarge()
            done = run(ground, verb.arguments, box, warm=verb.is_warm)
            hear(row, verb, done, (0,))
            compare(row, verb, box, ground)
        shutil.rmtree(box)
    return row


def unprivileged(ground: Ground, verb: Verb) -> Row:
    """Let a user run who owns nothing: read-only package, no home, caches unset."""
    row = Row("read-only package, no home", verb.name)
    if os.getuid() or shutil.which("setpriv") is None:
        row.notes.append("read-only package, no home: not tried; it takes root and setpriv")
        return row
    # Reading is allowed, whoever owns the interpreter; writing is not.
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
              "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
              "--bounding-set=-all,+dac_read_search")  # fmt: skip
    unset = ("env", *(f"-u{name}" for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")))
    ground.temporary.chmod(0o1777)
    for home in (unset, ("env", "HOME=/proc/nowhere"))[: ground.times(2)]:
        box = verb.fill(ground.box())
        for path in (box, *box.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        done = run(ground, verb.arguments, box, before=(*become, *home))
        row.tried += 1
        hear(row, verb, done, (0,))
        if not done.status:
            for cache in ground.temporary.glob("cello1-cache-*"):
                shutil.rmtree(cache)
            compare(row, verb, box, ground)
        shutil.rmtree(box)
    return row


# ---- Attacks by what is read.


def damage(content: bytes, rng: random.Random) -> bytes:
    """Flip some bits, cut the end off, or overwrite a stretch."""
    changed = bytearray(content)
    kind = rng.choice(["flip", "cut", "zeros"])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 3, 30])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[rng.randrange(len(changed)) :]
    else:
        start = rng.randrange(len(changed))
        changed[start : start + rng.randrange(1, 4096)] = b"\0" * 16
    return bytes(changed)


def damaged_cells(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Build from damaged .h5ad files: each is built or named, nothing hangs, nobody dies."""
    row, good = Row("damaged .h5ad files"), (ground.folder / "toys/cells0.h5ad").read_bytes()
    left = ground.times(500)
    while left > 0:
        box, files = ground.box(), []
        for i in range(min(left, 25)):
            files.append(box / f"damaged{i}.h5ad")
            files[-1].write_bytes(damage(good, ground.rng))
        left -= len(files)
        more = [
            "--n-min",
            "3",
            "--n-max",
            "4",
            "--per-n",
            "3",
            "--min-genes",
            "5",
            "--split",
            "none",
        ]
        line = ["build", *map(str, files), "--out", f"{box}/out", "--workers", "2", *more]
        done = run(ground, line, box)
        row.tried += len(files)
        listened(row, "build", done)
        if done.status not in (0, 1):
            row.blame("other", f"build ended with {done.status}: {done.err[-300:]}")
        if "worker process died" in done.said or "given up" in done.said:
            row.notes.append(f"{row.name}: a library died or hung; it cost that file only")
        shutil.rmtree(box)
    return row


def read_one(path: str) -> str:
    """Read puzzles as any verb does; return what came of it in a word."""
    try:
        puzzles = co.read_puzzles(Path(path))
    except (InputError, OSError):
        return "told"
    except BaseException as error:  # whatever else it is, it is a fault
        return f"{type(error).__name__}: {error}"[:200]
    text = repr([(p.context, p.cells, p.candidates, p.answer, p.meta) for p in puzzles])
    return "read " + hashlib.sha256(text.encode()).hexdigest()


def damaged_puzzles(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Read damaged Parquet files: told in one line, or the very puzzles that were written."""
    row, source = Row("damaged .parquet files"), ground.folder / "toys/built/test.parquet"
    good, right = source.read_bytes(), read_one(str(source))
    box = ground.box()
    with get_context("fork").Pool(1) as pool:
        for i in range(ground.times(500)):
            path = box / f"damaged{i}.parquet"
            path.write_bytes(damage(good, ground.rng))
            row.tried += 1
            try:
                came = pool.apply_async(read_one, (str(path),)).get(30)
            except Exception as error:
                came = f"no word within 30 s ({type(error).__name__})"
            if came.startswith("read ") and came != right:
                row.blame("lost", "changed puzzles are read without a word")
            elif came not in ("told", right):
                row.blame("tracebacks", came)
            path.unlink()
    return row


def hostile_models(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Model folders with code, pickles, broken parts and endless templates."""
    row, good = Row("hostile model folders"), ground.folder / "toys/base"
    ran = ground.folder / "code-ran"
    evil = f"open({str(ran)!r}, 'w')\nclass Evil: pass\n"
    names = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    edits: dict[str, dict[str, Any]] = {
        "code": {"config.json": {"auto_map": names, "model_type": "evil"}, "evil.py": evil},
        "code of a tokenizer": {
            "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
            "evil.py": evil,
        },
        "a list as config": {"config.json": "[]"},
        "deep config": {"config.json": "[" * 100_000},
        "huge width": {"config.json": {"hidden_size": 10**9}},
        "width in words": {"config.json": {"hidden_size": "wide"}},
        "a long number": {"config.json": '{"hidden_size": ' + "9" * 5_000 + "}"},
        "no weights": {"model.safetensors": None},
        "torn weights": {"model.safetensors": b"\x10\0\0\0\0\0\0\0{}"},
        "lengths of weights": {"model.safetensors": b"\xff" * 64},
        "pickled weights": {"model.safetensors": None, "pytorch_model.bin": b"\x80\x04."},
        "no tokenizer": {"tokenizer.json": None, "tokenizer_config.json": None},
        "a list as tokenizer": {"tokenizer.json": "[1]"},
        "endless template": {"chat_template.jinja": loop},
        "open template": {"chat_template.jinja": "{% for m in messages %}"},
        "template of a class": {"chat_template.jinja": "{{ ''.__class__.__mro__[1] }}"},
        "long template": {"chat_template.jinja": "{% for i in range(99999) %}so {% endfor %}"},
        "odd end": {"generation_config.json": '{"eos_token_id": "x"}'},
        "a pipe": {"tokenizer.json": "pipe"},
        "nothing": dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json")),
    }
    puzzles = str(ground.folder / "toys/puzzles.parquet")
    solve = ["solve", puzzles, "--max-new-tokens", "4", "--solver"]
    control(row, ground, [*solve, f"hf:{good}", "--out", str(ground.box())])
    for name in ground.rng.sample(sorted(edits), ground.times(20)):
        box = ground.box()
        folder = shutil.copytree(good, box / "model")
        for file, content in edits[name].items():
            path = folder / file
            if content is None:
                path.unlink(missing_ok=True)
            elif content == "pipe":
                path.unlink()
                os.mkfifo(path)
            elif isinstance(content, dict):
                path.write_text(json.dumps(json.loads(path.read_text()) | content))
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        done = forked(ground, [*solve, f"hf:{folder}", "--out", str(box / "run")], 120)
        row.tried += 1
        listened(row, name, done)
        if done.status not in (0, 1, 2):
            row.blame("other", f"{name}: status {done.status}: {done.err[-200:]}")
        if ran.exists():
            row.blame("other", f"{name}: code of the folder ran")
            ran.unlink()
        shutil.rmtree(box)
    return row


def hostile_recipes(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Recipes that are no recipes, that loop, explode, or ask for the impossible."""
    row, box = Row("hostile recipes"), ground.box()
    laugh = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(i)}: &{chr(i)} [{','.join([f'*{chr(i - 1)}'] * 9)}]\n" for i in range(98, 108)
    )
    ran = box / "ran"
    texts = {
        "list": "- a\n", "empty": "", "number": "7", "deep": "a: " + "[" * 5_000,
        "deep braces": "sft: " + "{a: " * 3_000, "self": "build: &a {b: *a}\n", "laugh": laugh,
        "long number": "sft: {rank: " + "7" * 5_000 + "}", "like itself": "like: recipe.yaml\n",
        "like nothing": "like: no/such.yaml\n", "like a folder": "like: /\n",
        "code": f"sft: !!python/object/apply:os.system ['touch {ran}']\n", "nul": "a: \0\n",
        "no text": "\udcff", "tabs": "sft:\n\tmodel: x\n", "two keys": "sft: {}\nsft: {}\n",
        "unknown section": "sfft: {}\n", "unknown key": "sft: {modell: x}\n",
        "markup": "sft: {'[/red]': '\x1b[31m'}\n", "not finite": "sft: {held_out: .nan}\n",
    }  # fmt: skip
    sound = str(ground.folder / "toys/recipe.yaml")
    control(row, ground, ["sft", sound, "--check", "--out", str(box / "sound")])
    for name in ground.rng.sample(sorted(texts), ground.times(20)):
        path = box / "recipe.yaml"
        path.write_bytes(texts[name].encode("utf-8", "surrogateescape"))
        done = forked(ground, ["sft", str(path), "--out", str(box / "run")])
        row.tried += 1
        listened(row, name, done)
        if done.status not in (1, 2):
            row.blame("other", f"{name}: status {done.status}: {done.err[-200:]}")
        if "\x1b[31m" in done.said:
            row.blame("other", f"{name}: an escape reaches the terminal")
        if ran.exists():
            row.blame("other", f"{name}: code in the recipe ran")
    shutil.rmtree(box)
    return row


def hostile_runs(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Run folders whose files are links, pipes, damaged or nonsense: solved into, then scored."""
    row, good = Row("hostile run folders"), ground.folder / "toys/r"
    edits: dict[str, tuple[str, Any]] = {}
    for name in (".lock", "run.json", "responses.jsonl"):
        edits[f"{name} is a link"] = (name, "link")
        edits[f"{name} is a pipe"] = (name, "pipe")
        edits[f"{name} is a folder"] = (name, "folder")
    deep = "[" * 100_000
    edits |= {
        "list": ("run.json", "[]"), "torn": ("run.json", '{"command": "so'),
        "deep": ("run.json", deep), "deep record": ("responses.jsonl", deep + "\n"),
        "odd inputs": ("run.json", '{"command": "solve", "config": {}, "inputs": 3}'),
        "odd ids": ("responses.jsonl", '{"id": 1}\n{"id": null}\n'),
        "no ids": ("responses.jsonl", "{}\n7\nnull\n"),
        "long number": ("responses.jsonl", '{"id": ' + "9" * 5_000 + "}\n"),
        "no text": ("responses.jsonl", b"\xff\xfe\n\x00\n"),
        "escapes": ("responses.jsonl", '{"id": "\\u001b[31m", "text": "[/red]"}\n'),
        "surrogate": ("responses.jsonl", '{"id": "\\ud800"}\n'),
    }  # fmt: skip
    control(row, ground, ["eval", str(good)])
    for name in ground.rng.sample(sorted(edits), ground.times(20)):
        box = ground.box()
        folder, precious = shutil.copytree(good, box / "run"), box / "precious"
        precious.write_text("precious\n")
        path, content = folder / edits[name][0], edits[name][1]
        path.unlink(missing_ok=True)
        if content == "link":
            path.symlink_to(precious)
        elif content == "pipe":
            os.mkfifo(path)
        elif content == "folder":
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        puzzles = str(ground.folder / "toys/built")
        solve = ["solve", puzzles, "--solver", "markers", "--out", str(folder)]
        for line in (solve, ["eval", str(folder)]):
            done = forked(ground, line)
            listened(row, f"{name}, {line[0]}", done)
            if done.status not in (0, 1, 2):
                row.blame("other", f"{name}, {line[0]}: status {done.status}: {done.err[-200:]}")
            if "\x1b[31m" in done.said:
                row.blame("other", f"{name}, {line[0]}: an escape reaches the terminal")
        row.tried += 1
        if precious.read_text() != "precious\n":
            row.blame("other", f"{name}: a file outside the folder was changed")
        shutil.rmtree(box)
    return row


def hostile_cells(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Files of cells that would read other files, hang, or take more memory than there is."""
    row = Row("hostile .h5ad files")

    def link_out(file: h5py.File, box: Path) -> None:
        with h5py.File(box / "secret.h5", "w") as other:
            other["x"] = [PASSWORD] * file["obs/donor_id/codes"].shape[0]
        del file["obs/donor_id"]
        file["obs/donor_id"] = h5py.ExternalLink(str(box / "secret.h5"), "x")

    def link_to_pipe(file: h5py.File, box: Path) -> None:
        os.mkfifo(box / "pipe")
        del file["obs/donor_id"]
        file["obs/donor_id"] = h5py.ExternalLink(str(box / "pipe"), "x")

    def raw_outside(file: h5py.File, box: Path) -> None:
        (box / "secret.txt").write_text(PASSWORD * 100)
        del file["obs/cluster"]
        size = (box / "secret.txt").stat().st_size
        storage = [(str(box / "secret.txt"), 0, size)]
        file.create_dataset("obs/cluster", (size,), "S1", external=storage)

    def huge(file: h5py.File, box: Path) -> None:
        del file["X"]
        file.create_dataset("X", (10**7, 10**5), "f4", chunks=(1, 10**5), compression="gzip")

    few = ["--n-min", "3", "--n-max", "5", "--min-genes", "5"]
    control(row, ground, ["doctor", str(ground.folder / "toys/cells0.h5ad"), *few])
    makers = [link_out, link_to_pipe, raw_outside, huge]
    for make in ground.rng.sample(makers, ground.times(len(makers))):
        box = ground.box()
        path = Path(shutil.copy(ground.folder / "toys/cells0.h5ad", box / "cells.h5ad"))
        with h5py.File(path, "r+") as file:
            make(file, box)
        build = ["build", str(path), *few, "--split", "none", "--out", str(box / "out")]
        for line in (["doctor", str(path), *few], build):
            done = forked(ground, line, 120)
            listened(row, f"{make.__name__}, {line[0]}", done)
            if done.status not in (1, 2):
                row.blame("other", f"{make.__name__}, {line[0]}: status {done.status}")
        row.tried += 1
        leak(row, make.__name__, box, but="secret")
        shutil.rmtree(box)
    return row


def control(row: Row, ground: Ground, line: list[str], **env: str) -> None:
    """See that the sound thing works: otherwise refusing what is hostile would prove nothing."""
    done = forked(ground, line, 120, **env)
    if done.status:
        row.blame("other", f"the sound one fails, too: {done.err[-300:]}")


def leak(row: Row, name: str, box: Path, but: str = "\0") -> None:
    """Blame files that hold a secret."""
    for path in box.rglob("*"):
        if path.is_file() and not path.name.startswith((but, "cells")):
            content = path.read_bytes()
            if KEY.encode() in content or PASSWORD.encode() in content:
                row.blame("secrets", f"{name}: {path.name} holds one")


def hostile_servers(ground: Ground, verbs: dict[str, Verb]) -> Row:
    """Servers that lie, stall, hang up, explode or send the key back; one row of puzzles each."""
    import misbehaving as bad

    row, box = Row("hostile servers"), ground.box()
    puzzles = co.read_puzzles(ground.folder / "toys/built/test.parquet")[:3]
    co.write_puzzles(puzzles, box / "few.parquet")
    kinds = [
        bad.echo(200), bad.echo(203), bad.echo(401), bad.bomb, bad.huge(200), bad.cut_connection,
        bad.reset, bad.slow_drip, bad.torn_gzip, bad.lone_surrogate, bad.error(500, "x" * 10**6),
        bad.wrong_type,
    ]  # fmt: skip
    solve = ["solve", str(box / "few.parquet"), "--solver", "openai:m", "--retries", "1"]
    solve += ["--timeout", "3", "--base-url"]
    known = {"OPENAI_API_KEY": KEY, "XDG_CACHE_HOME": str(box / "cache")}
    server = bad.Server()
    control(row, ground, [*solve, server.url, "--out", str(box / "sound")], **known)
    server.stop()
    for i, behave in enumerate(ground.rng.sample(kinds, ground.times(12))):
        server = bad.Server()
        server.script = [behave]
        out = box / f"run{i}"
        address = server.url.replace("http://", f"http://user:{PASSWORD}@") if i % 2 else server.url
        done = forked(ground, [*solve, address, "--out", str(out)], 120, **known)
        forked(ground, ["eval", str(out)], 60)
        server.stop()
        row.tried += 1
        name = f"server {i} ({getattr(behave, '__name__', 'behave')})"
        listened(row, name, done)
        if done.status not in (0, 1, 2):
            row.blame("other", f"{name}: status {done.status}: {done.err[-200:]}")
        leak(row, name, box)
    shutil.rmtree(box)
    return row


# ---- The program.

ON_VERBS = {
    "kill": killed, "full": filled, "stop": stopped, "twice": twice, "nobody": unprivileged,
}  # fmt: skip
ON_INPUT = {
    "cells": damaged_cells,
    "puzzles": damaged_puzzles,
    "models": hostile_models,
    "recipes": hostile_recipes,
    "runs": hostile_runs,
    "files": hostile_cells,
    "servers": hostile_servers,
}


def summed(rows: list[Row]) -> list[Row]:
    """Return one row for each attack, over all verbs, and one for everything."""
    whole: dict[str, Row] = {}
    verbs = Counter(row.name for row in rows if row.verb)
    for row in rows:
        of = f", {verbs[row.name]} verbs" if row.verb else ""
        for name in (row.name + of, "all"):
            total = whole.setdefault(name, Row(name))
            total.tried += row.tried
            total.faults += row.faults
    return [*(row for name, row in whole.items() if name != "all"), whole.get("all", Row("all"))]


def show(rows: list[Row]) -> None:
    """Print a table with a row for each attack and verb, then a line for every fault."""
    print(f"{'attack':46}{'tried':>7}" + "".join(f"{name:>12}" for name in FAULTS))
    for row in [*rows, *summed(rows)]:
        counts = "".join(f"{row.faults[name]:>12}" for name in FAULTS)
        print(f"{row.full_name:46}{row.tried:>7}{counts}")
    for row in rows:
        print(*row.notes, sep="\n", end="\n" if row.notes else "")


def as_markdown(rows: list[Row], how: str) -> str:
    """Return the table of the docs, and how it was made."""
    lines = [f"| attack | tried | {' | '.join(FAULTS)} |", "|---|" + "--:|" * (1 + len(FAULTS))]
    for row in summed(rows):
        counts = [row.tried, *(row.faults[name] for name in FAULTS)]
        lines.append(f"| {row.name} | {' | '.join(f'{count:,}' for count in counts)} |")
    verbs = list(dict.fromkeys(row.verb for row in rows if row.verb))
    named = f" The verbs: {', '.join(verbs)}." if verbs else ""
    return "\n".join([f"{how}{named}", "", *lines, ""])


def write_markdown(path: Path, text: str) -> None:
    """Write the table into a page that has a place for it, or alone."""
    page = path.read_text() if path.exists() else ""
    if BEGIN in page and END in page:
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        text = f"{before}{BEGIN}\n{text}\n{END}{after}"
    path.write_text(text)


def main() -> None:
    """Make the attacks that are asked for."""
    names = [*ON_VERBS, *ON_INPUT]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these attacks")
    parser.add_argument("--verbs", nargs="+", help="these verbs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="attacks on verbs side by side")
    parser.add_argument("--out", type=Path, help="markdown file that takes the table")
    asked = parser.parse_args()
    began = time.monotonic()
    # A shell that starts this in the background lets it ignore Ctrl-C, and with it every command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="cello1-attack-") as place:
        rows = attack(Path(place), asked, began)
    show(rows)
    seconds = time.monotonic() - began
    print(f"{seconds:.0f} s at scale {asked.scale}, seed {asked.seed}")
    if asked.out:
        line = " ".join(["python", "benchmarks/attack.py", *sys.argv[1:]])
        how = (
            f"`{line}`: {seconds:,.0f} s on {os.cpu_count()} cores, "
            f"Python {platform.python_version()}, cello1 {revision()}, {time.strftime('%Y-%m-%d')}."
        )
        write_markdown(asked.out, as_markdown(rows, how))
    sys.exit(any(row.faults for row in rows))


def revision() -> str:
    """Return the commit that is attacked."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "?"


def attack(folder: Path, asked: argparse.Namespace, began: float) -> list[Row]:
    """Make all attacks, those on verbs side by side, and tell how each went."""
    import misbehaving

    folder.chmod(0o755)
    every = Ground(folder, asked.scale, asked.seed)
    os.environ.update(environment(every))
    os.environ.pop("TMPDIR")
    context = get_context("forkserver")
    context.set_forkserver_preload(WARM)
    first = context.Process(target=int)  # it comes when all is imported
    first.start()
    first.join()
    server = misbehaving.Server()
    verbs = make_verbs(every, server.url)
    if unknown := set(asked.verbs or ()) - verbs.keys():
        raise SystemExit(f"no such verbs: {sorted(unknown)}; there are {list(verbs)}")
    verbs = {name: verbs[name] for name in asked.verbs or verbs}
    names = [name for name in ON_VERBS if name in asked.only]
    number = len(verbs) * len(names) + len(set(asked.only) & ON_INPUT.keys())
    told: list[str] = []

    def tried(name: str, verb: Verb | None) -> Row:
        full = f"{name}-{verb.name.replace(' ', '-')}" if verb else name
        ground = Ground(folder, asked.scale, asked.seed, full)
        try:
            if verb:
                if not verb.alone:
                    leave_alone(verb, Ground(folder, asked.scale, asked.seed, f"alone-{full}"))
                row = ON_VERBS[name](ground, verb)
            else:
                row = ON_INPUT[name](ground, verbs)
        except Exception as error:  # of this program: the other attacks go on
            row = Row(name, verb.name if verb else "")
            row.blame("other", f"the attack broke off: {error!r}"[:2000])
            traceback.print_exc()
        told.append(full)
        said = f"{dict(row.faults) or 'nothing'}"
        head = f"[{time.monotonic() - began:5.0f} s, {len(told)} of {number}]"
        lines = [f"{head} {row.full_name}, {row.tried}: {said}", *row.notes]
        print(*lines, sep="\n", file=sys.stderr, flush=True)
        return row

    def lane(verb: Verb) -> list[Row]:
        return [tried(name, verb) for name in names]

    with ThreadPoolExecutor(asked.lanes) as lanes:
        found = list(lanes.map(lane, verbs.values() if names else ()))
    server.stop()
    # Attack by attack, as the table has them.
    rows = [row for name_rows in zip(*found, strict=True) for row in name_rows]
    return rows + [tried(name, None) for name in ON_INPUT if name in asked.only]


if __name__ == "__main__":
    main()
