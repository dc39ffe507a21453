"""Whose cells they are: puzzles never cross a donor, an experimental batch or a tissue."""

from __future__ import annotations

import numpy as np
import pytest

from cello1.cells.make import make_puzzles
from cello1.errors import InputError


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
