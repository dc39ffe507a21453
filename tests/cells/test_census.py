"""The Census gives what its files give: lists, puzzles and splits, killed and resumed."""

import json
import signal
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cello1
from cello1.cells import census
from cello1.cells.census import extract, is_census, look_up
from cello1.cli import app
from cello1.errors import InputError, UseError
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BuildSettings
from cello1.recipes.census import CensusSettings

soma = pytest.importorskip("tiledbsoma", reason="needs tiledbsoma: pip install 'cello1[census]'")
tiledbsoma_io = pytest.importorskip("tiledbsoma.io")

FILES = ("baron2016_pancreas350", "kang2018_ifnb2800")
EVERY = CensusSettings(per_type=10_000)
BUILD = BuildSettings(n_min=4, n_max=6, per_n=6, seed=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory, cells_dir):
    """Two data sets as files of one shape; a donor of each has the same name."""
    folder = tmp_path_factory.mktemp("files")
    tables = []
    for name in FILES:
        cells = ad.read_h5ad(cells_dir / f"{name}.h5ad")
        names = cells.var["feature_name"].astype(str)
        cells = cells[:, ~names.duplicated().to_numpy()].copy()
        cells.var = cells.var[["feature_name"]].astype(str)
        cells.var_names = cells.var["feature_name"].to_numpy()
        cells.X = sp.csr_matrix(cells.X).astype(np.float32)
        cells.uns, cells.obsm, cells.layers = {}, {}, {}
        donors = cells.obs["donor_id"].astype(str)
        cells.obs["donor_id"] = donors.replace({"1015": "donor 1", "human1": "donor 1"})
        cells.obs["dataset_id"], cells.obs["is_primary_data"] = name, True
        tables.append(cells)
    keep = sorted(set(tables[0].obs) & set(tables[1].obs))
    for cells in tables:
        cells.obs = cells.obs[keep].astype({k: str for k in keep if k != "is_primary_data"})
    both = ad.concat(tables, join="outer")
    both.X = sp.csr_matrix(both.X)
    both.obs["cell_type"] = both.obs["cell_type"].where(np.arange(len(both)) % 97 > 0, "unknown")
    # As the Census names cells, so that drawing from files and from the Census is one thing.
    ids = both.obs["dataset_id"] + ":" + np.arange(len(both)).astype(str)
    both.obs_names = ids.to_numpy()
    both.var["feature_name"] = both.var_names
    for name in FILES:
        both[both.obs["dataset_id"] == name].copy().write_h5ad(folder / f"{name}.h5ad")
    both.var_names = [f"G{i}" for i in range(both.n_vars)]
    return folder, both


@pytest.fixture(scope="module")
def source(tmp_path_factory, files):
    """A collection of the Census's shape, on this machine."""
    top = tmp_path_factory.mktemp("soma") / "census"
    with soma.Collection.create(top.as_uri()) as made:
        made.add_new_collection("census_info")
        made.add_new_collection("census_data")
    where = top / "census_data"
    uri = tiledbsoma_io.from_anndata(
        (where / "homo_sapiens").as_uri(),
        files[1].copy(),
        measurement_name="RNA",
        X_layer_name="raw",
        obs_id_name="obs_id",
        var_id_name="feature_id",
    )
    with soma.Collection.open(where.as_uri(), "w") as data, soma.Experiment.open(uri) as one:
        data.set("homo_sapiens", one, use_relative_uri=True)
    return f"census:{top}"


def listed(puzzles):
    """Everything of some puzzles that does not name the file they came from."""
    return [(p.id, p.context, p.cells, p.candidates, p.answer, p.meta["cell_ids"]) for p in puzzles]


def splits(folder):
    return {path.stem: read_puzzles(path) for path in sorted(folder.glob("*.parquet"))}


def test_lists_puzzles_and_splits_are_those_of_the_files(files, source, tmp_path):
    folder, _ = files
    found = look_up(source, EVERY, 0)
    assert [data.id for data in found] == list(FILES)
    paths = extract(source, EVERY, found, tmp_path / "cells", 0)
    ours = cello1.build(paths, tmp_path / "census", BUILD)
    theirs = cello1.build([folder / f"{n}.h5ad" for n in FILES], tmp_path / "files", BUILD)
    a, b = splits(ours.folder), splits(theirs.folder)
    assert a.keys() == b.keys()
    assert sum(map(len, a.values())) > 10
    for name in a:
        assert listed(a[name]) == listed(b[name])
    assert ours.audit.passed


def test_expression_is_that_of_the_file_row_by_row(files, source, tmp_path):
    _, both = files
    settings = CensusSettings(per_type=3)
    for path in extract(source, settings, look_up(source, settings, 1), tmp_path, 1):
        cells = ad.read_h5ad(path)
        assert (both[cells.obs_names].X != cells.X).nnz == 0
        assert (both[cells.obs_names].obs["cell_type"] == cells.obs["cell_type"]).all()
        note = json.loads(cells.uns["census"])
        assert note["census"] == settings.census
        assert note["dataset_id"] == path.stem


def test_cells_are_drawn_before_reading_and_depend_on_the_seed_alone(source):
    few = CensusSettings(per_type=4)
    first, again, other = (look_up(source, few, seed) for seed in (0, 0, 1))
    for a, b, c, all_cells in zip(first, again, other, look_up(source, EVERY, 0), strict=True):
        assert a.drawn.tolist() == b.drawn.tolist() != c.drawn.tolist()
        assert len(a.drawn) <= 4 * sum(a.donors.values())
        assert set(a.drawn) < set(all_cells.drawn)
        dropped = sum(all_cells.drops.values())
        assert len(all_cells.drawn) + dropped == all_cells.cells
    kang = CensusSettings(per_type=4, where="dataset_id == 'kang2018_ifnb2800'")
    assert look_up(source, kang, 0)[0].drawn.tolist() == first[1].drawn.tolist()


def test_cells_without_type_or_donor_are_dropped_with_counts(files, source):
    _, both = files
    for data in look_up(source, EVERY, 0):
        mine = both.obs[both.obs["dataset_id"] == data.id]
        unknown = (mine["cell_type"] == "unknown").sum()
        pooled = ((mine["cell_type"] != "unknown") & (mine["donor_id"] == "unknown")).sum()
        want = {"cell type unknown": unknown, "donor unknown or pooled": pooled}
        assert data.drops == {rule: n for rule, n in want.items() if n}


def test_a_filter_is_obeyed(files, source):
    _, both = files
    found = look_up(source, EVERY.model_copy(update={"where": "tissue == 'blood'"}), 0)
    assert [data.id for data in found] == ["kang2018_ifnb2800"]
    assert found[0].cells == (both.obs["tissue"] == "blood").sum()


@pytest.mark.parametrize(
    ("where", "kind", "words"),
    [
        ("no_such == 'x'", UseError, "no_such"),
        ("tissue ==", UseError, "cannot be"),
        ("tissue = 'blood'", UseError, "cannot be"),
        ("import os", UseError, "cannot be"),
        ("tissue == 'the moon'", InputError, "no cell fits"),
    ],
)
def test_bad_filters_are_said_in_one_line(source, where, kind, words):
    with pytest.raises(kind, match=words) as caught:
        look_up(source, CensusSettings(where=where), 0)
    assert "\n" not in str(caught.value)


def test_what_is_no_census_is_said_in_one_line(tmp_path, files):
    (tmp_path / "empty").mkdir()
    wrong = [tmp_path / "none", tmp_path / "empty", files[0] / "kang2018_ifnb2800.h5ad"]
    for path in wrong:
        with pytest.raises(InputError, match="cannot be opened as SOMA") as caught:
            look_up(f"census:{path}", EVERY, 0)
        assert "\n" not in str(caught.value)
    with soma.Collection.create((tmp_path / "other").as_uri()):
        pass
    with pytest.raises(InputError, match="has no homo_sapiens"):
        look_up(f"census:{tmp_path / 'other'}", EVERY, 0)


def test_an_old_tiledbsoma_is_named(monkeypatch, source):
    monkeypatch.setattr(census.metadata, "version", lambda name: "2.2.1")
    with pytest.raises(InputError, match=r"expected 2\.3 or newer"):
        look_up(source, EVERY, 0)


def test_libraries_that_do_not_go_together_are_named():
    words = r"^tiledbsoma 2\S+ cannot be imported with pandas \S+ \(no attribute 'x'\); install"
    with pytest.raises(InputError, match=words) as caught, census._importing("tiledbsoma"):
        raise AttributeError("no attribute 'x'\n\nAt:\n  somewhere")
    assert "\n" not in str(caught.value)


def test_without_a_network_the_census_cannot_be_reached(monkeypatch):
    """The library of the Census asks with `requests`; what that says is real."""
    requests = pytest.importorskip("requests")
    asks = types.ModuleType("cellxgene_census")
    asks.open_soma = lambda census_version: requests.get("https://census.invalid/", timeout=5)
    asks.__spec__ = ModuleSpec("cellxgene_census", None)
    monkeypatch.setitem(sys.modules, "cellxgene_census", asks)
    with pytest.raises(
        InputError, match=r"^the Census cannot be reached \(.*census:FOLDER$"
    ) as caught:
        look_up("census:", EVERY, 0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


MIRRORS = {
    "default": "here",
    "here": {"provider": "S3", "base_uri": "s3://none/", "region": "us-west-2"},
}
RELEASES = {
    "stable": "2025-11-08",
    "2025-11-08": {
        "release_date": None,
        "release_build": "2025-11-08",
        "soma": {"uri": "s3://none/soma/", "relative_uri": "/soma/", "s3_region": "us-west-2"},
        "h5ads": {"uri": "s3://none/h5ads/", "relative_uri": "/h5ads/", "s3_region": "us-west-2"},
    },
}


def test_an_unknown_release_is_said_in_one_line(monkeypatch):
    """Of the real library, with a list of releases from this machine."""
    real = pytest.importorskip("cellxgene_census", reason="needs cellxgene-census")

    class Lists(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            lists = MIRRORS if self.path == "/mirrors.json" else RELEASES
            self.wfile.write(json.dumps(lists).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Lists) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("RELEASE", "MIRRORS"):
            file = "release.json" if name == "RELEASE" else "mirrors.json"
            address = f"http://127.0.0.1:{server.server_port}/{file}"
            monkeypatch.setattr(
                real._release_directory, f"CELL_CENSUS_{name}_DIRECTORY_URL", address
            )
        with pytest.raises(InputError, match="the Census has no release '1999-01-01'") as caught:
            look_up("census:", CensusSettings(census="1999-01-01"), 0)
        server.shutdown()
    assert "\n" not in str(caught.value)


def test_a_broken_connection_is_tried_again(source, tmp_path, monkeypatch):
    monkeypatch.setattr(census, "_PATIENCE", 0.0)
    write, calls = census._write, []

    def breaks_twice(*args):
        calls.append(1)
        if len(calls) in (1, 2):
            raise soma.SOMAError("S3: connection reset")
        write(*args)

    monkeypatch.setattr(census, "_write", breaks_twice)
    settings = CensusSettings(per_type=2)
    found = look_up(source, settings, 0)
    assert len(extract(source, settings, found, tmp_path / "a", 0)) == 2
    assert len(calls) == 4

    def breaks(*args):
        raise soma.SOMAError("S3: connection reset\n\nAt:\n  somewhere")

    monkeypatch.setattr(census, "_write", breaks)
    with pytest.raises(InputError, match=r"failed 5 times \(.*connection reset\); run") as caught:
        extract(source, settings, found, tmp_path / "b", 0)
    assert "\n" not in str(caught.value)


CHILD = """
import os, signal, sys
from pathlib import Path
from cello1.cells import census
from cello1.recipes.census import CensusSettings
census.ROWS = 64
settings = CensusSettings(per_type=10_000)
found = census.look_up(sys.argv[1], settings, 0)
def tell(name, share):
    if name == sys.argv[3] and 0 < share < 1:
        os.kill(os.getpid(), signal.SIGKILL)
census.extract(sys.argv[1], settings, found, Path(sys.argv[2]), 0, tell)
"""


def test_killed_and_resumed_gives_the_same_bytes(source, tmp_path):
    def status(folder, killed_in=""):
        call = [sys.executable, "-c", CHILD, source, str(folder), killed_in]
        return subprocess.run(call, check=False).returncode

    assert status(tmp_path / "killed", "kang2018_ifnb2800") == -signal.SIGKILL  # the second
    before = sorted(p for p in (tmp_path / "killed").rglob("*.h5ad"))
    assert [p.stem for p in before] == ["baron2016_pancreas350"]
    stamp = before[0].stat().st_mtime_ns
    assert status(tmp_path / "whole") == 0
    found = look_up(source, EVERY, 0)
    extract(source, EVERY, found, tmp_path / "killed", 0)
    assert before[0].stat().st_mtime_ns == stamp
    made, want = ({p.name: p for p in files_of(tmp_path / f)} for f in ("killed", "whole"))
    assert made.keys() == want.keys()
    for name, path in want.items():
        a, b = ad.read_h5ad(made[name]), ad.read_h5ad(path)
        assert (a.X != b.X).nnz == 0
        assert a.obs.equals(b.obs)


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_the_command_line_builds_and_looks_up(source, tmp_path):
    def call(*words):
        run = CliRunner().invoke(app, list(words))
        assert run.exit_code == 0, run.output
        return run.output

    kang = ["--where", "dataset_id == 'kang2018_ifnb2800'", "--per-type", "20"]
    said = call("doctor", source, *kang)
    assert "kang2018_ifnb2800" in said
    assert "donors have 8 types or more" in said
    assert "left out:" in said
    listed = json.loads(call("doctor", source, "--json"))
    assert [data["id"] for data in listed] == list(FILES)
    out = tmp_path / "out"
    size = ["--n-min", "4", "--n-max", "5", "--per-n", "4", "--split", "none"]
    call("build", source, *kang, *size, "--out", str(out))
    first = (out / "all.parquet").read_bytes()
    call("build", source, *kang, *size, "--out", str(out))  # finished: the same again
    assert (out / "all.parquet").read_bytes() == first
    config = json.loads((out / "run.json").read_text())["config"]["census"]
    assert config["sources"] == [source]
    assert config["per_type"] == 20
    run = CliRunner().invoke(app, ["build", source, *size, "--per-type", "9", "--out", str(out)])
    assert run.exit_code != 0


def test_a_source_of_the_census_is_known_by_its_prefix(tmp_path):
    assert is_census("census:")
    assert is_census("census:s3://bucket/soma")
    assert not is_census(tmp_path / "census.h5ad")
