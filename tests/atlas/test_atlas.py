"""The atlas: rows, scores, evidence, what it knows."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from atlas_tables import OWN

from cello1.atlas import Atlas
from cello1.atlas.build import build_atlas
from cello1.atlas.genes import current, is_housekeeping, telling
from cello1.atlas.tissues import system, tissue_of_context
from cello1.errors import InputError
from cello1.recipes.atlas import AtlasSettings

CELLS = {
    "plasma cell": ["MALAT1", "IGKC", "JCHAIN", "MZB1", "IGHG1", "RPL10", "XBP1", "SSR4", "DERL3"],
    "hepatocyte": ["ALB", "APOA1", "TTR", "FGB", "SERPINA1", "FTL", "RPLP1", "APOC3", "TF"],
    "alveolar macrophage": ["FTL", "APOC1", "C1QB", "MARCO", "FABP4", "CD68", "LYZ", "MALAT1"],
    "CD8-positive, alpha-beta T cell": ["CD3D", "CD8A", "CD8B", "CCL5", "GZMK", "B2M", "TRAC"],
}


@pytest.fixture(scope="module")
def embedded() -> Atlas:
    return Atlas.read()


def test_embedded_atlas_tells_types_apart(embedded: Atlas) -> None:
    scores = embedded.scores(list(CELLS.values()), list(CELLS))
    centred = scores - scores.mean(axis=0)
    assert centred.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert centred.argmax(axis=0).tolist() == [0, 1, 2, 3]


def test_scores_do_not_depend_on_order_or_company(embedded: Atlas) -> None:
    cells, labels = list(CELLS.values()), list(CELLS)
    both = embedded.scores(cells, labels)
    one = embedded.scores([cells[2][::-1]], [labels[1].upper(), labels[2]])
    np.testing.assert_allclose(one, both[2:3, 1:3], rtol=1e-4, atol=1e-4)
    listed = embedded.indicator(cells)
    np.testing.assert_allclose(embedded.scores(listed, labels), both)


def test_housekeeping_genes_change_nothing_and_are_never_evidence(embedded: Atlas) -> None:
    usual = ["MALAT1", "FTH1", "FTL", "ACTB", "MT-CO1", "MTCO2P22", "RPL13A", "RPS4X", "RPLP0"]
    assert all(is_housekeeping(current(gene)) for gene in usual)
    genes = CELLS["plasma cell"]
    plain, full = embedded.scores([genes, genes + usual], ["plasma cell", "hepatocyte"])
    np.testing.assert_allclose(plain, full)
    for label in CELLS:
        assert not set(embedded.evidence(usual, label)) & set(usual)
    for spared in ("MRC1", "MT1X", "MT2A", "FTCD", "RPE65", "MTRR", "UBE2C"):
        assert not is_housekeeping(spared)


def test_evidence_speaks_for_the_label_and_more_than_for_the_rival(embedded: Atlas) -> None:
    genes = [*CELLS["plasma cell"], "ALB", "MS4A1"]
    found = embedded.evidence(genes, "plasma cell", "hepatocyte")
    assert found[:2]
    assert set(found) <= set(genes)
    assert {"IGKC", "JCHAIN"} <= set(found)
    assert "ALB" not in found
    assert "RPL10" not in found
    rows = embedded.rows(["plasma cell", "hepatocyte"])
    at = {gene: i for i, gene in enumerate(embedded.genes)}
    gains = [rows[0, at[g]] - rows[1, at[g]] for g in found]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 0


def test_old_symbols_and_suffixes_are_read() -> None:
    assert current("SEPP1") == "SELENOP"
    assert current("CSF2RA_ENSG00000198223") == "CSF2RA"
    assert current("not a gene") == "not a gene"
    assert telling(["IGJ", "JCHAIN", "MALAT1", "SELENOP"]) == ["JCHAIN", "SELENOP"]


def test_knows_says_how(embedded: Atlas, small: Atlas) -> None:
    assert embedded.knows("plasma cells").how == "source"
    assert embedded.knows("CL:0000786").how == "source"
    assert embedded.knows("vein endothelial cell").how == "relative"
    assert embedded.knows("no such cell").how == "not at all"
    assert small.knows("B cell") == ("source", ("one", "two"))
    assert small.knows("memory B cell") == ("relative", ("B cell",))
    assert small.knows("type B pancreatic cell").how == "not at all"
    assert small.knows("natural killer cell") == ("markers only", ("list",))


def test_unknown_label_scores_nothing(embedded: Atlas) -> None:
    assert not embedded.scores(list(CELLS.values()), ["no such cell"]).any()


def test_relative_scores_by_what_is_above_it(small: Atlas) -> None:
    cells = [["CD79A", "MS4A1", "CD74"], ["ALB", "TTR", "CD74"]]
    scores = small.scores(cells, ["memory B cell"])
    assert scores[0, 0] > scores[1, 0] + 0.2


def test_markers_alone_give_a_type_its_genes(small: Atlas) -> None:
    cells = [["NKG7", "GNLY"], ["CD79A", "MS4A1"]]
    scores = small.scores(cells, ["natural killer cell"])
    assert scores[0, 0] > scores[1, 0]


def test_a_naming_counts_less_where_much_is_named(folder: Path, tmp_path: Path) -> None:
    own = OWN["B cell"] + OWN["hepatocyte"]
    rows = ["cell_type,gene", "B cell,CD79A", "T cell,CD3D", "hepatocyte,ALB"]
    rows += [f"neuron,{gene}" for gene in own]
    (tmp_path / "lists.csv").write_text("\n".join(rows) + "\n")
    settings = AtlasSettings.model_validate({"sources": [{"name": "l", "markers": "lists.csv"}]})
    build_atlas(settings, tmp_path / "made", tmp_path)
    atlas = Atlas.read(tmp_path / "made", only=True)
    row = dict(zip(atlas.genes, atlas.rows(["neuron"])[0], strict=True))
    # CD79A is named for a second type.
    assert 0 < row["CD79A"] < row["MS4A1"] == row["CD79B"]
    one = dict(zip(atlas.genes, atlas.rows(["T cell"])[0], strict=True))
    assert one["CD3D"] > row["MS4A1"]  # of one gene instead of ten


def test_unlisted_gene_counts_only_where_it_was_measured(small: Atlas) -> None:
    cell = ["CD79A", "CD74"]
    free = small.scores([cell], ["B cell"])[0, 0]
    lacking = small.scores([cell], ["B cell"], universe=["CD79A", "CD74", "MS4A1", "CD79B"])[0, 0]
    unmeasured = small.scores([cell], ["B cell"], universe=["CD79A", "CD74"])[0, 0]
    elsewhere = small.scores([cell], ["B cell"], universe=["CD79A", "CD74", "ALB", "TTR"])[0, 0]
    assert lacking < unmeasured < elsewhere
    assert unmeasured == pytest.approx(free, abs=1e-5)


def test_tissue_raises_what_matches_and_silences_nothing(embedded: Atlas) -> None:
    strong = embedded.with_weights(tissue=2.0)
    lung = strong.rows(["fibroblast"], tissue="lung")
    heart = strong.rows(["fibroblast"], tissue="heart")
    nowhere = strong.rows(["fibroblast"])
    assert not np.allclose(lung, heart)
    assert np.corrcoef(lung[0], heart[0])[0, 1] > 0.5
    np.testing.assert_allclose(nowhere, strong.rows(["fibroblast"], tissue="no tissue"), atol=1e-5)


def test_tissues_belong_to_systems() -> None:
    assert system("bronchus") == system("lung parenchyma") == "airway"
    assert system("sigmoid colon") == "gut"
    assert system("lungwort") == "lungwort"
    assert system("unknown") is None
    assert system(None) is None
    assert (
        tissue_of_context("The cell is from a male, originating from the lung. A smoker.") == "lung"
    )
    assert tissue_of_context("Nothing is known.") is None


def test_sources_are_left_out_by_name_or_study(folder: Path) -> None:
    assert [s.name for s in Atlas.read(folder, only=True, without=["first"]).sources] == [
        "two",
        "list",
    ]
    assert [s.name for s in Atlas.read(folder, only=True, without=["one"]).sources] == [
        "two",
        "list",
    ]
    with pytest.raises(InputError, match="no source or study has this name"):
        Atlas.read(folder, only=True, without=["third"])
    with pytest.raises(InputError, match="no sources left"):
        Atlas.read(folder, only=True, without=["first", "second", "list"])


def test_own_folder_joins_the_embedded_atlas(folder: Path, embedded: Atlas) -> None:
    both = Atlas.read(folder)
    assert len(both.sources) == len(embedded.sources) + 3
    assert "one" in both.knows("B cell").through
    assert len(both.knows("B cell").through) > 5


def test_no_atlas_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no atlas"):
        Atlas.read(tmp_path / "nowhere", only=True)
    (tmp_path / "atlas.json").write_text("{}")
    with pytest.raises(InputError, match="is no atlas"):
        Atlas.read(tmp_path, only=True)


def test_embedded_atlas_is_small_and_says_where_it_is_from(embedded: Atlas) -> None:
    from cello1.atlas.atlas import EMBEDDED

    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 6e6
    notice = (EMBEDDED / "NOTICE").read_text("utf-8")
    for source in embedded.sources:
        assert source.name in notice
        assert source.licence in notice
        assert source.citation in notice


def test_reading_and_importing_stay_light() -> None:
    code = (
        "import sys, cello1.atlas; cello1.atlas.Atlas.read().rows(['B cell']);"
        "print([m for m in ('torch', 'anndata', 'scanpy', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    start = time.process_time()
    Atlas.read()
    assert time.process_time() - start < 0.3
