"""Files in, splits out: no leaks, and the same bytes every time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import combinations

import pytest

from cello1.cells.audit import audit
from cello1.cells.build import build
from cello1.cells.make import make_puzzles
from cello1.cells.split import split_puzzles
from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.source import find_splits
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.puzzles.universe import genes, measured_of
from cello1.recipes import BuildSettings
from cello1.scoring.score import score


def parts(splits):
    return {name: read_puzzles(path) for name, path in splits.items()}


# --- dealt some at a time ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"split": "none"},
        {"split": "cell"},
        {"split": "puzzle"},
        {"split": "dataset"},
        {"test_donors": ["a1"]},
    ],
    ids=str,
)
def test_what_is_dealt_in_files_equals_what_is_dealt_in_memory(
    make_cells, save, small, tmp_path, monkeypatch, change
):
    monkeypatch.setattr("cello1.puzzles.table.ROWS", 4)  # so that there are several row groups
    files = []
    for i, name in enumerate("abc"):
        cells = make_cells(seed=i)
        cells.obs["donor_id"] = [d.replace("D", name) for d in cells.obs["donor_id"]]
        files.append(save(cells, name))
    plan = small(**change)
    made = build(files, tmp_path / "out", plan)
    splits = split_puzzles([p for file in files for p in make_puzzles(file, plan)[0]], plan)
    assert sum(map(len, splits.values())) > 8
    assert {p.stem for p in made.folder.glob("*.parquet")} == set(splits)
    for name, puzzles in splits.items():
        write_puzzles(puzzles, tmp_path / f"{name}.parquet")
        assert (made.folder / f"{name}.parquet").read_bytes() == (
            tmp_path / f"{name}.parquet"
        ).read_bytes()
    assert made.audit == audit(splits)
    assert json.loads((made.folder / "audit.json").read_text()) == json.loads(
        json.dumps(audit(splits).to_json())
    )
    assert not (made.folder / ".parts").exists()


def test_cells_in_two_files_leave_no_splits_behind(make_cells, small, tmp_path):
    cells = make_cells()
    for name in ("a", "b"):
        cells.obs["donor_id"] = [f"{name} {d}" for d in cells.obs["donor_id"]]
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.raises(InputError, match="would share cells"):
        build([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], tmp_path / "out", small())
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not (tmp_path / "out" / ".parts" / "train.parquet").exists()


# --- the real files -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(cells_dir, tmp_path_factory):
    return build(sorted(cells_dir.glob("*.h5ad")), tmp_path_factory.mktemp("real"), workers=2)


def test_real_files_yield_splits_that_share_no_donor_and_no_cell(real):
    assert real.ok
    assert (real.audit.leaks, real.audit.duplicates, real.audit.gold_failures) == (0, 0, [])
    splits = parts(find_splits(real.folder))
    assert {name: len(members) > 0 for name, members in splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), True
    )
    for a, b in combinations(splits.values(), 2):
        assert not {p.meta["donor_id"] for p in a} & {p.meta["donor_id"] for p in b}
        assert not {g for p in a for g in p.cells} & {g for p in b for g in p.cells}


def test_every_puzzle_of_the_real_files_keeps_the_contract(real):
    puzzles = [p for members in parts(find_splits(real.folder)).values() for p in members]
    assert len(puzzles) == sum(report.puzzles for report in real.reports) == 320
    for p in puzzles:
        assert score(p, response_text("", p.answer)).reward == 1.0
        assert 8 <= len(p.cells) == len(p.candidates) <= 15
        assert all(1 <= len(cell) == len(set(cell)) <= 50 for cell in p.cells)
        assert p.meta["donor_id"] not in ("unknown", "pooled", None)
        assert {"dataset", "batch", "tissue", "disease", "cell_ids", "genes"} <= set(p.meta)
        listed = {gene for cell in p.cells for gene in cell}
        named = {names[0] for names in genes() if not listed.isdisjoint(names)}
        assert named <= measured_of(p.meta["universe"])


def test_every_drop_in_the_real_files_is_reported(real):
    reports = {report.dataset: report for report in real.reports}
    assert list(reports) == sorted(reports)
    assert all(r.used + sum(r.drops.values()) == r.cells for r in reports.values())
    kang = reports["kang2018_ifnb2800"]
    assert kang.drops == {"donor unknown or pooled": 1415}
    assert (kang.donors, kang.values) == (8, "counts")
    assert reports["pbmc3k_lognorm"].values == "normalised"


def test_real_files_without_puzzles_say_why_and_are_no_failure(real):
    why = {r.dataset: r.message for r in real.reports if r.status == "no puzzles"}
    assert set(why) == {"baron2016_pancreas350", "he2020_liver20", "puram2017_hnscc180"}
    assert "lower --n-min to 5" in why["baron2016_pancreas350"]
    assert "--pooled-donors" in why["puram2017_hnscc180"]


def test_what_was_found_is_written_beside_the_puzzles(real):
    assert json.loads((real.folder / "audit.json").read_text()) == json.loads(
        json.dumps(real.audit.to_json())
    )
    assert [r["dataset"] for r in json.loads((real.folder / "build.json").read_text())] == [
        r.dataset for r in real.reports
    ]


def test_the_pooled_tumour_file_works_with_its_option(cells_dir, tmp_path):
    plan = BuildSettings(pooled_donors=True, split="none", per_n=10)
    built = build([cells_dir / "puram2017_hnscc180.h5ad"], tmp_path / "out", plan)
    puzzles = read_puzzles(tmp_path / "out" / "all.parquet")
    assert built.ok
    assert len(puzzles) == 20
    assert all(p.meta["pooled"] is True for p in puzzles)
    assert built.audit.marks[0].startswith("20 puzzles come from a pool")


def test_one_pool_cannot_be_split_by_donor_and_the_error_says_what_can_be_done(cells_dir, tmp_path):
    plan = BuildSettings(pooled_donors=True, per_n=2)
    with pytest.raises(InputError, match=r"only 1 group\(s\) of donors.*--split none"):
        build([cells_dir / "puram2017_hnscc180.h5ad"], tmp_path / "out", plan)


# --- the same bytes -------------------------------------------------------------------------

TWO = ("kang2018_ifnb2800.h5ad", "pbmc3k_lognorm.h5ad")
SCRIPT = """
import sys, time
from cello1.cells.audit import audit
from cello1.cells.build import build
from cello1.cells.make import make_puzzles
from cello1.cells.split import split_puzzles
def watch(dataset, share):
    if sys.argv[3] == "to be killed" and share == 1.0:
        time.sleep(60)
if __name__ == "__main__":
    build(sys.argv[4:], sys.argv[1], workers=int(sys.argv[2]), watch=watch)
"""


def start(tmp_path, out, files, workers, hashseed, what="to end"):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(workers), what, *map(str, files)],
        env={**os.environ, "PYTHONHASHSEED": str(hashseed)},
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def two(cells_dir, tmp_path_factory, contents):
    """A build of two real files in this process, which the others must repeat."""
    folder = tmp_path_factory.mktemp("two")
    build([cells_dir / name for name in TWO], folder)
    return contents(folder)


@pytest.mark.parametrize(("hashseed", "workers"), [(0, 1), (4242, 2)])
def test_hash_seed_workers_and_order_of_files_change_no_byte(
    cells_dir, tmp_path, two, contents, hashseed, workers
):
    files = [cells_dir / name for name in reversed(TWO)]
    assert start(tmp_path, tmp_path / "out", files, workers, hashseed).wait() == 0
    assert contents(tmp_path / "out") == two


def test_a_build_killed_with_its_workers_goes_on_to_the_same_bytes(
    cells_dir, tmp_path, two, contents
):
    out, files = tmp_path / "out", [cells_dir / name for name in TWO]
    process = start(tmp_path, out, files, workers=2, hashseed=7, what="to be killed")
    while process.poll() is None and not list(out.glob(".parts/*.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "audit.json").exists()
    build(files, out)
    assert contents(out) == two


# --- wrong use ------------------------------------------------------------------------------


@pytest.fixture
def small_files(make_cells, save):
    return [save(make_cells(seed=i), name) for i, name in enumerate("ab")]


def test_no_file_a_missing_file_and_two_of_one_name_are_refused(small_files, small, tmp_path):
    other = tmp_path / "other" / "a.h5ad"
    other.parent.mkdir()
    other.write_bytes(small_files[0].read_bytes())
    for files, why in [
        ([], "no file given"),
        ([*small_files, tmp_path / "c.h5ad"], r"c\.h5ad does not exist"),
        ([*small_files, other], r"have one name.*rename one"),
    ]:
        with pytest.raises(InputError, match=why):
            build(files, tmp_path / "out", small())


def test_a_file_named_twice_counts_once(small_files, small, tmp_path):
    assert len(build(small_files * 2, tmp_path / "out", small()).reports) == 2


def test_the_same_cells_under_other_donors_are_refused_and_nothing_is_written(
    make_cells, save, small, tmp_path
):
    adata = make_cells(donors=6)
    first = save(adata, "study")
    adata.obs["donor_id"] = adata.obs["donor_id"].astype(str) + " again"
    with pytest.raises(InputError, match=r"would share cells.*leave one of them out"):
        build([first, save(adata, "study again")], tmp_path / "out", small(per_n=40))
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_split_by_puzzle_is_written_although_it_leaks(make_cells, save, small, tmp_path):
    path = save(make_cells(donors=1, cells=2))
    built = build([path], tmp_path / "out", small(split="puzzle", per_n=40))
    assert built.ok
    assert built.audit.leaks > 0
    assert not built.audit.passed


def test_progress_is_told_for_every_file(small_files, small, tmp_path):
    told = {}
    build(small_files, tmp_path / "out", small(), watch=told.__setitem__)
    assert told == {"a": 1.0, "b": 1.0}
