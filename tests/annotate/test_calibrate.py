"""The temperature and the types of a tissue come from puzzles of other donors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from blood import TYPES, blood

import cello1 as co
from cello1.annotate.calibrate import make_folds
from cello1.recipes import BuildSettings


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    blood(donors=5, cells=6, seed=1).write_h5ad(folder / "cells.h5ad")
    settings = BuildSettings(n_min=2, n_max=4, per_n=20, fractions=(0.8, 0.2, 0.0))
    made = co.build([folder / "cells.h5ad"], folder / "puzzles", settings)
    assert made.ok
    return folder / "puzzles"


def test_centroids_learn_and_know_the_types_of_the_tissue(cells, puzzles):
    cells.obs["donor_id"] = cells.obs["donor_id"].cat.rename_categories(["new 1", "new 2"])
    co.tl.annotate(cells, groupby="cluster", solver="centroids", puzzles=puzzles)
    assert co.get.annotation(cells)["label"].tolist() == TYPES
    found = cells.uns["cello1"]
    assert json.loads(found["candidates"]) == sorted(TYPES)
    assert sorted(json.loads(found["learned_from"])) == ["train.parquet", "validation.parquet"]
    fitted = json.loads(found["calibration"])
    assert fitted["source"] == "20 clusters of known type of 5 donors"
    assert 0.05 <= fitted["temperature"] <= 100
    level, share, accuracy = np.array(fitted["coverage"]).T
    assert (np.diff(level) < 0).all()
    assert share[-1] == 1
    assert accuracy[-1] > 0.8


def test_simulated_donors_are_named_as_such(cells, puzzles, tmp_path):
    for path in puzzles.glob("*.parquet"):
        shown = co.read_puzzles(path)
        marked = [replace(puzzle, meta={**puzzle.meta, "synthetic": True}) for puzzle in shown]
        co.write_puzzles(marked, tmp_path / path.name)
    co.tl.annotate(cells, groupby="cluster", candidates=TYPES, solver="markers", puzzles=tmp_path)
    source = json.loads(cells.uns["cello1"]["calibration"])["source"]
    assert source.startswith("20 clusters of known type of 5 donors; some are simulated")


def test_no_fold_is_asked_of_a_solver_that_saw_its_donors(puzzles):
    splits = {n: co.read_puzzles(puzzles / f"{n}.parquet") for n in ("train", "validation")}
    folds = make_folds(splits, "centroids", TYPES, 4)
    assert len(folds) == 5
    seen = []
    for fold in folds:
        learned = {g for p in (*fold.train, *fold.validation) for g in p.cells}
        assert not set(fold.lists) & learned
        seen += sorted(fold.lists)
    assert len(seen) == len(set(seen))
    assert make_folds({"train": [], "validation": []}, "markers", TYPES, 4) == []


def test_too_few_known_clusters_leave_what_was_fitted_before(cells, puzzles, tmp_path):
    few = co.read_puzzles(puzzles / "validation.parquet")[:1]
    co.write_puzzles(few, tmp_path / "validation.parquet")
    co.tl.annotate(cells, groupby="cluster", candidates=TYPES, puzzles=tmp_path)
    fitted = json.loads(cells.uns["cello1"]["calibration"])
    assert "the puzzles show only" in fitted["source"] or "not fitted" in fitted["source"]
    assert fitted["coverage"] == []
