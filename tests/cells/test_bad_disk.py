"""A disk that is full, read-only or forbidden is told as such, and costs nothing that was done."""

from __future__ import annotations

import errno
import subprocess

import h5py
import pytest

from cello1.cells.build import build
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
