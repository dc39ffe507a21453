"""Which cells may be used: every drop has a rule and a count."""

from __future__ import annotations

import pandas as pd
import pytest

from cello1.cells.make import make_puzzles
from cello1.errors import InputError


def spoil(adata):
    """Break one rule in each of seven cells; return how many break each."""
    obs = adata.obs
    obs["suspension_type"] = ["nucleus", "nucleus", *["cell"] * (len(obs) - 2)]
    obs["is_primary_data"] = [True, True, False, *[True] * (len(obs) - 3)]
    obs["cell_type"] = obs["cell_type"].astype(object)
    obs.iloc[3, obs.columns.get_loc("cell_type")] = "unknown"
    obs.iloc[4, obs.columns.get_loc("cell_type")] = None
    obs["donor_id"] = obs["donor_id"].astype(object)
    obs.iloc[5, obs.columns.get_loc("donor_id")] = "pooled"
    x = adata.X.toarray()
    x[6] = 0
    x[7, 20:] = 0
    x[7, :20] = 1
    adata.X = x
    return {
        "suspension type other than cell": 2,
        "not primary data": 1,
        "cell type unknown": 2,
        "donor unknown or pooled": 1,
        "no expressed gene": 1,
        "fewer than 50 expressed genes": 1,
    }


def test_drops_and_used_cells_add_up(make_cells, save, small):
    adata = make_cells()
    expected = spoil(adata)
    puzzles, report = make_puzzles(save(adata), small())
    assert report.drops == expected
    assert report.used + sum(report.drops.values()) == report.cells == adata.n_obs
    dropped = set(adata.obs_names[:8])
    assert not dropped & {cell for p in puzzles for cell in p.meta["cell_ids"]}


def test_a_cell_that_breaks_two_rules_is_counted_once(make_cells, save, small):
    adata = make_cells()
    adata.obs["is_primary_data"] = False
    adata.obs["donor_id"] = "unknown"
    _, report = make_puzzles(save(adata), small())
    assert sum(report.drops.values()) == report.cells
    assert report.status == "no puzzles"


@pytest.mark.parametrize("value", [False, "False", "false"])
def test_only_primary_data_is_kept(make_cells, read, value):
    adata = make_cells()
    adata.obs["is_primary_data"] = [value] * 5 + [type(value)(True)] * (adata.n_obs - 5)
    if isinstance(value, str):
        adata.obs["is_primary_data"] = [
            "true" if v == "True" else v for v in adata.obs.is_primary_data
        ]
    assert read(adata).drops == {"not primary data": 5}


@pytest.mark.parametrize(("kept", "dropped"), [("cell", 5), ("nucleus", 103), ("any", 0)])
def test_the_suspension_type_is_an_option(make_cells, read, kept, dropped):
    adata = make_cells()
    adata.obs["suspension_type"] = ["nucleus"] * 5 + ["cell"] * 103
    assert sum(read(adata, suspension_type=kept).drops.values()) == dropped


@pytest.mark.parametrize("missing", ["is_primary_data", "suspension_type"])
def test_a_column_that_is_not_there_drops_nothing(make_cells, read, missing):
    adata = make_cells()
    del adata.obs[missing]
    assert read(adata).drops == {}


@pytest.mark.parametrize("name", ["unknown", "Unknown", "pooled", "na", "NA", "n/a", "", " ", None])
def test_unnamed_donors_are_dropped_or_kept_as_one_pool(make_cells, read, name):
    adata = make_cells()
    adata.obs["donor_id"] = [name] * 27 + adata.obs["donor_id"][27:].tolist()
    assert read(adata).drops == {"donor unknown or pooled": 27}
    kept = read(adata, pooled_donors=True)
    assert kept.drops == {}
    assert list(zip(kept.group_keys, kept.donor_kind, strict=True)) == [
        (("D1", None, "blood"), "named"),
        (("D2", None, "blood"), "named"),
        (("D3", None, "blood"), "named"),
        (("pooled:good", None, "blood"), "pooled"),
    ]


def test_puzzles_of_a_pool_are_marked_and_others_are_not(make_cells, save, small):
    adata = make_cells(donors=2)
    adata.obs["donor_id"] = adata.obs["donor_id"].replace("D1", "unknown")
    puzzles, _ = make_puzzles(save(adata), small(pooled_donors=True))
    marked = {p.meta["donor_id"]: p.meta.get("pooled") for p in puzzles}
    assert marked == {"D0": None, "pooled:good": True}


def test_a_file_without_donors_needs_the_option_and_its_puzzles_are_marked(make_cells, save, small):
    adata = make_cells()
    del adata.obs["donor_id"]
    path = save(adata)
    with pytest.raises(InputError, match=r"no obs column 'donor_id'.*--one-donor"):
        make_puzzles(path, small())
    puzzles, report = make_puzzles(path, small(one_donor=True))
    assert report.donors == 1
    assert all(p.meta["one_donor"] is True and p.meta["donor_id"] == "good" for p in puzzles)


def test_one_donor_changes_nothing_where_donors_are_known(make_cells, save, small):
    path = save(make_cells())
    assert make_puzzles(path, small(one_donor=True))[0] == make_puzzles(path, small())[0]


def test_types_that_differ_in_case_or_blanks_are_one(make_cells, save, small):
    adata = make_cells(cells=2)
    names = adata.obs["cell_type"].astype(str)
    adata.obs["cell_type"] = [f" {n.upper()}" if i % 2 else n for i, n in enumerate(names)]
    puzzles, _ = make_puzzles(save(adata), small(n_min=9, n_max=9))
    assert all(len({label.casefold() for label in p.candidates}) == 9 for p in puzzles)


@pytest.mark.parametrize("encoding", ["category", "str", "bool"])
def test_columns_may_be_stored_in_any_encoding(make_cells, read, encoding):
    adata = make_cells()
    if encoding == "bool":
        adata.obs["is_primary_data"] = pd.array([True] * adata.n_obs, dtype="boolean")
    else:
        adata.obs["donor_id"] = adata.obs["donor_id"].astype(encoding)
    assert len(read(adata).group_keys) == 4


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"donor_id": "unknown"}, "--pooled-donors"),
        ({"suspension_type": "nucleus"}, "--suspension-type any"),
        ({"cell_type": "unknown"}, "--cell-type-key"),
        ({}, "lower --n-min to 9"),
    ],
)
def test_a_file_without_puzzles_says_what_would_change_that(
    make_cells, save, small, change, advice
):
    adata = make_cells()
    for column, value in change.items():
        adata.obs[column] = value
    puzzles, report = make_puzzles(save(adata), small(n_min=12, n_max=12))
    assert (puzzles, report.status) == ([], "no puzzles")
    assert advice in report.message
    assert "\n" not in report.message


def test_the_advice_holds(make_cells, save, small):
    path = save(make_cells())
    assert make_puzzles(path, small(n_min=9, n_max=9))[1].status == "built"
