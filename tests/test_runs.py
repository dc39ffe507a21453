from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cello1 import runs
from cello1.errors import InputError
from cello1.runs import (
    Run,
    appearing,
    append_line,
    environment,
    file_hash,
    read_records,
    read_run,
    replacing,
    write_atomic,
    write_json,
)


@pytest.fixture
def reopen(tmp_path):
    """Open the run folder of this test as one command would, unless told otherwise."""

    def opened(folder=tmp_path / "run", command="solve", config=None, inputs=()):
        return Run(folder, command=command, config=config or {"seed": 1}, inputs=inputs)

    return opened


def record(number: int, size: int = 10) -> dict[str, str]:
    return {"id": str(number), "text": "é" * size}


def test_a_run_says_what_it_did(tmp_path, reopen):
    (tmp_path / "in.txt").write_text("cells")
    with reopen(config={"seed": 1, "n": [8, 15]}, inputs=[tmp_path / "in.txt"]):
        pass
    said = read_run(tmp_path / "run")
    assert (said["command"], said["config"]) == ("solve", {"seed": 1, "n": [8, 15]})
    digest = hashlib.sha256(b"cells").hexdigest()
    assert said["inputs"] == {str(tmp_path / "in.txt"): f"sha256:{digest}"}
    assert {"cello1", "python", "numpy", "git"} <= set(said["environment"])


def test_the_environment_is_known_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert environment()["git"] is None


def test_the_same_command_resumes_where_it_stopped(tmp_path, reopen):
    with reopen() as run:
        run.append(record(1))
        run.append(record(2))
    with reopen() as run:
        assert run.finished() == {"1", "2"}
        run.append(record(3))
    assert [r["id"] for r in read_records(tmp_path / "run")] == ["1", "2", "3"]


def test_failures_are_owed_again(reopen):
    with reopen() as run:
        run.append(record(1))
        run.append({"id": "2", "failure": "timeout"})
        run.append({"id": "3", "failure": "timeout"})
        run.append(record(3))
    with reopen() as run:
        assert run.finished() == {"1", "3"}


@pytest.mark.parametrize("torn", [b'{"id": "3", "te', b'{"id": "3"}', b"\xc3", b"\0\0\0"])
def test_a_torn_last_line_is_cut_and_owed_again(tmp_path, reopen, torn):
    with reopen() as run:
        run.append(record(1))
        run.append(record(2))
    path = tmp_path / "run" / "responses.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [r["id"] for r in read_records(tmp_path / "run")] == ["1", "2"]
    with reopen() as run:
        assert path.read_bytes() == whole
        assert run.finished() == {"1", "2"}
        run.append(record(3))
    assert list(read_records(tmp_path / "run")) == [record(1), record(2), record(3)]


def test_damage_in_the_middle_is_reported_with_its_line(tmp_path, reopen):
    with reopen() as run:
        run.append(record(1))
    with (tmp_path / "run" / "responses.jsonl").open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(InputError, match="line 2 is damaged"), reopen() as run:
        run.finished()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {"seed": 2}}, "another config: seed was 1 and is now 2; choose another --out"),
        ({"config": {"seed": 1, "n": 3}}, "another config: n was None and is now 3"),
        ({"command": "build"}, "another command: 'solve' there, 'build' now"),
    ],
)
def test_another_run_does_not_mix_in_and_leaves_the_folder_free(reopen, change, said):
    with reopen():
        pass
    with pytest.raises(InputError, match=said) as refused:
        reopen(**change)
    with reopen():
        assert refused.value is not None


def test_changed_inputs_are_refused_and_moved_ones_are_not(tmp_path, reopen):
    first, moved = tmp_path / "cells.h5ad", tmp_path / "moved.h5ad"
    first.write_bytes(b"cells")
    with reopen(inputs=[first]):
        pass
    first.rename(moved)
    with reopen(inputs=[moved]):
        pass
    moved.write_bytes(b"other")
    with pytest.raises(InputError, match=r"cells\.h5ad with other content\); .* another --out"):
        reopen(inputs=[moved])
    with pytest.raises(InputError, match="other inputs"):
        reopen(inputs=[])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="is no run folder"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="is no run folder"):
        read_run(tmp_path)
    assert list(read_records(tmp_path)) == []


WORKER = """
import sys, time
from pathlib import Path
from cello1.runs import Run
with Run(Path(sys.argv[1]), command="solve", config={"seed": 1}, inputs=[]) as run:
    done = run.finished()
    for i in range(int(sys.argv[2])):
        if str(i) not in done:
            run.append({"id": str(i), "text": "é" * (i % 2 * 5_000)})
            print(i, flush=True)
            time.sleep(0.001)
    print("end", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    workers = []

    def started(n_records):
        command = [sys.executable, "-c", WORKER, str(tmp_path / "run"), str(n_records)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        workers.append(worker)
        return worker

    yield started
    for worker in workers:
        worker.kill()
        worker.communicate()


def test_a_folder_in_use_is_refused_until_its_process_ends(reopen, start):
    worker = start(0)
    assert worker.stdout.readline() == "end\n"
    with pytest.raises(InputError, match="in use by another process"):
        reopen()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    with reopen() as run:
        assert run.finished() == set()


def test_kill_9_loses_nothing_that_was_finished_and_repeats_nothing(tmp_path, start):
    finished, kept = set(), []
    for before_kill in (1, 20, 55, 90):
        worker = start(10**6)
        for _ in range(before_kill):
            finished.add(worker.stdout.readline().strip())
        worker.send_signal(signal.SIGKILL)
        finished |= set(worker.communicate()[0].split())
        kept = [r["id"] for r in read_records(tmp_path / "run")]
        assert finished <= set(kept)
        assert len(kept) == len(set(kept)) >= len(finished)
    n = len(kept) + 50
    worker = start(n)
    worker.communicate()
    assert worker.returncode == 0
    written = list(read_records(tmp_path / "run"))
    assert [r["id"] for r in written] == [str(i) for i in range(n)]
    assert {len(r["text"]) for r in written} == {0, 5_000}


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_file_whole(small_disk):
    path = small_disk / "p.parquet"
    write_atomic(path, b"old" * 100_000)
    with pytest.raises(OSError, match=r"p\.parquet") as full:
        write_atomic(path, b"new" * 300_000)
    assert full.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old" * 100_000
    assert list(small_disk.iterdir()) == [path]


def test_a_folder_that_finds_no_room_is_named_and_goes(small_disk):
    full = r"No space left on device \(.* MB free\): .*model'"
    with pytest.raises(OSError, match=full) as told, appearing(small_disk / "model") as part:
        (part / "weights").write_bytes(b"x" * 2_000_000)
    assert told.value.errno == errno.ENOSPC
    assert not list(small_disk.iterdir())


def append_all(run: Run, records: list[dict[str, str]]) -> None:
    for one in records:
        run.append(one)


@pytest.mark.parametrize(("n", "size"), [(10, 20_000), (200, 1_000)])
def test_a_run_on_a_full_disk_goes_on_once_there_is_room(small_disk, reopen, n, size):
    records = [record(i, size) for i in range(n)]
    (small_disk / "filler").write_bytes(b"0" * 800_000)
    with pytest.raises(OSError, match="No space") as full, reopen(folder=small_disk) as run:
        append_all(run, records)
    (small_disk / "filler").unlink()
    with reopen(folder=small_disk) as run:
        kept = run.finished()
        assert 0 < len(kept) < n
        append_all(run, [r for r in records if r["id"] not in kept])
    assert list(read_records(small_disk)) == records
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_an_append_that_failed_can_be_tried_again(small_disk, reopen, size):
    with reopen(folder=small_disk) as run:
        run.append(record(1, size))
        room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "filler").write_bytes(b"0" * room)
        with pytest.raises(OSError, match="No space"):
            append_all(run, [record(2, size)] * 5)
        (small_disk / "filler").unlink()
        run.append(record(3, size))
    assert [r["id"] for r in read_records(small_disk) if r["id"] != "2"] == ["1", "3"]


def test_a_file_appears_whole_in_a_new_folder_and_is_readable_by_others(tmp_path):
    path = tmp_path / "a" / "b" / "x.json"
    write_json(path, {"b": "é", "a": 1})
    assert path.read_bytes() == '{\n "a": 1,\n "b": "é"\n}\n'.encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert json.loads(path.read_text()) == {"a": 1, "b": "é"}
    assert list(path.parent.iterdir()) == [path]


def test_a_small_file_is_hashed_whole_and_a_huge_one_by_samples(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"cells")
    assert file_hash(path) == "sha256:" + hashlib.sha256(b"cells").hexdigest()
    os.truncate(path, 64 << 20)
    assert file_hash(path).startswith("sha256:")
    hashes = set()
    for size in ((64 << 20) + 1, (64 << 20) + 2):
        os.truncate(path, size)
        hashes.add(file_hash(path))
    for place in (0, (64 << 20) + 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"!")
        hashes.add(file_hash(path))
    assert len(hashes) == 4
    assert all(h.startswith("sampled-sha256:") for h in hashes)


@pytest.mark.parametrize("name", [".lock", "responses.jsonl"])
@pytest.mark.parametrize("bait", ["link", "fifo", "folder"])
def test_a_folder_from_someone_else_cannot_touch_other_files(tmp_path, reopen, name, bait):
    with reopen():
        pass
    (tmp_path / "precious").write_text("precious, and no line of ours")
    place = tmp_path / "run" / name
    place.unlink(missing_ok=True)
    if bait == "link":
        place.symlink_to(tmp_path / "precious")
    elif bait == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(InputError, match=rf"{name} is .*remove it"), reopen() as run:
        run.append(record(1))
    assert (tmp_path / "precious").read_text() == "precious, and no line of ours"


def test_one_room_opens_files_to_append_and_makes_temporary_ones_beside_results():
    """What is opened otherwise follows links, or is swept by nobody after a kill."""
    sources = Path(runs.__file__).parent
    careless = re.compile(r'open\(\s*"ab?"|mkstemp|TemporaryDirectory\([^)]*dir=')
    found = [p for p in sources.rglob("*.py") if careless.search(p.read_text("utf-8"))]
    assert [p.relative_to(sources).as_posix() for p in found] == []


@pytest.mark.parametrize("bait", ["link", "fifo", "folder"])
def test_no_line_is_appended_through_a_log_from_someone_else(tmp_path, bait):
    precious, log = tmp_path / "precious", tmp_path / "run" / "log.jsonl"
    precious.write_text("precious\n")
    append_line(log, {"step": 1})
    append_line(log, {"step": 2})
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
    log.unlink()
    {"link": lambda: log.symlink_to(precious), "fifo": lambda: os.mkfifo(log), "folder": log.mkdir}[
        bait
    ]()
    with pytest.raises(InputError, match=r"log\.jsonl is .*remove it"):
        append_line(log, {"step": 3})
    assert precious.read_text() == "precious\n"


@pytest.mark.parametrize("name", ["run.json", "responses.jsonl"])
@pytest.mark.parametrize("bait", ["fifo", "folder"])
def test_reading_a_folder_from_someone_else_waits_for_no_pipe(tmp_path, reopen, name, bait):
    with reopen() as run:
        run.append(record(1))
    place = tmp_path / "run" / name
    place.unlink()
    os.mkfifo(place) if bait == "fifo" else place.mkdir()
    with pytest.raises(InputError, match=rf"{name} is no plain file"):
        read_run(tmp_path / "run") and list(read_records(tmp_path / "run"))


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "metrics.json").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "metrics.json", {})
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "metrics.json").is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, reopen, mask):
    before = os.umask(mask)
    try:
        with reopen() as run:
            run.append(record(1))
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    made = [tmp_path / "x.json", *(tmp_path / "run").iterdir()]
    assert {path.name: path.stat().st_mode & 0o777 for path in made} == {
        path.name: 0o666 & ~mask for path in made
    }


def test_what_a_killed_process_left_is_swept_by_the_next_writer(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom cello1.runs import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "big [1].h5ad"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, target], check=False)
        assert len(list(tmp_path.iterdir())) == 1  # the newer sweeps the older
    (tmp_path / ".other.part").touch()  # not ours
    write_atomic(target, b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {target.name, ".other.part"}


def test_what_a_living_process_writes_is_not_swept(tmp_path):
    with replacing(tmp_path / "a") as first:
        first.write_bytes(b"1")
        write_atomic(tmp_path / "a", b"2")
        assert first.exists()
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_folder_appears_whole_and_has_one_writer(tmp_path, mask):
    out, before = tmp_path / "model", os.umask(mask)
    try:
        with appearing(out) as part:
            (part / "weights").write_bytes(b"1")
            (part / "weights").chmod(0o600)  # as some libraries do
            with pytest.raises(InputError, match="model is in use by another process"):
                appearing(out).__enter__()
            assert [p.name for p in part.iterdir()] == ["weights"]  # left alone by the other
            assert not out.exists()
    finally:
        os.umask(before)
    assert (out / "weights").stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(InputError, match="exists and is not empty; choose another --out"):
        appearing(out).__enter__()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_left_of_a_folder_is_swept(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom cello1.runs import appearing\n"
        "with appearing(Path(sys.argv[1])) as part:\n"
        "    (part / 'data').mkdir()\n    (part / 'data' / 'x').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert [p.name for p in tmp_path.iterdir()] == [".a.part"]
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a") as part:
        1 / len(list(part.iterdir()))
    assert not list(tmp_path.iterdir())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (tmp_path / ".a.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a symbolic link"):
        appearing(tmp_path / "a").__enter__()
    assert (tmp_path / "elsewhere" / "precious").exists()


@pytest.mark.parametrize(
    "text", ["[]", "7", "{}", '{"inputs": 3}', '{"command": "solve"}', "[" * 9_999]
)
def test_an_altered_run_json_is_told_in_one_line(tmp_path, reopen, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(InputError, match="run"), reopen():
        pass


@pytest.mark.parametrize("line", ["[1]", '{"text": "x"}', "{" * 5, "[" * 99_999, '{"id": 1}'])
def test_an_altered_record_is_told_with_its_line(tmp_path, reopen, line):
    with reopen() as run:
        run.append(record(1))
    path = tmp_path / "run" / "responses.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2 is damaged"):
        list(read_records(tmp_path / "run"))


def test_no_password_is_stored_or_told(tmp_path, reopen):
    secret = {"options": {"base_url": "http://me:hunter2@host:1/v1?key=hunter3", "n": 1}}
    with reopen(config=secret):
        pass
    text = (tmp_path / "run" / "run.json").read_text()
    assert "http://host:1/v1" in text
    with reopen(config=secret):
        pass
    # A folder of an earlier version may still hold one.
    older = text.replace("http://host:1/v1", "http://me:hunter2@host:2/v1?key=hunter3")
    (tmp_path / "run" / "run.json").write_text(older)
    with pytest.raises(InputError, match="host:2") as caught:
        reopen(config={"options": {"base_url": "http://me:hunter4@host:1/v1", "n": 1}})
    assert "hunter" not in text + str(caught.value)
