"""Everything a user can get wrong ends in one message that says how to mend it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from blood import TYPES, blood

import cello1 as co
from cello1.annotate import prepare
from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import response_text
from cello1.solvers.base import Response


def annotate(cells, **options):
    given = {"groupby": "cluster", "candidates": TYPES} | options
    co.tl.annotate(cells, **given)


def test_log_values_where_counts_are_needed(cells):
    pytest.importorskip("torch", reason="the embedded model needs torch")
    cells.X = cells.X.log1p()
    with pytest.raises(InputError, match=r"pseudobulk sums raw counts.*layers\['counts'\].*rank="):
        annotate(cells, rank="pseudobulk", solver="mini")
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


def test_existing_and_computed_clusters(cells):
    with pytest.raises(UseError, match="give one"):
        annotate(cells, leiden=1.0)


def test_wrong_column(cells):
    with pytest.raises(InputError, match=r"no obs column 'louvain'.*obs has cell_type, cluster"):
        annotate(cells, groupby="louvain")
    cells.obs["depth"] = np.linspace(0.5, 9.7, cells.n_obs)
    with pytest.raises(InputError, match=r"holds measurements \(such as 0.5\).*names or numbers"):
        annotate(cells, groupby="depth")


def test_a_cluster_without_expression_stays_unknown(cells):
    silent = (cells.obs["cluster"] == "2").to_numpy()
    cells.X = cells.X.multiply(~silent[:, None]).tocsr()
    annotate(cells)
    assert co.get.annotation(cells)["label"].tolist() == [*TYPES[:2], "unknown", TYPES[3]]
    assert any("cluster '2' expresses any gene" in note for note in notes(cells))
    cells.X = cells.X * 0
    with pytest.raises(InputError, match="zeros only"):
        annotate(cells)


def notes(cells):
    return json.loads(cells.uns["cello1"]["notes"])


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


def test_a_language_model_is_shown_clusters_of_one_donor(cells):
    pytest.importorskip("torch", reason="the embedded model needs torch")
    cells.obs["donor_id"] = cells.obs["cluster"]
    with pytest.raises(InputError, match=r"no donor .* has cells of two clusters.*donor_key"):
        annotate(cells, solver="mini")
    annotate(cells)
    assert co.get.annotation(cells)["label"].tolist() == TYPES


def test_a_language_model_needs_candidates(cells):
    with pytest.raises(UseError, match="no candidates are named"):
        annotate(cells, solver="mini", candidates=None)


def test_genes_that_nobody_knows(cells):
    cells.var_names = [f"LOCUS{i}" for i in range(cells.n_vars)]
    with pytest.raises(InputError, match=r"0 of 100 gene names .* human genes \(LOCUS0"):
        annotate(cells)


def test_centroids_without_puzzles(cells):
    with pytest.raises(UseError, match="centroids learn from puzzles"):
        annotate(cells, solver="centroids")


def test_more_unique_labels_than_candidates():
    with pytest.raises(InputError, match=r"8 clusters cannot have unique labels from 4"):
        annotate(blood(TYPES * 2), unique=True)


class Says:
    """A solver that gives labels without reasons."""

    name, settings = "says", {"solver": "says"}

    def __init__(self, labels):
        self.labels = labels

    def solve(self, puzzles, on_done):
        for puzzle in puzzles:
            labels = tuple(self.labels(puzzle))[: len(puzzle.cells)]
            on_done(puzzle.id, Response(response_text("", labels)))


def test_answers_that_cannot_be_read_are_counted(cells, monkeypatch):
    strange = ["my type", "your type", *TYPES]
    answers = iter(range(10_000))

    def rarely(puzzle):
        return puzzle.candidates if next(answers) % 5 == 0 else strange

    monkeypatch.setattr(prepare, "choose_solver", lambda *a, **k: Says(rarely))
    with pytest.raises(InputError, match=r"\d+ of \d+ answers about clusters could not be read"):
        annotate(cells, solver="mini", batch_size=2)

    def mostly(puzzle):
        return strange if next(answers) % 5 == 0 else puzzle.candidates

    monkeypatch.setattr(prepare, "choose_solver", lambda *a, **k: Says(mostly))
    annotate(cells, solver="mini", batch_size=2)
    assert any("of" in n and "could not be read" in n for n in notes(cells))


def test_a_run_folder_of_something_else(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "choose_solver", lambda *a, **k: Says(lambda p: p.candidates))
    annotate(cells, run=tmp_path / "run", solver="mini")
    with pytest.raises(InputError, match="another run folder"):
        annotate(cells, run=tmp_path / "run", solver="mini", seed=1)


def test_an_annotation_that_is_not_there(cells):
    with pytest.raises(InputError, match=r"no annotation 'cello1' \(it has none\)"):
        co.get.annotation(cells)
    assert isinstance(cells.obs, pd.DataFrame)
