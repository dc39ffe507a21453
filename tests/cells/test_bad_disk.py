"""A disk that is full, read-only or forbidden is told as such, and costs nothing that was done."""

from __future__ import annotations

import errno
import gc
import subprocess

import h5py
import numpy as np
import pytest

from cello1.cells.build import build
from cello1.cells.h5ad.write import write_h5ad
from cello1.errors import InputError


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system; `disk(..., remount=True)` changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot mount a small disk here ({error})")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@pytest.mark.parametrize("out", ["", "new folder"])
def test_a_read_only_folder_is_an_error_of_the_system(make_cells, save, small, disk, out):
    path, folder = save(make_cells()), disk("ro,size=1m")
    with pytest.raises(OSError, match="Read-only file system") as error:
        build([path], folder / out, small())
    assert error.value.errno == errno.EROFS


@pytest.mark.parametrize("size", ["4k", "12k", "28k", "44k", "60k"])
def test_a_full_disk_is_told_as_such_and_the_build_goes_on_when_there_is_room(
    make_cells, save, small, disk, tmp_path, size
):
    """Whatever does not fit: run.json, a part, the report or a split."""
    files = [save(make_cells(seed=i), name) for i, name in enumerate("ab")]
    folder = disk(f"size={size}")
    with pytest.raises((InputError, OSError), match="No space left on device") as error:
        build(files, folder, small())
    assert "\n" not in str(error.value)
    assert not (folder / "audit.json").exists()
    disk("remount,size=8m")
    assert build(files, folder, small()).ok
    build(files, tmp_path / "out", small())
    for name in ("train.parquet", "validation.parquet", "test.parquet", "build.json"):
        assert (folder / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("size", ["8k", "40k", "80k", "120k"])
def test_an_h5ad_that_finds_no_room_is_told_once(make_cells, disk, capfd, size):
    cells, folder = make_cells(donors=8), disk(f"size={size}")
    cells.uns = {f"part {i}": np.arange(500) * 1.5 + i for i in range(30)}
    with pytest.raises(OSError, match=r"No space left on device .* free\): .*x\.h5ad") as error:
        write_h5ad(cells, folder / "x.h5ad")
    del error
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert not list(folder.iterdir())
    disk("remount,size=8m")
    write_h5ad(cells, folder / "x.h5ad")


def test_a_full_temporary_folder_is_told_as_such(
    make_cells, save, small, disk, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(disk("size=4k")))
    path = save(make_cells(cells=8))
    with pytest.raises((InputError, OSError), match="No space left on device"):
        build([path], tmp_path / "out", small())


def test_a_file_that_may_not_be_read_fails_alone(make_cells, save, small, tmp_path, monkeypatch):
    """As root nothing is forbidden, so the refusal of the system is played."""
    bad, good = save(make_cells(), "bad"), save(make_cells(seed=1))
    real_open = h5py.File

    def refuse(path, *rest, **more):
        if str(path).endswith("bad.h5ad"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *rest, **more)

    monkeypatch.setattr(h5py, "File", refuse)
    built = build([bad, good], tmp_path / "out", small())
    assert [r.status for r in built.reports] == ["failed", "built"]
    assert "Permission denied" in built.reports[0].message
