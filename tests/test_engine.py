"""Ray gives the bytes of one process, also when a driver or a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from itertools import islice

import pytest

import cello1
from cello1.engine import connected, each_batch, each_task
from cello1.errors import InputError, UseError
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.recipes import BuildSettings, SolveSettings
from cello1.recipes.section import checked
from cello1.runs import read_records
from cello1.solvers.choose import choose_solver, runs_models
from cello1.solvers.on_ray import BATCH, OnRay

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'cello1[ray]'")
pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'cello1[ray]'")

BUILD = BuildSettings(n_min=4, n_max=6, per_n=4, split="none", seed=1)


@pytest.fixture(scope="module")
def files(cells_dir):
    names = ("baron2016_pancreas350", "he2020_liver20", "pbmc3k_lognorm")
    return [cells_dir / f"{name}.h5ad" for name in names]


@pytest.fixture(scope="module")
def local(files, tmp_path_factory):
    return cello1.build(files, tmp_path_factory.mktemp("local") / "out", BUILD).folder


@pytest.fixture(scope="module")
def cluster():
    """One cluster for these tests: starting takes seconds."""
    with connected():
        yield


def answers(run):
    """The records of a run without the time they took, in the order of their ids."""
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(run)]
    return sorted(json.dumps(record, sort_keys=True) for record in records)


def test_build_gives_the_same_bytes(cluster, files, local, tmp_path):
    made = cello1.build(files, tmp_path / "ray", BUILD, engine="ray")
    for name in ("all.parquet", "audit.json", "build.json"):
        assert (made.folder / name).read_bytes() == (local / name).read_bytes()


@pytest.fixture(scope="module")
def few(local, tmp_path_factory):
    """The smallest puzzles; more than one batch of them."""
    path = tmp_path_factory.mktemp("few") / "few.parquet"
    puzzles = read_puzzles(local / "all.parquet")
    write_puzzles(sorted(puzzles, key=lambda p: len(p.cells))[: BATCH + 2], path)
    return path


@pytest.fixture(scope="module")
def solved(few, tmp_path_factory):
    """Runs of the local engine, made once for each solver."""
    return cache(lambda solver: cello1.solve(few, solver, tmp_path_factory.mktemp("runs") / "run"))


SOLVERS = [
    "atlas",
    pytest.param("mini", marks=pytest.mark.skipif(not runs_models(), reason="needs cello1[local]")),
]


@pytest.mark.parametrize("solver", ["markers", *SOLVERS])
def test_solve_gives_the_same_answers(cluster, few, solved, solver, tmp_path):
    path = few
    cello1.solve(path, solver, tmp_path / "ray", engine="ray")
    assert answers(tmp_path / "ray") == answers(solved(solver))
    # One is the other's run: each goes on where the other was.
    config = [
        json.loads((f / "run.json").read_text())["config"]
        for f in (solved(solver), tmp_path / "ray")
    ]
    assert config[0] == config[1]
    cello1.solve(path, solver, tmp_path / "ray")


def test_the_driver_loads_no_model(monkeypatch):
    pytest.importorskip("torch", reason="needs cello1[local]")
    from cello1.solvers.local import language

    def refuse(*_, **__):
        raise AssertionError("loaded")

    monkeypatch.setattr(language, "load_model", refuse)
    monkeypatch.setattr(language.Prompter, "__init__", refuse)
    for changes in ({}, {"samples": 3}, {"valid": True}, {"decode": "generate"}):
        settings = SolveSettings(solver="mini", engine="ray", **changes)
        solver = choose_solver(settings)
        monkeypatch.undo()
        here = choose_solver(SolveSettings(solver="mini", **changes))
        assert (solver.name, solver.settings) == (here.name, here.settings)
        monkeypatch.setattr(language, "load_model", refuse)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_puzzles_of_a_lost_worker_are_solved_again(cluster, few, solved, name, tmp_path):
    mark, settings = tmp_path / "mark", SolveSettings(solver=name)

    class DiesOnce:
        """Its process is killed in the second batch, once."""

        def __init__(self):
            self.solver, self.batches = choose_solver(settings), 0

        def solve(self, puzzles, on_done):
            self.batches += 1
            if not mark.exists() and (self.batches == 2 or len(puzzles) < BATCH):
                mark.write_text("was here")
                os.kill(os.getpid(), signal.SIGKILL)
            self.solver.solve(puzzles, on_done)

    solver = OnRay(choose_solver(settings, load=False), DiesOnce)
    cello1.solve(few, solver, tmp_path / "ray")
    assert mark.exists()
    assert answers(tmp_path / "ray") == answers(solved(name))


def test_a_model_that_cannot_be_loaded_is_said_in_one_line(cluster, few, tmp_path):
    def fails():
        raise InputError("the weights are damaged; copy the model again")

    solver = OnRay(choose_solver(SolveSettings(solver="chance")), fails)
    with pytest.raises(InputError, match=r"^the weights are damaged; copy the model again$"):
        cello1.solve(few, solver, tmp_path / "ray")


def test_a_failed_file_is_reported_and_the_others_are_built(cluster, files, tmp_path):
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(b"no HDF5")
    made = cello1.build([files[0], broken], tmp_path / "out", BUILD, engine="ray")
    assert {r.dataset: r.status for r in made.reports} == {
        "baron2016_pancreas350": "built",
        "broken": "failed",
    }


def test_the_task_of_a_lost_worker_is_done_again(cluster, tmp_path):
    marks = [tmp_path / str(i) for i in range(3)]

    def work(mark):
        if mark.name == "1" and not mark.exists():
            mark.write_text("was here")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"name": mark.name}

    assert {i: row["name"] for i, row in each_task(work, marks)} == {0: "0", 1: "1", 2: "2"}
    assert marks[1].exists()


def test_batches_come_back_whole(cluster):
    def make():
        return lambda numbers: [n * n for n in numbers]

    assert dict(each_batch(make, list(range(10)), 3)) == {n: n * n for n in range(10)}
    assert dict(each_batch(make, [], 3)) == {}


DRIVER = """
import sys
import cello1
told = []
def tell(*part):
    told.append(part)
    print("part", *part, flush=True)
    if len(told) == int(sys.argv[1]):
        sys.stdin.read()  # go no further before the kill
what, out, *files = sys.argv[2:]
if what == "build":
    from cello1.recipes import BuildSettings
    settings = BuildSettings(n_min=4, n_max=6, per_n=4, split="none", seed=1)
    cello1.build(files, out, settings, engine="ray", watch=tell)
else:
    cello1.solve(files[0], what, out, engine="ray", watch=tell)
"""


@pytest.mark.parametrize("what", ["build", *SOLVERS])
def test_a_killed_driver_resumes(cluster, what, files, local, few, solved, tmp_path):
    given, out = [str(f) for f in files] if what == "build" else [str(few)], tmp_path / "out"
    parts = 2  # of 3 files; of puzzles "0 of 18" and "1 of 18"
    call = [sys.executable, "-c", DRIVER, str(parts), what, str(out), *given]
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as killed:
        lines = (line for line in killed.stdout if line.startswith("part"))
        assert len(list(islice(lines, parts))) == parts
        killed.kill()
    deadline = time.monotonic() + 60
    while (held := _lock_is_held(out)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not held
    if what == "build":
        assert not (out / "audit.json").exists()
        cello1.build(files, out, BUILD, engine="ray")
        assert (out / "all.parquet").read_bytes() == (local / "all.parquet").read_bytes()
    else:
        assert len(answers(out)) == parts - 1
        cello1.solve(few, what, out, engine="ray")
        assert answers(out) == answers(solved(what))


def _lock_is_held(folder):
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def test_no_cluster_at_the_address_is_said_in_one_line(files, tmp_path):
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(InputError, match="no Ray cluster at 127") as caught:
        cello1.build(files, tmp_path / "out", BUILD, engine="ray", address="127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_settings_that_need_ray_say_so():
    with pytest.raises(UseError, match="it needs engine=ray"):
        checked(SolveSettings, {"solver": "markers", "address": "auto"})
    with pytest.raises(UseError, match="engine cannot be used"):
        checked(SolveSettings, {"solver": "openai:m", "engine": "ray"})
