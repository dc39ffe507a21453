"""Building an atlas: what is counted, and what is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from atlas_tables import OWN, USUAL, profiles

from cello1.atlas import Atlas
from cello1.atlas.build import build_atlas, listed_share
from cello1.atlas.genes import is_known
from cello1.atlas.markers import OWN_TABLES, read_markers, term_of_name
from cello1.atlas.source import read_sources
from cello1.errors import InputError, UseError
from cello1.recipes import checked
from cello1.recipes.atlas import AtlasSettings


def settings(*sources: dict[str, Any]) -> AtlasSettings:
    return checked(AtlasSettings, {"sources": list(sources), "draws": 20})


def refused(home: Path, source: dict[str, Any]) -> str:
    """Return the message of the one error; nothing may be left behind."""
    with pytest.raises(InputError) as caught:
        build_atlas(settings({"name": "bad", **source}), home / "out", home)
    assert not (home / "out").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_counts_what_matched(tmp_path: Path) -> None:
    profiles(tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv")
    frame.loc[len(frame)] = ["NOSUCHGENE7", 1, 1, 1, 1]
    frame["odd type"] = 1.0
    frame.to_csv(tmp_path / "t.csv", index=False)
    (match,) = build_atlas(settings({"name": "t", "profiles": "t.csv"}), tmp_path / "a", tmp_path)
    assert (match.types_known, match.types) == (4, 5)
    assert (match.genes_known, match.genes) == (len(frame) - 1, len(frame))
    assert str(match) == "t: 176 of 177 genes, 4 of 5 types (not in the Cell Ontology: odd type)"
    assert Atlas.read(tmp_path / "a", only=True).knows("odd type").how == "source"


def test_columns_of_one_name_are_samples_of_one_type(tmp_path: Path) -> None:
    profiles(tmp_path / "t.csv")
    head, *rows = (tmp_path / "t.csv").read_text().splitlines()
    lines = [f"{head},B cell", *(f"{row},{row.split(',')[1]}" for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (match,) = build_atlas(settings({"name": "t", "profiles": "t.csv"}), tmp_path / "a", tmp_path)
    assert not match.unknown_types
    (source,) = read_sources(tmp_path / "a")[0]
    assert {c.label: c.samples for c in source.columns}["B cell"] == 2
    assert len(source.columns) == 4


def test_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    profiles(tmp_path / "t.csv")
    for name in ("a", "b"):
        build_atlas(settings({"name": "t", "profiles": "t.csv"}), tmp_path / name, tmp_path)
    for file in ("atlas.json", "atlas.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_written_sources_come_back(folder: Path) -> None:
    one, two, listed = read_sources(folder)[0]
    assert (one.study, two.study, listed.kind) == ("first", "second", "markers")
    row = dict(zip(one.genes, one.values.toarray()[0], strict=True))
    assert one.columns[0].label == "B cell"
    assert one.columns[0].tissue == "blood"
    assert row["CD79A"] == 1.0
    assert row["ALB"] < 0.9
    assert not set(USUAL[:4]) & set(one.genes)  # housekeeping
    values = listed.values.toarray()
    assert values.min() == -1
    assert values.max() == 1


def test_shares_follow_the_profile() -> None:
    mean = np.array([0.5, 0.3, 0.1, *np.full(1000, 0.1 / 1000)])
    share = listed_share(mean, 50, np.random.default_rng(0))
    assert share[:3].min() > 0.99
    assert share[3:].mean() < 0.1
    assert share.sum() <= 50


def test_cells_and_puzzles_are_sources_too(tmp_path: Path) -> None:
    import anndata as ad

    from cello1.cells.build import build
    from cello1.recipes import BuildSettings

    rng = np.random.default_rng(0)
    genes = [*USUAL, *(g for own in OWN.values() for g in own)]
    labels = np.repeat(list(OWN), 30)
    counts = rng.poisson([[9 if g in USUAL or g in OWN[x] else 1 for g in genes] for x in labels])
    obs = pd.DataFrame({"cell_type": labels, "donor_id": "d1", "tissue": "blood"})
    obs.index = obs.index.astype(str)
    cells = ad.AnnData(counts.astype(np.float32), obs, pd.DataFrame(index=genes))
    cells.write_h5ad(tmp_path / "mine.h5ad")
    asked = BuildSettings(n_min=4, n_max=4, min_genes=5, split="none", suspension_type="any")
    build([tmp_path / "mine.h5ad"], tmp_path / "p", asked)
    made = settings(
        {"name": "mine", "cells": "mine.h5ad"}, {"name": "asked", "cells": "p/all.parquet"}
    )
    first, second = build_atlas(made, tmp_path / "a", tmp_path)
    assert first.types_known == second.types_known == 4
    atlas = Atlas.read(tmp_path / "a", only=True)
    lists = [list(own) for own in OWN.values()]
    scores = atlas.scores(lists, list(OWN), tissue="blood")
    assert (scores - scores.mean(axis=0)).argmax(axis=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B_cell": [0.0] * 176}, "'B cell' is all zero"),
        ({"B_cell": [-1.0] + [1.0] * 175}, "'B cell' holds negative"),
        ({"B_cell": [float("nan")] + [1.0] * 175}, "'B cell' holds negative or missing"),
        ({"B_cell": ["many"] + [1.0] * 175}, "not numbers"),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, change: Any, message: str) -> None:
    profiles(tmp_path / "t.csv", **change)
    assert message in refused(tmp_path, {"profiles": "t.csv"})


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "rows.csv").write_text("gene,B cell\n")
    (tmp_path / "none.csv").write_text("symbol,B cell\nCD79A,1\n")
    (tmp_path / "strange.csv").write_text("gene,zork,flim\nCD79A,1,2\n")
    (tmp_path / "fly.csv").write_text("gene,B cell\nFBgn0001,1\n")
    for name, message in {
        "empty.csv": "cannot be read",
        "rows.csv": "has no rows",
        "none.csv": "no column 'gene'",
        "strange.csv": "none of its 2 types is in the Cell Ontology",
        "fly.csv": "none of its 1 genes is a known symbol",
        "absent.csv": "cannot be read",
    }.items():
        assert message in refused(tmp_path, {"profiles": name})


def test_byte_order_mark_lower_case_and_several_genes_are_read(tmp_path: Path) -> None:
    text = 'cell_type,gene\nB cell,"cd79a, MS4A1"\nB cell,Cd79b;BANK1\nT cell,CD3D/CD3E\n'
    (tmp_path / "m.csv").write_text("\ufeff" + text, "utf-8")
    table = read_markers(tmp_path / "m.csv")
    assert set(table["B cell"]) == {"CD79A", "MS4A1", "CD79B", "BANK1"}
    (match,) = build_atlas(settings({"name": "m", "markers": "m.csv"}), tmp_path / "a", tmp_path)
    assert str(match) == "m: 6 of 6 genes, 2 of 2 types"
    (source,) = read_sources(tmp_path / "a")[0]
    assert set(source.genes) == {"CD79A", "MS4A1", "CD79B", "BANK1", "CD3D", "CD3E"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("cell_type,gene\n", "holds no pair"),
        ("cell_type,gene,weight\nB cell,CD79A,much\n", "the weight 'much' in line 2"),
        ("cell_type,gene,weight\nB cell,CD79A,inf\n", "in line 2"),
        ("type,symbol\nB cell,CD79A\n", "has the columns type, symbol"),
        ("cell_type,gene\nzork,CD79A\n", "none of its 1 types"),
        ("cell_type,gene\nB cell,QQQ1\n", "none of its 1 genes"),
    ],
)
def test_marker_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    assert message in refused(tmp_path, {"markers": "m.csv"})


def test_sources_must_differ_in_name_and_have_one_file() -> None:
    with pytest.raises(UseError, match="two sources are named 'x'"):
        settings({"name": "x", "profiles": "a"}, {"name": "x", "profiles": "b"})
    with pytest.raises(UseError, match="exactly one of"):
        settings({"name": "x", "profiles": "a", "markers": "b"})
    with pytest.raises(UseError, match="no file"):
        settings({"name": "x"})


def test_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    profiles(tmp_path / "t.csv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="is no atlas; name another folder"):
        build_atlas(settings({"name": "t", "profiles": "t.csv"}), tmp_path / "out", tmp_path)


def test_a_name_of_the_embedded_atlas_is_refused(tmp_path: Path) -> None:
    profiles(tmp_path / "t.csv")
    build_atlas(settings({"name": "PanglaoDB", "profiles": "t.csv"}), tmp_path / "a", tmp_path)
    with pytest.raises(InputError, match="so has the embedded atlas"):
        Atlas.read(tmp_path / "a")


def test_a_gene_that_no_table_lists_is_kept_where_a_short_list_names_it(tmp_path: Path) -> None:
    # No table of the embedded atlas lists NOTO or INSL4, so neither is kept without a reason.
    profiles(tmp_path / "t.csv")
    genes = [gene for own in OWN.values() for gene in own]
    rows = ["notochordal cell,NOTO", *(f"neuron,ZNF{i}" for i in range(10, 100)), "neuron,TBX10"]
    (tmp_path / "m.csv").write_text("\n".join(["cell_type,gene", *rows, "B cell,CD79A"]) + "\n")
    sources = ({"name": "t", "profiles": "t.csv"}, {"name": "m", "markers": "m.csv"})
    build_atlas(settings(*sources), tmp_path / "a", tmp_path)
    atlas = Atlas.read(tmp_path / "a", only=True)
    assert "NOTO" in atlas.genes
    assert "TBX10" not in Atlas.read().genes
    assert "TBX10" not in atlas.genes  # the list names 91 genes for the type
    cells = [["NOTO", *genes[:2]], genes[:3]]
    scores = atlas.scores(cells, ["notochordal cell"])
    assert scores[0, 0] > scores[1, 0]


def test_markers_of_development_have_known_types_genes_and_a_source_each() -> None:
    frame = pd.read_csv(OWN_TABLES["development"])
    assert list(frame.columns) == ["cell_type", "gene", "doi"]
    assert frame["doi"].str.fullmatch(r"10\.\d{4,5}/\S+").all()
    table = read_markers(OWN_TABLES["development"])
    terms = {name: term_of_name(name) for name in table}
    assert None not in terms.values()
    assert not [gene for genes in table.values() for gene in genes if not is_known(gene)]
    # Most are in no table; the others show what this list is worth.
    without = [term for term in terms.values() if term not in Atlas.read().keys]
    assert 60 <= len(without) < len(terms) - 10
