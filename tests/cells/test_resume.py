"""A build killed at any write goes on; a finished one stays; nothing is mixed or overwritten."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import h5py
import pytest

from cello1.cells.build import build
from cello1.errors import InputError
from cello1.puzzles.table import write_puzzles
from cello1.recipes import BuildSettings
from cello1.runs import Run

KILLER = """
import os, signal, sys
import anndata.io
from pathlib import Path
from cello1.cells.build import build
from cello1.recipes import BuildSettings
from cello1.scoring.ontology import term_id

term_id("B cell")  # load the ontology once for all
plan = BuildSettings.model_validate_json(sys.argv[1])
def run(point):
    left, sync = point, os.fsync
    def fsync(handle):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)
    os.fsync = fsync
    build(sys.argv[3:], Path(sys.argv[2]) / str(point), plan)

for point in range(1, 12):
    child = os.fork()  # nothing has started threads yet
    if child == 0:
        run(point)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
KILLS = range(1, 11)  # run.json, 2 x (part, note), build.json, 3 splits, audit.json


@pytest.fixture(scope="module")
def killed(tmp_path_factory, make_cells):
    """Folders of builds that were killed at their first, second, ... write."""
    folder = tmp_path_factory.mktemp("killed")
    files = []
    for i, name in enumerate("ab"):
        files.append(folder / f"{name}.h5ad")
        make_cells(seed=i, types=8).write_h5ad(files[-1])
    plan = BuildSettings(n_min=7, n_max=11, per_n=6)
    command = [sys.executable, "-c", KILLER, plan.model_dump_json(), str(folder), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [int(code) for code in done.stdout.split()] == [-signal.SIGKILL] * 10 + [0]
    return folder, files, plan


@pytest.mark.parametrize("point", KILLS)
def test_a_build_killed_while_writing_goes_on_to_the_same_bytes(killed, tmp_path, point, contents):
    folder, files, plan = killed
    out, made = tmp_path / "out", []
    shutil.copytree(folder / str(point), out)
    assert not (out / "audit.json").exists()
    build(files, out, plan, watch=lambda dataset, share: made.append(dataset))
    assert contents(out) == contents(folder / "11")
    assert {p.name for p in out.iterdir()} == {*contents(out), "run.json", ".lock"}
    assert (
        sorted(set(made)) == ["a", "b"][max(0, (point - 2) // 2) :]
    )  # what was whole is not made again


def test_a_killed_build_may_be_replaced_by_one_with_other_settings(killed, tmp_path):
    """Nothing was finished, so there is nothing to mix with."""
    _, files, plan = killed
    out = tmp_path / "out"
    with Run(out, command="build", config=plan.model_dump(mode="json"), inputs=files):
        pass
    assert build(files, out, plan.model_copy(update={"seed": 3})).ok


# --- folders that hold something ------------------------------------------------------------


@pytest.fixture
def small_files(make_cells, save):
    return [save(make_cells(seed=i), name) for i, name in enumerate("ab")]


def stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name != ".lock"}


def test_a_finished_build_is_not_made_again(small_files, small, tmp_path, contents):
    first = build(small_files, tmp_path / "out", small())
    before = contents(tmp_path / "out"), stamps(tmp_path / "out")
    assert build(small_files, tmp_path / "out", small(), watch=None) == first
    assert (contents(tmp_path / "out"), stamps(tmp_path / "out")) == before


@pytest.mark.parametrize("change", ["settings", "inputs", "fewer inputs"])
def test_a_finished_folder_takes_nothing_else(
    small_files, small, tmp_path, make_cells, contents, change
):
    out = tmp_path / "out"
    build(small_files, out, small())
    before = contents(out)
    if change == "inputs":
        make_cells(seed=9).write_h5ad(small_files[0])
    files = small_files[:1] if change == "fewer inputs" else small_files
    plan = small(seed=5) if change == "settings" else small()
    with pytest.raises(InputError, match=r"choose another --out"):
        build(files, out, plan)
    assert contents(out) == before


def test_a_foreign_folder_with_puzzles_is_left_alone(small_files, small, tmp_path, make_puzzle):
    write_puzzles([make_puzzle()], tmp_path / "train.parquet")
    before = (tmp_path / "train.parquet").read_bytes()
    with pytest.raises(InputError, match=r"of other origin; choose another --out"):
        build(small_files, tmp_path, small())
    assert (tmp_path / "train.parquet").read_bytes() == before
    assert not (tmp_path / "run.json").exists()


def test_a_folder_in_use_is_left_alone(small_files, small, tmp_path):
    out, plan = tmp_path / "out", small()
    with Run(out, command="build", config=plan.model_dump(mode="json"), inputs=small_files):
        (out / ".train.parquet.x.part").write_text("being written")
        before = stamps(out)
        with pytest.raises(InputError, match="in use by another process"):
            build(small_files, out, plan)
        assert stamps(out) == before


def test_the_run_of_another_command_is_left_alone(small_files, small, tmp_path):
    out = tmp_path / "out"
    with Run(out, command="solve", config={"solver": "chance"}, inputs=small_files) as run:
        run.append({"id": "1"})
    before = stamps(out)
    with pytest.raises(InputError, match="choose another --out"):
        build(small_files, out, small())
    assert stamps(out) == before


def test_a_file_in_the_place_of_the_folder_is_refused(small_files, small, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        build(small_files, tmp_path / "out", small())


@pytest.mark.parametrize("misfortune", [MemoryError(), OSError(28, "No space left on device")])
def test_what_failed_by_misfortune_is_tried_again(
    small_files, small, tmp_path, monkeypatch, misfortune
):
    real_open = h5py.File

    def fail(path, *rest, **more):
        if str(path).endswith("b.h5ad"):
            raise misfortune
        return real_open(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", fail)
        assert [r.status for r in build(small_files, tmp_path / "out", small()).reports] == [
            "built",
            "failed",
        ]
    assert build(small_files, tmp_path / "out", small()).ok


def test_the_results_of_good_files_stay_while_a_bad_one_is_tried_again(
    small_files, small, tmp_path, contents
):
    """Also when that trial is broken off, and also when it fails as before."""
    bad, out = tmp_path / "bad.h5ad", tmp_path / "out"
    bad.write_text("no HDF5")
    files = [*small_files, bad]
    build(files, out, small())
    before = contents(out)

    def break_off(dataset, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(files, out, small(), watch=break_off)
    assert contents(out) == before
    build(files, out, small())
    assert contents(out) == before


def test_a_damaged_part_is_made_again(small_files, small, tmp_path, contents):
    bad, out, made = tmp_path / "bad.h5ad", tmp_path / "out", []
    bad.write_text("no HDF5")  # so that the parts of the good files stay
    build([*small_files, bad], out, small())
    before = contents(out)
    part = next((out / ".parts").glob("a-*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])
    build([*small_files, bad], out, small(), watch=lambda dataset, share: made.append(dataset))
    assert sorted(set(made)) == ["a", "bad"]
    assert contents(out) == before
