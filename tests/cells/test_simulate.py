import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad

from cello1.cells.build import build
from cello1.cells.simulate import read_profiles, simulate
from cello1.errors import InputError
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BuildSettings


@pytest.fixture
def lung(shared):
    folder = shared / "data" / "profiles"
    return read_profiles(folder / "Adult_Lung_HCA.parquet", folder / "cell_types.csv")


def test_curated_columns_get_ontology_labels(lung):
    assert lung.shape[1] == 20
    assert "pulmonary alveolar type 2 cell" in lung.columns


def test_simulated_cells_look_like_their_type_and_are_marked(lung, tmp_path):
    cells = simulate(lung, donors=4, cells_per_type=4, obs={"tissue": "lung", "disease": "normal"})
    assert cells.shape == (4 * 20 * 4, len(lung))
    assert cells.obs["is_synthetic"].all()
    assert (cells.X.data == np.floor(cells.X.data)).all()
    at2 = cells[cells.obs["cell_type"] == "pulmonary alveolar type 2 cell"]
    mean = pd.Series(np.asarray(at2.X.mean(axis=0)).ravel(), index=at2.var_names)
    assert "SFTPC" in mean.nlargest(10).index

    cells.write_h5ad(tmp_path / "lung.h5ad")
    build([tmp_path / "lung.h5ad"], tmp_path / "out", BuildSettings(per_n=3))
    puzzles = read_puzzles(tmp_path / "out" / "train.parquet")
    assert puzzles
    assert all(p.meta["synthetic"] for p in puzzles)


def test_depth_follows_what_was_asked_and_cells_differ(lung):
    shallow, deep = (simulate(lung, donors=1, cells_per_type=5, depth=d) for d in (500, 5_000))
    depths = [np.median(np.asarray(c.X.sum(axis=1))) for c in (shallow, deep)]
    assert depths[0] == pytest.approx(500, rel=0.3)
    assert depths[1] == pytest.approx(5_000, rel=0.3)
    assert (np.diff(deep.X.indptr) > np.median(np.diff(shallow.X.indptr))).mean() > 0.95


def test_a_donor_does_not_depend_on_how_many_there_are(lung):
    few, many = (simulate(lung, donors=d, cells_per_type=2, seed=3) for d in (1, 3))
    assert (many.X[: few.n_obs] != few.X).nnz == 0
    assert (simulate(lung, donors=1, cells_per_type=2, seed=4).X != few.X).nnz > 0


def test_donors_differ_more_than_cells_of_one_donor(lung):
    cells = simulate(lung, donors=2, cells_per_type=40, depth=20_000)
    kind = cells[cells.obs["cell_type"] == "alveolar macrophage"].X.toarray()
    logs = np.log1p(1e4 * kind / kind.sum(axis=1, keepdims=True))
    halves = [logs[:20].mean(0), logs[20:40].mean(0), logs[40:60].mean(0)]
    same, other = np.corrcoef(halves)[0, 1:]
    assert same > other


@pytest.mark.parametrize("bad", [-1.0, np.nan, 0.0])
def test_impossible_profiles_are_refused(bad):
    profiles = pd.DataFrame({"B cell": [1.0, 2.0], "T cell": [bad, bad]}, index=["A", "B"])
    with pytest.raises(InputError, match="T cell"):
        simulate(profiles)


def test_a_table_without_genes_is_refused(tmp_path):
    pd.DataFrame({"x": [1]}).to_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="no column 'gene'"):
        read_profiles(tmp_path / "x.csv")


def test_the_command_writes_files_that_build_takes(shared, tmp_path):
    from typer.testing import CliRunner

    from cello1.cli import app

    profiles = shared / "data" / "profiles"
    table, types = profiles / "Adult_Heart_HCA.parquet", profiles / "cell_types.csv"
    small = ["--donors", "3", "--cells-per-type", "2", "--out", str(tmp_path / "cells")]
    runner = CliRunner()
    done = runner.invoke(app, ["simulate", str(table), "--cell-types", str(types), *small])
    assert done.exit_code == 0, done.output
    made = tmp_path / "cells" / "Adult_Heart_HCA.h5ad"
    cells = read_h5ad(made)
    assert set(cells.obs["tissue"]) == {"heart"}
    assert set(cells.obs["donor_id"]) == {f"Adult_Heart_HCA-00{i}" for i in (1, 2, 3)}
    built = build([made], tmp_path / "puzzles", BuildSettings(n_min=3, n_max=4, per_n=2))
    assert built.ok
