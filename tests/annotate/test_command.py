"""`cello1 annotate` and the plots, as a user meets them."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import anndata
import matplotlib
import numpy as np
import pandas as pd
import pytest
from blood import MARKERS, TYPES

import cello1 as co
from cello1.errors import InputError

matplotlib.use("Agg")


@pytest.fixture
def run(run):
    return partial(run, "annotate")


@pytest.fixture
def file(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "types.txt").write_text("# blood\n" + "\n".join([*TYPES, "hepatocyte"]))
    return tmp_path / "in.h5ad"


def test_a_file_in_a_file_out(run, file, tmp_path):
    out, types = tmp_path / "out.h5ad", tmp_path / "types.txt"
    code, said, err = run(file, "-o", out, "--groupby", "cluster", "--candidates", types)
    assert code == 0, err
    assert "B cell" in said
    back, before = anndata.read_h5ad(out), anndata.read_h5ad(file)
    assert (back.obs["cello1"] == before.obs["cell_type"].astype(str)).all()
    assert (back.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs[list(before.obs)], before.obs)
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    assert run(file, "-o", out, "--groupby", "cluster", "--candidates", types)[0] == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == first


def test_one_line_is_enough(run, file, tmp_path):
    out, page = tmp_path / "out.h5ad", tmp_path / "page.html"
    code, said, err = run(file, "-o", out, "--report", page)
    assert code == 0, err
    assert "clusters are those of obs column 'cluster' (4)" in " ".join(said.split())
    assert "those of blood" in said
    after = anndata.read_h5ad(out)
    known = {"B cell", "natural killer cell", "monocyte", "classical monocyte", "platelet"}
    assert set(after.obs["cello1"]) <= known
    assert page.stat().st_size > 10_000
    assert not (tmp_path / "out.h5ad.run").exists()


def test_a_reference_gives_the_candidates_and_json_the_table(run, file, tmp_path):
    out = tmp_path / "out.h5ad"
    code, said, _ = run(file, "-o", out, "--groupby", "cluster", "--reference", file, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["candidates"] == sorted(TYPES)
    assert [row["label"] for row in found["clusters"]] == TYPES


def test_a_dry_run_prints_every_prompt_and_sends_nothing(run, file, tmp_path, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    out, types = tmp_path / "out.h5ad", tmp_path / "types.txt"
    options = ("--groupby", "cluster", "--candidates", types, "--dry-run", "--batches", 2)
    endpoint = ("--solver", "openai:m", "--base-url", "http://localhost:9/v1")
    prices = ("--price-in", 1, "--price-out", 2)
    code, said, _ = run(file, "-o", out, *options, *endpoint, *prices)
    assert code == 0
    assert not out.exists()
    decoder, at, values = json.JSONDecoder(), 0, []
    while at < len(said.rstrip()):
        value, at = decoder.raw_decode(said, at)
        values.append(value)
        at += len(said[at:]) - len(said[at:].lstrip())
    *chats, summary = values
    assert len(chats) == summary["prompts"] == summary["batches"] >= 2
    assert all("Match the cells above" in chat[-1]["content"] for chat in chats)
    assert summary["sent_to"] == "http://localhost:9/v1"
    assert summary["max_cost"] > 0
    assert summary["contexts"] == [
        "These cells were taken from blood of one donor. No disease is recorded."
    ]
    local = run(file, "-o", out, *options)[1]
    assert '"sent_to": null' in local


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--groupby", "cluster", "--solver", "mini"), 2, "no candidates are named"),
        (("--with", "atlas"), 2, "decides by itself"),
        (
            ("--groupby", "x", "--candidate", "B cell", "--candidate", "platelet"),
            1,
            "no obs column",
        ),
        (("--groupby", "cluster", "--unit", "gene"), 2, "unit"),
    ],
)
def test_errors_are_one_line(run, file, tmp_path, options, code, said):
    status, _, err = run(file, "-o", tmp_path / "out.h5ad", *options)
    assert status == code
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_the_input_is_never_overwritten(run, file):
    assert run(file, "-o", file, "--groupby", "cluster")[0] == 2


def test_plots_show_what_was_decided(cells):
    co.tl.annotate(cells, groupby="cluster", candidates=[*TYPES, "hepatocyte"])
    ax = co.pl.assignment(cells)
    framed = {(round(p.get_x() + 0.5), round(p.get_y() + 0.5)) for p in ax.patches}
    assert framed == {(k, k) for k in range(4)}
    bars = co.pl.confidence(cells)
    widths = sorted(bar.get_width() for bar in bars.patches)
    assert widths == pytest.approx(sorted(co.get.annotation(cells)["confidence"]))
    dots = co.pl.evidence(cells, n_genes=2)
    drawn = {label.get_text() for label in dots.get_xticklabels()}
    assert len(drawn) == 8
    assert drawn <= {gene for genes in MARKERS.values() for gene in genes}
    with pytest.raises(InputError, match="no embedding"):
        co.pl.embedding(cells)
    cells.obsm["X_umap"] = np.random.default_rng(0).normal(size=(cells.n_obs, 2))
    for color in ("label", "confidence", "coarse"):
        assert co.pl.embedding(cells, color=color) is not None
    legend = co.pl.embedding(cells).get_legend()
    assert {text.get_text().rsplit(" (", 1)[0] for text in legend.get_texts()} == set(TYPES)


def test_plots_take_axes(cells):
    import matplotlib.pyplot as plt

    co.tl.annotate(cells, groupby="cluster", candidates=[*TYPES, "hepatocyte"])
    _, axes = plt.subplots(1, 3)
    for draw, ax in zip((co.pl.assignment, co.pl.confidence, co.pl.evidence), axes, strict=True):
        assert draw(cells, ax=ax) is ax
    plt.close("all")
