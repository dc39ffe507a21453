import pytest

from cello1.demo import demo
from cello1.puzzles.table import read_puzzles


def test_the_built_in_demo_runs_twice_with_the_same_figures(tmp_path):
    figures = demo(tmp_path / "demo")
    assert set(figures) == {
        f"{name} ({how})"
        for name in ("chance", "markers", "centroids", "atlas")
        for how in ("alone", "jointly")
    } | {"mini (valid)", "mini (assign)", "atlas+mini (jointly)"}
    assert figures["centroids (jointly)"]["cell_accuracy"] > 0.6
    assert (
        figures["centroids (jointly)"]["batch_accuracy"]
        > figures["centroids (alone)"]["batch_accuracy"]
    )
    # The atlas has seen none of them either, nor learns from the puzzles.
    assert (
        figures["atlas (jointly)"]["cell_accuracy"] > figures["markers (jointly)"]["cell_accuracy"]
    )
    # The embedded model has seen none of these cells, and no file with so few genes.
    assert (
        figures["mini (assign)"]["cell_accuracy"] > 2 * figures["chance (jointly)"]["cell_accuracy"]
    )
    puzzles = read_puzzles(tmp_path / "demo" / "puzzles" / "test.parquet")
    assert {p.meta["donor_id"] for p in puzzles} == {"donor A"}
    assert demo(tmp_path / "demo") == figures


def test_on_a_file_with_donors_whole_donors_are_held_out(cells_dir, tmp_path):
    figures = demo(tmp_path / "demo", cells_dir / "kang2018_ifnb2800.h5ad")
    splits = [
        {p.meta["donor_id"] for p in read_puzzles(tmp_path / "demo" / "puzzles" / f"{s}.parquet")}
        for s in ("train", "validation", "test")
    ]
    assert len(set.union(*splits)) == sum(map(len, splits)) == 8
    assert figures["centroids (jointly)"]["batch_accuracy"] > 0.1


@pytest.mark.parametrize("name", ["puram2017_hnscc180", "baron2016_pancreas350"])
def test_pooled_or_small_files_are_taken_as_they_are(cells_dir, tmp_path, name, monkeypatch):
    # As on a base install: the other tests ask the model, which takes most of the time.
    monkeypatch.setattr("cello1.demo.runs_models", lambda: False)
    figures = demo(tmp_path / "demo", cells_dir / f"{name}.h5ad")
    assert figures["chance (jointly)"]["puzzles"] > 0
    assert figures["atlas (jointly)"]["batch_accuracy"] > 0
    assert not any("mini" in row for row in figures)
