"""Whose cells they are: puzzles never cross a donor, an experimental batch or a tissue."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cello1.cells.build import build
from cello1.cells.make import make_puzzles
from cello1.errors import InputError
from cello1.puzzles.table import read_puzzles


@pytest.mark.parametrize("missing", [False, True])
def test_donors_may_be_integers_also_when_pandas_made_them_floats(make_cells, read, missing):
    """A missing value turns a column of integers into floats: 101.0 is the same person as 101."""
    adata = make_cells(donors=2)
    numbers = np.where(adata.obs["donor_id"] == "D0", 101, 107)
    adata.obs["donor_id"] = numbers if not missing else [np.nan, *numbers[1:].astype(float)]
    cells = read(adata)
    assert [key[0] for key in cells.group_keys] == ["101", "107"]
    assert cells.drops == ({"donor unknown or pooled": 1} if missing else {})


def test_groups_are_donor_batch_and_tissue(make_cells, read):
    adata = make_cells(donors=2)
    adata.obs["batch"] = ["b1", "b2"] * 27
    adata.obs["tissue"] = np.where(adata.obs["donor_id"] == "D1", "lung", "blood")
    cells = read(adata)
    assert cells.batch_key == "batch"
    assert cells.group_keys == [
        (f"D{d}", b, t) for d, t in [(0, "blood"), (1, "lung")] for b in ("b1", "b2")
    ]
    for i, row in enumerate(adata.obs.itertuples()):
        assert cells.group_keys[cells.groups[i]] == (row.donor_id, row.batch, row.tissue)


@pytest.mark.parametrize("first", ["batch", "batch_id", "library_id", "sample_id", "sample"])
def test_the_usual_batch_columns_are_found(make_cells, read, first):
    adata = make_cells()
    adata.obs[first] = "one"
    assert read(adata).batch_key == first


def test_a_named_batch_column_wins_and_an_unknown_one_is_refused(make_cells, read):
    adata = make_cells()
    adata.obs["batch"], adata.obs["chip"] = "one", [7, 8] * 54
    cells = read(adata, batch_key="chip")
    assert {key[1] for key in cells.group_keys} == {"7", "8"}
    with pytest.raises(InputError, match=r"no obs column 'lane'.*chip"):
        read(adata, batch_key="lane")


def test_other_columns_may_hold_donors_and_types(make_cells, save, small):
    adata = make_cells()
    adata.obs = adata.obs.rename(columns={"donor_id": "patient", "cell_type": "label"})
    puzzles, report = make_puzzles(save(adata), small(donor_key="patient", cell_type_key="label"))
    assert report.donors == 4
    assert {p.meta["donor_id"] for p in puzzles} == {"D0", "D1", "D2", "D3"}


def joined(make_cells, column="dataset_id"):
    """Two data sets whose donors have the same names."""
    parts = [make_cells(donors=3, seed=seed) for seed in (1, 2)]
    for part, name in zip(parts, ("aaaa", "bbbb"), strict=True):
        part.obs[column] = name
        part.obs["sex"] = "male" if name == "aaaa" else "female"
    whole = ad.concat(parts, merge="same", uns_merge="same")
    whole.uns["organism"] = "Homo sapiens"
    return whole


@pytest.mark.parametrize("column", ["dataset_id", "study"])
def test_a_donor_of_a_joined_file_is_one_of_a_data_set(make_cells, save, small, column):
    puzzles, report = make_puzzles(save(joined(make_cells, column)), small())
    assert report.donors == 6
    assert {p.meta["dataset_id"] for p in puzzles} == {"aaaa", "bbbb"}
    for puzzle in puzzles:
        assert len({name.split("-")[0] for name in puzzle.meta["cell_ids"]}) == 1
        sex = "female" if puzzle.meta["dataset_id"] == "bbbb" else "male"
        assert f" {sex} donor" in puzzle.context
    assert any(f"occur in several data sets ({column})" in note for note in report.notes)


def test_donors_of_one_name_stay_together_when_split(make_cells, save, small, tmp_path):
    assert build([save(joined(make_cells))], tmp_path / "out", small()).ok
    where = {}
    for name in ("train", "validation", "test"):
        for puzzle in read_puzzles(tmp_path / "out" / f"{name}.parquet"):
            where.setdefault(puzzle.meta["donor_id"], set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize(("one", "other"), [("P1", "p1 "), ("Donor A", "donorA"), ("x", "X")])
def test_donors_that_look_alike_are_told_and_never_parted(
    make_cells, save, small, tmp_path, one, other
):
    adata = make_cells(donors=6)
    adata.obs["donor_id"] = adata.obs["donor_id"].replace({"D0": one, "D1": other})
    built = build([save(adata)], tmp_path / "out", small())
    assert any("differ only in case or blanks" in note for note in built.reports[0].notes)
    homes = [
        {name for name in ("train", "validation", "test")
         for p in read_puzzles(tmp_path / "out" / f"{name}.parquet") if p.meta["donor_id"] == donor}
        for donor in (one.strip(), other.strip())
    ]  # fmt: skip
    assert homes[0] == homes[1]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (lambda n: np.random.default_rng(0).random(n), "'sample_id'.*fractions"),
        (lambda n: [f"c{i}" for i in range(n)], "'sample_id'.*108 values for 108 cells"),
        (lambda n: pd.Categorical(np.arange(n) / 7), "'sample_id'.*fractions"),
    ],
)
def test_a_column_that_cannot_be_a_batch_is_passed_over_and_named(
    make_cells, save, small, values, why
):
    adata = make_cells()
    adata.obs["sample_id"] = values(adata.n_obs)
    adata.obs["sample"] = "s1"  # the next usual column
    path = save(adata)
    puzzles, report = make_puzzles(path, small())
    assert (report.batch_key, bool(puzzles)) == ("sample", True)
    assert any(re.search(why, note) for note in report.notes)
    with pytest.raises(InputError, match=f"{why}.*--batch-key"):
        make_puzzles(path, small(batch_key="sample_id"))


def test_a_batch_of_single_types_is_named_as_the_cause(make_cells, save, small):
    adata = make_cells()
    adata.obs["batch"] = adata.obs["cell_type"]
    with pytest.raises(InputError, match="--batch-key batch"):
        make_puzzles(save(adata), small())


@pytest.mark.parametrize("name", ["batch", "sample_id", "cell_type", "donor_id"])
def test_an_index_is_never_a_column(make_cells, save, small, name):
    adata = make_cells()
    if name in adata.obs:
        del adata.obs[name]
        adata.obs.index.name = name
        with pytest.raises(InputError, match=f"the index is named '{name}', but is no column"):
            make_puzzles(save(adata), small())
    else:
        adata.obs.index.name = name
        assert make_puzzles(save(adata), small())[1].batch_key is None
