"""Everything a user can get wrong ends in one message that says how to mend it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from blood import TYPES, blood

import cello1 as co
from cello1.errors import InputError, UseError


def annotate(cells, **options):
    given = {"groupby": "cluster", "candidates": TYPES} | options
    co.tl.annotate(cells, **given)


def test_log_values_where_counts_are_needed(cells):
    cells.X = cells.X.log1p()
    with pytest.raises(InputError, match=r"pseudobulk sums raw counts.*layers\['counts'\].*rank="):
        annotate(cells, rank="pseudobulk")
    cells.layers["counts"] = cells.X.copy()
    with pytest.raises(InputError, match=r"layer 'counts' should hold raw counts.*put the counts"):
        annotate(cells, layer="counts")


def test_scaled_values(cells):
    cells.X = cells.X.toarray() - 3.0
    with pytest.raises(InputError, match=r"X holds negative values \(scaled\?\).*Expected counts"):
        annotate(cells)


def test_ensembl_ids(cells):
    symbols = list(cells.var_names)
    cells.var_names = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    with pytest.raises(InputError, match=r"Ensembl id only.*adata.var\['feature_name'\]"):
        annotate(cells)
    cells.var["feature_name"] = symbols
    annotate(cells)
    assert co.get.annotation(cells)["label"].tolist() == TYPES


def test_no_clusters(cells):
    with pytest.raises(UseError, match=r"no clusters are named; obs has cell_type.*leiden=1.0"):
        annotate(cells, groupby=None)
    with pytest.raises(UseError, match="give one"):
        annotate(cells, leiden=1.0)


def test_wrong_column(cells):
    with pytest.raises(InputError, match=r"no obs column 'louvain'.*obs has cell_type, cluster"):
        annotate(cells, groupby="louvain")
    cells.obs["depth"] = np.linspace(0.5, 9.7, cells.n_obs)
    with pytest.raises(InputError, match=r"holds measurements \(such as 0.5\).*names or numbers"):
        annotate(cells, groupby="depth")


def test_one_cluster(cells):
    cells.obs["cluster"] = "all"
    with pytest.raises(InputError, match=r"1 cluster\(s\).*at least two.*leiden=1.0"):
        annotate(cells)


def test_an_empty_cluster(cells):
    cells.obs["cluster"] = cells.obs["cluster"].cat.add_categories("9")
    with pytest.raises(InputError, match=r"cluster '9'.*no cells.*remove_unused_categories\(\)"):
        annotate(cells)


def test_a_cluster_without_expression(cells):
    silent = (cells.obs["cluster"] == "2").to_numpy()
    cells.X = cells.X.multiply(~silent[:, None]).tocsr()
    with pytest.raises(InputError, match=r"no cell of cluster '2' expresses any gene.*drop these"):
        annotate(cells)


def test_two_thousand_clusters():
    rng = np.random.default_rng(0)
    cells = blood(cells=250)
    cells.obs["name"] = [f"c{i}" for i in rng.permutation(cells.n_obs)]
    with pytest.raises(InputError, match=r"2,000 different values.*at most 500.*cell names\?"):
        annotate(cells, groupby="name")


def test_a_candidate_that_is_not_in_the_ontology(cells):
    with pytest.raises(InputError, match=r"'natural kiler cell' is not.*'natural killer cell'"):
        annotate(cells, candidates=["B cell", "natural kiler cell"])
    annotate(cells, candidates=[*TYPES, "my own subtype"], unknown_types=True)
    assert co.get.annotation(cells)["label"].tolist() == TYPES


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        (None, "no candidates are named"),
        (["B cell"], r"1 candidate\(s\) were given; expected at least two"),
        (["B cell", "b cell "], r"1 candidate\(s\)"),
        (["B cell", "unknown"], "candidate 'unknown' cannot be used"),
        (["B cell", "T | NK"], "without '|'"),
        ("no_such_file.txt", "one cell type on each line"),
    ],
)
def test_candidates_that_cannot_be_used(cells, candidates, said):
    with pytest.raises(InputError, match=said):
        annotate(cells, candidates=candidates)


def test_no_donor_has_two_clusters(cells):
    cells.obs["donor_id"] = cells.obs["cluster"]
    with pytest.raises(InputError, match=r"no donor .* has cells of two clusters.*donor_key"):
        annotate(cells)


def test_centroids_without_puzzles(cells):
    with pytest.raises(UseError, match="centroids learn from puzzles"):
        annotate(cells, solver="centroids")


def test_more_unique_labels_than_candidates():
    with pytest.raises(InputError, match=r"8 clusters cannot have unique labels from 4"):
        annotate(blood(TYPES * 2), unique=True)


def test_a_run_folder_of_something_else(cells, tmp_path):
    annotate(cells, run=tmp_path / "run")
    with pytest.raises(InputError, match="another run folder"):
        annotate(cells, run=tmp_path / "run", seed=1)


def test_an_annotation_that_is_not_there(cells):
    with pytest.raises(InputError, match=r"no annotation 'cello1' \(it has none\)"):
        co.get.annotation(cells)
    assert isinstance(cells.obs, pd.DataFrame)
