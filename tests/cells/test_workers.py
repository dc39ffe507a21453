"""Workers end with the process that started them, and one that dies costs its file only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cello1.cells import workers as rooms
from cello1.cells.build import build

# The command whose first file is made at once, and the others not before it is stopped. Workers
# run what stands before the condition, too.
SCRIPT = """
import time
from cello1.cells import jobs
make = jobs.make_puzzles
def make_puzzles(path, *rest):
    if path.stem != "a":
        time.sleep(60)
    return make(path, *rest)
jobs.make_puzzles = make_puzzles
if __name__ == "__main__":
    import cello1.cli
    cello1.cli.main()
"""
COMMAND = [sys.executable, "-m", "cello1", "build"]
MANY = ["--workers", "2", "--split", "none", "--n-min", "4", "--n-max", "6", "--per-n", "9"]


def children(process: int) -> set[int]:
    """Return the worker processes of a process."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    found = {int(pid) for pid in listed.read_text().split()} if listed.exists() else set()
    return {pid for pid in found if b"spawn_main" in command_line(pid)}


def command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    return condition()


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_cells):
    folder = tmp_path_factory.mktemp("cells")
    paths = [folder / f"{name}.h5ad" for name in "abcdefgh"]
    for seed, path in enumerate(paths):
        make_cells(seed=seed, donors=3).write_h5ad(path)
    return paths


def heed_interrupts():
    """Undo what a shell does to its background jobs, which are deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def started(files, tmp_path):
    """Start a build in a group of its own, with two workers at work; kill what is left of it."""
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(SCRIPT)
    running = subprocess.Popen(
        [sys.executable, script, "build", *map(str, files), "--out", str(out), *MANY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    workers = until(lambda: children(running.pid) if len(children(running.pid)) == 2 else None)
    assert workers
    # At work, and no longer about to start.
    assert until(lambda: list((out / ".parts").glob("*.parquet")))
    yield running, workers, out
    for process in (running.pid, *workers):
        if is_running(process):
            os.kill(process, signal.SIGKILL)
    running.communicate()


def test_workers_die_with_a_build_that_is_killed(started, files, tmp_path, contents):
    running, workers, out = started
    running.kill()
    running.wait()
    assert until(lambda: not any(map(is_running, workers)), 5)
    again = subprocess.run(
        [*COMMAND, *map(str, files), "--out", str(out), *MANY], capture_output=True, check=False
    )
    assert again.returncode == 0
    assert {path.name for path in out.iterdir()} == {
        "all.parquet", "audit.json", "build.json", "run.json", ".lock",
    }  # fmt: skip


def test_workers_that_hang_die_with_it_too(started):
    """As within a library that holds the interpreter and never comes back."""
    running, workers, _ = started
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    running.kill()
    running.wait()
    assert until(lambda: not any(map(is_running, workers)), 5)


@pytest.mark.parametrize(
    ("sent", "to_all", "status"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGINT, True, 130)],
)
def test_a_build_that_is_stopped_says_one_line_and_leaves_nothing(started, sent, to_all, status):
    running, workers, out = started
    before = time.monotonic()
    (os.killpg if to_all else os.kill)(running.pid, sent)
    _, said = running.communicate(timeout=20)
    took = time.monotonic() - before
    assert running.returncode == status
    assert len(said.strip().splitlines()) == 1, said
    assert "rerun the same command to resume" in said
    assert until(lambda: not any(map(is_running, workers)), 2)
    assert took < 10  # well under 2 s where the machine is not busy
    assert not list(out.glob("**/*.part"))


def test_a_worker_that_stands_still_costs_its_file_only(files, tmp_path, small, monkeypatch):
    monkeypatch.setattr(rooms, "STALLED_SECONDS", 10.0)
    stopped = []

    def stop_one():
        found = until(lambda: children(os.getpid()))
        stopped.append(min(found))
        until(lambda: list((tmp_path / "out" / ".parts").glob("*.json")))
        os.kill(stopped[0], signal.SIGSTOP)

    helper = threading.Thread(target=stop_one)
    helper.start()
    built = build(files, tmp_path / "out", small(split="none"), workers=2)
    helper.join()
    status = [report.status for report in built.reports]
    failed = [report.message for report in built.reports if report.status == "failed"]
    assert status.count("built") >= len(files) - 1
    assert all("nothing came of it for 10 seconds" in message for message in failed)
    assert not is_running(stopped[0])


HANGS = """
import sys, time
from cello1.cells import doctor, jobs, workers
workers.STALLED_SECONDS = 2.0
hold = lambda *_: sum(range(10**12))  # as a loop in C: nothing else gets a turn

def hang(path, settings, tell):
    for _ in range(6):  # longer than the limit, but with signs of life
        time.sleep(0.5)
        tell(0.5)
    hold()

jobs.make_puzzles = doctor.make_puzzles = hang
import cello1.cli
cello1.cli.main()
"""


@pytest.mark.parametrize("verb", ["build", "doctor"])
def test_a_file_that_stands_still_without_workers_ends_the_command(files, tmp_path, verb):
    where = ["--out", tmp_path / "out"] if verb == "build" else []
    before = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", HANGS, verb, files[0], *where],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert time.monotonic() - before > 5
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        f"error: {files[0]}: nothing came of it for 2 seconds, so it was given up; the file is "
        "damaged or its disk does not answer: copy it again"
    ]


def test_nothing_is_left_of_the_watch_when_all_goes_well(capfd, monkeypatch):
    monkeypatch.setattr(rooms, "STALLED_SECONDS", 0.5)
    with rooms.ending_when_still("x") as beat:
        for _ in range(8):
            time.sleep(0.1)
            beat()
    time.sleep(0.6)
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_dies_costs_its_file_only(files, tmp_path, small):
    def kill_one():
        os.kill(min(until(lambda: children(os.getpid()))), 0)
        until(lambda: list((tmp_path / "out" / ".parts").glob("*.json")))
        for process in sorted(children(os.getpid()))[:1]:
            os.kill(process, signal.SIGKILL)

    helper = threading.Thread(target=kill_one)
    helper.start()
    built = build(files, tmp_path / "out", small(split="none"), workers=2)
    helper.join()
    failed = [report for report in built.reports if report.status == "failed"]
    assert len(failed) <= 1
    assert all("a worker process died" in report.message for report in failed)
    assert build(files, tmp_path / "out", small(split="none"), workers=2).ok


def test_a_script_without_a_guard_is_told_what_it_lacks(files, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import cello1 as co\n"
        f"co.build({[str(path) for path in files]}, {str(tmp_path / 'out')!r}, workers=2)\n"
    )
    said = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=100, check=False
    )
    assert said.returncode == 1
    assert 'if __name__ == "__main__":' in said.stderr.strip().splitlines()[-1]
    assert said.stderr.count("Traceback") == 1  # of the script itself, none of a worker


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_no_worker_hears_ctrl_c_not_even_the_first():
    script = (
        "from cello1.cells.workers import Pool\n"
        "with Pool([], 2, 'math:floor') as pool:\n"
        "    for worker in pool.workers:\n"
        "        print(open(f'/proc/{worker.process.pid}/status').read())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    blocked = [int(line.split()[1], 16) for line in said.splitlines() if line[:7] == "SigBlk:"]
    assert [mask >> (signal.SIGINT - 1) & 1 for mask in blocked] == [1, 1]
