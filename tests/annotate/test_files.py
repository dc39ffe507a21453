"""Many files in one call: each by itself, resumed where it stopped, the same on a cluster."""

from __future__ import annotations

import json
from importlib.util import find_spec

import anndata
import pytest
from blood import blood

from cello1.annotate import files as room
from cello1.annotate.files import annotate_file, annotate_files
from cello1.engine import connected
from cello1.errors import InputError, UseError

OPTIONS = {"groupby": "cluster", "tissue": "blood"}
NAMES = ["a.h5ad", "b.h5ad", "c.h5ad"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(NAMES):
        cells = blood()
        cells[seed:].copy().write_h5ad(folder / name)
    return [folder / name for name in NAMES]


@pytest.fixture(scope="module")
def alone(files, tmp_path_factory):
    """The same files, annotated by three calls."""
    folder = tmp_path_factory.mktemp("alone")
    for file in files:
        annotate_file(file, folder / file.name, **OPTIONS)
    return folder


def same(folder, alone, names=NAMES):
    return all((folder / name).read_bytes() == (alone / name).read_bytes() for name in names)


def test_many_files_are_annotated_as_each_by_itself(files, alone, tmp_path):
    out = tmp_path / "out"
    made = annotate_files(files, out, labels=tmp_path / "labels", **OPTIONS)
    assert made == {out / name: None for name in NAMES}
    assert same(out, alone)
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == ["a.csv", "b.csv", "c.csv"]
    assert {p.name for p in out.iterdir()} == {*NAMES, "run.json", "responses.jsonl", ".lock"}


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'cello1[ray]'")
def test_a_cluster_annotates_them_alike_and_resumes(files, alone, tmp_path):
    with connected():
        made = annotate_files(files[:2], tmp_path / "out", engine="ray", **OPTIONS)
        assert set(made.values()) == {None}
        stamps = [(tmp_path / "out" / name).stat().st_mtime_ns for name in NAMES[:2]]
        annotate_files(files, tmp_path / "out", engine="ray", **OPTIONS)
    assert same(tmp_path / "out", alone)
    assert stamps == [(tmp_path / "out" / name).stat().st_mtime_ns for name in NAMES[:2]]


def test_an_interrupted_call_goes_on_where_it_stopped(files, alone, tmp_path, monkeypatch):
    done, annotate = [], room.annotate_file

    def stops(path, *rest, **more):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(path.name)
        return annotate(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(room, "annotate_file", stops)
        with pytest.raises(KeyboardInterrupt):
            annotate_files(files, tmp_path / "out", **OPTIONS)
    told = []
    annotate_files(files, tmp_path / "out", watch=lambda name, share: told.append(name), **OPTIONS)
    assert done == NAMES[:1]
    assert set(told) == set(NAMES[1:])
    assert same(tmp_path / "out", alone)


def test_a_file_that_fails_costs_no_other_and_is_tried_again(files, alone, tmp_path):
    bad, out = tmp_path / "bad.h5ad", tmp_path / "out"
    bad.write_text("no HDF5")
    made = annotate_files([files[0], bad], out, **OPTIONS)
    assert made[out / "a.h5ad"] is None
    assert "bad.h5ad" in made[out / "bad.h5ad"]
    bad.write_bytes(files[1].read_bytes())
    assert annotate_files([files[0], bad], out, **OPTIONS)[out / "bad.h5ad"] is None
    assert same(out, alone, ["a.h5ad"])


def test_other_settings_do_not_mix_in_one_folder(files, tmp_path):
    annotate_files(files[:1], tmp_path / "out", **OPTIONS)
    with pytest.raises(InputError, match="choose another --out"):
        annotate_files(files, tmp_path / "out", **OPTIONS, min_confidence=0.9)


def test_what_cannot_be_told_apart_or_written_is_refused(files, tmp_path):
    (tmp_path / "a.h5ad").write_bytes(files[0].read_bytes())
    with pytest.raises(UseError, match="have one name"):
        annotate_files([files[0], tmp_path / "a.h5ad"], tmp_path / "out")
    with pytest.raises(UseError, match="expected a folder for 2 files"):
        annotate_files(files[:2], tmp_path / "out.h5ad")
    with pytest.raises(UseError, match="the input itself"):
        annotate_files(files, files[0].parent)
    with pytest.raises(InputError, match=r"none\.h5ad does not exist"):
        annotate_files([files[0], tmp_path / "none.h5ad"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_several_files(files, tmp_path, run):
    bad, out = tmp_path / "bad.h5ad", tmp_path / "out"
    bad.write_text("no HDF5")
    code, said, err = run("annotate", files[0], bad, "-o", out, "--groupby", "cluster", "--json")
    assert code == 1
    assert json.loads(said)[str(out / "a.h5ad")] is None
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: bad.h5ad: ")
    assert "cello1" in anndata.read_h5ad(out / "a.h5ad").obs
    code, said, _ = run("annotate", files[0], files[1], "-o", out, "--groupby", "cluster")
    assert (code, said) == (0, f"written to {out / 'a.h5ad'}\nwritten to {out / 'b.h5ad'}\n")
