"""`tl.annotate` from one end to the other, on cells whose types are known."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from blood import MARKERS, TYPES, blood

import cello1 as co
from cello1.annotate.data import open_data
from cello1.annotate.prepare import prepare
from cello1.errors import InputError
from cello1.recipes import SolveSettings
from cello1.solvers.base import Response

OPTIONS = {"groupby": "cluster", "candidates": [*TYPES, "erythrocyte", "hepatocyte"]}


def known(puzzle):
    """Answer with the type whose markers lead the list; cite them, and a gene no cell lists."""
    labels, lines = [], []
    for i, genes in enumerate(puzzle.cells, 1):
        found = {t: len(set(MARKERS[t]) & set(genes[:10])) for t in TYPES}
        label = max(found, key=found.get)
        cited = next((g for g in genes if g in MARKERS[label]), genes[0])
        lines.append(f"Cell {i} shows {cited} and HK79, so it is {label}.")
        labels.append(label)
    text = "\n".join(lines)
    return f"<think>{text}</think>\n<answer>{' | '.join(labels)}</answer>"


def test_every_cluster_gets_its_type(cells):
    assert co.tl.annotate(cells, **OPTIONS) is None
    assert (cells.obs["cello1"] == cells.obs["cell_type"].astype(str)).all()
    assert cells.obs["cello1"].dtype == "category"
    assert set(cells.obs["cello1_ontology_term_id"]) == {
        "CL:0000236", "CL:0000623", "CL:0000860", "CL:0000233"
    }  # fmt: skip
    assert cells.obs["cello1_confidence"].between(0.5, 1).all()
    table = co.get.annotation(cells)
    assert table["label"].tolist() == TYPES
    assert (table["level"] == "type").all()
    assert table["donors"].tolist() == [2, 2, 2, 2]
    assert cells.obs["cello1_fine"].tolist() == cells.obs["cello1"].tolist()
    assert set(cells.obs["cello1_coarse"]) == {
        "lymphocyte of B lineage", "innate lymphoid cell", "monocyte", "platelet"
    }  # fmt: skip
    chances = co.get.probabilities(cells)
    assert chances.shape == (4, 6)
    assert (chances.sum(axis=1) <= 1 + 1e-6).all()  # the rest is for types that are not on offer


def test_the_matrix_is_never_changed_and_a_copy_leaves_all_alone(cells):
    before, fields = cells.X.copy(), list(cells.obs)
    copy = co.tl.annotate(cells, copy=True, **OPTIONS)
    assert list(cells.obs) == fields
    assert not cells.uns
    assert (before != copy.X).nnz == 0
    co.tl.annotate(cells, **OPTIONS)
    assert (before != cells.X).nnz == 0


def test_the_same_input_gives_the_same_labels(cells):
    one, two = (co.tl.annotate(cells, copy=True, **OPTIONS) for _ in range(2))
    pd.testing.assert_frame_equal(one.obs, two.obs)
    assert one.uns["cello1"] == two.uns["cello1"]


def test_it_survives_a_round_trip(cells, tmp_path):
    co.tl.annotate(cells, **OPTIONS)
    cells.write_h5ad(tmp_path / "out.h5ad")
    back = anndata.read_h5ad(tmp_path / "out.h5ad")
    # The newest anndata reads text as pandas 3 has it, which is another dtype.
    strict = int(pd.__version__.split(".")[0]) < 3
    pd.testing.assert_frame_equal(back.obs, cells.obs, check_dtype=strict, check_categorical=strict)
    pd.testing.assert_frame_equal(co.get.annotation(back), co.get.annotation(cells))
    assert dict(back.uns["cello1"]) == cells.uns["cello1"]


def test_two_clusters_of_one_type_both_get_it():
    cells = blood(["B cell", "natural killer cell", "B cell", "platelet"])
    co.tl.annotate(cells, **OPTIONS)
    assert co.get.annotation(cells)["label"].tolist() == [
        "B cell", "natural killer cell", "B cell", "platelet"
    ]  # fmt: skip


def test_unique_labels_are_given_once():
    cells = blood(["B cell", "natural killer cell", "B cell", "platelet"])
    co.tl.annotate(cells, unique=True, **OPTIONS)
    assert co.get.annotation(cells)["best"].is_unique


def test_more_clusters_than_candidates(cells):
    cells = blood(TYPES * 2)
    co.tl.annotate(cells, groupby="cluster", candidates=TYPES)
    assert co.get.annotation(cells)["label"].tolist() == TYPES * 2


def test_a_type_that_is_not_on_offer_is_none_of_these():
    cells = blood([*TYPES, "a stranger"])
    co.tl.annotate(cells, groupby="cluster", candidates=[*TYPES, "hepatocyte", "fibroblast"])
    assert co.get.annotation(cells)["label"].tolist() == [*TYPES, "none of these"]
    strange = cells.obs["cluster"] == "4"
    assert (cells.obs.loc[strange, "cello1"] == "none of these").all()
    assert (cells.obs.loc[strange, "cello1_ontology_term_id"] == "unknown").all()


def test_without_candidates_a_type_of_another_tissue_is_offered_where_it_fits_better():
    cells = blood()
    hepatic = dict(zip(MARKERS["platelet"], ["ALB", "APOA1", "APOC3", "FGB", "TTR"], strict=True))
    cells.var_names = [hepatic.get(gene, gene) for gene in cells.var_names]
    co.tl.annotate(cells, groupby="cluster")
    rows = co.get.annotation(cells)
    assert rows.loc["3", "label"] == "hepatocyte"
    assert set(rows["label"][:3]) == set(TYPES[:3])
    assert "hepatocyte is not among the types of the tissue" in str(cells.uns["cello1"]["notes"])
    # Where the user names the types, nothing else is offered.
    co.tl.annotate(cells, groupby="cluster", candidates=TYPES)
    assert co.get.annotation(cells).loc["3", "label"] == "none of these"


def test_below_the_least_confidence_a_cluster_is_unknown(cells):
    co.tl.annotate(cells, min_confidence=1.0, **OPTIONS)
    assert (cells.obs["cello1"] == "unknown").all()
    assert co.get.annotation(cells)["best"].tolist() == TYPES


def test_single_cells_are_labelled_too(cells):
    co.tl.annotate(cells, unit="cell", **OPTIONS)
    right = cells.obs["cello1"] == cells.obs["cell_type"].astype(str)
    assert right.mean() > 0.9
    assert cells.obs["cello1_confidence"].notna().all()


@pytest.mark.parametrize("rank", ["cells", "pseudobulk", "specific"])
def test_different_things_can_be_shown_of_a_cluster(cells, rank, monkeypatch):
    from cello1.annotate import prepare as module

    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(known))
    co.tl.annotate(cells, solver="mini", rank=rank, **OPTIONS)
    assert co.get.annotation(cells)["label"].tolist() == TYPES


def test_leiden_clusters_are_computed_and_kept(cells):
    co.tl.annotate(cells, leiden=1.0, candidates=OPTIONS["candidates"])
    assert cells.obs["cello1_leiden"].nunique() == 4
    assert (cells.obs["cello1"] == cells.obs["cell_type"].astype(str)).all()


def test_batches_never_cross_donors_and_hold_a_cluster_once(cells, monkeypatch):
    from cello1.annotate import prepare as module

    cells.obs["donor_id"] = cells.obs["donor_id"].cat.rename_categories(["A", "B"])
    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(known))
    with open_data(cells) as data:
        plan = prepare(data, {**OPTIONS, "solver": "mini"}, lambda what, share: None).plan
    donors = cells.obs["donor_id"].to_numpy()
    for batch in plan.batches:
        assert len({donors[cell] for cell in batch.cells}) == 1
        assert len(set(batch.clusters)) == len(batch.clusters)
        assert batch.puzzle.meta["donor_id"] == donors[batch.cells[0]]
    assert plan.contexts == [
        "These cells were taken from blood of one donor. No disease is recorded."
    ]


def test_a_killed_run_goes_on_and_gives_the_same(cells, tmp_path, monkeypatch):
    from cello1.annotate import prepare as module

    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(known))
    options = {**OPTIONS, "solver": "mini"}
    whole = co.tl.annotate(cells, copy=True, run=tmp_path / "whole", **options)
    co.tl.annotate(cells, copy=True, run=tmp_path / "cut", **options)
    log = tmp_path / "cut" / "answers" / "responses.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # as kill -9 leaves it
    again = co.tl.annotate(cells, copy=True, run=tmp_path / "cut", **options)
    pd.testing.assert_frame_equal(again.obs, whole.obs)
    assert again.uns["cello1"] == whole.uns["cello1"]
    assert len(log.read_bytes().splitlines()) == len(lines)


def test_reasons_name_clusters_and_cite_what_is_there(cells):
    co.tl.annotate(cells, **OPTIONS)
    row = co.get.annotation(cells).loc["0"]
    assert set(row["supported"]) & set(MARKERS["B cell"])
    assert row["unsupported"] == []
    assert row["reason"].startswith("Cluster 0 ")
    first = row["evidence"][0]
    assert first["inside"] > 0.9
    assert first["outside"] < 0.1
    assert first["marker"] is True


def test_a_mixed_cluster_is_called_what_most_of_its_cells_are_and_said_to_be_mixed(cells):
    b_cell = (cells.obs["cell_type"] == "B cell").to_numpy()
    few = np.flatnonzero((cells.obs["cell_type"] == "classical monocyte").to_numpy())[::2]
    cluster = cells.obs["cluster"].astype(str).to_numpy()
    cluster[few] = "0"
    cells.obs["cluster"] = cluster
    co.tl.annotate(cells, **OPTIONS)
    table = co.get.annotation(cells)
    assert table["label"].tolist() == TYPES
    share = b_cell[cluster == "0"].mean()
    assert 0.5 < share < 0.75
    assert "It may be mixed: one by one, " in table.loc["0", "reason"]
    assert "% monocyte." in table.loc["0", "reason"]
    assert "mixed" not in " ".join(table.loc[["1", "2", "3"], "reason"])


class _Writer:
    """A solver that only writes text, and cites a gene that no cell lists."""

    name, settings = "writer", {"solver": "writer"}

    def __init__(self, answers):
        self.answers = answers

    def solve(self, puzzles, on_done):
        for puzzle in puzzles:
            on_done(puzzle.id, Response(self.answers(puzzle)))


def test_text_alone_is_voted_on_and_false_citations_are_struck(cells, monkeypatch):
    from cello1.annotate import prepare as module

    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(known))
    cells = cells[:, [g for g in cells.var_names if g != "HK78"]].copy()
    cells.X[:, list(cells.var_names).index("HK79")] = 0
    co.tl.annotate(cells, solver="mini", **OPTIONS)
    table = co.get.annotation(cells)
    assert table["label"].tolist() == TYPES
    assert all(row == ["HK79"] for row in table["unsupported"])
    assert all("answers said: \N{LEFT DOUBLE QUOTATION MARK}" in text for text in table["reason"])
    assert all("~~HK79~~" in reason for reason in table["reason"])


def test_answers_of_another_form_are_read_and_counted(cells, monkeypatch):
    from cello1.annotate import prepare as module

    def bare(puzzle):
        return known(puzzle).split("<answer>")[1].removesuffix("</answer>")

    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(bare))
    co.tl.annotate(cells, solver="mini", **OPTIONS)
    assert co.get.annotation(cells)["label"].tolist() == TYPES
    notes = json.loads(cells.uns["cello1"]["notes"])
    assert any("do not keep to the form that was asked for" in note for note in notes)


def test_a_solver_that_says_anything_gives_none_of_these(cells, monkeypatch):
    from cello1.annotate import prepare as module
    from cello1.puzzles.prompt import response_text

    def answer(puzzle):
        rng = np.random.default_rng(int(puzzle.id, 16))
        return response_text("", tuple(rng.permutation(puzzle.candidates)[: len(puzzle.cells)]))

    monkeypatch.setattr(module, "choose_solver", lambda *a, **k: _Writer(answer))
    co.tl.annotate(cells, solver="mini", **OPTIONS)
    assert (co.get.annotation(cells)["label"] == "none of these").all()


def test_settings_of_a_solver_and_what_it_learned_from_are_on_record(cells, tmp_path):
    table = tmp_path / "own.csv"
    rows = [f"{kind},{gene}" for kind, genes in MARKERS.items() for gene in genes]
    table.write_text("\n".join(["cell_type,gene", *rows]))
    settings = SolveSettings(solver="markers", markers=str(table))
    co.tl.annotate(cells, **OPTIONS | {"solver": settings, "candidates": TYPES})
    found = cells.uns["cello1"]
    assert json.loads(found["solver_settings"])["markers"] == "own.csv"
    assert found["solver_hash"].startswith("sha256:")
    again = co.tl.annotate(cells, copy=True, **OPTIONS | {"candidates": TYPES})
    assert again.uns["cello1"]["solver_hash"] != found["solver_hash"]


@pytest.mark.parametrize("samples", [1, 2])
def test_what_leaves_this_machine_is_said_beforehand(cells, samples, caplog, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    remote = SolveSettings(
        solver="openai:m", base_url="http://localhost:9/v1", samples=samples, retries=0, timeout=5
    )
    with pytest.raises(InputError, match="unanswered"):
        co.tl.annotate(cells, solver=remote, batches=1, **OPTIONS)
    said = [record for record in caplog.records if "which is told" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "http://localhost:9/v1" in said[0].message
