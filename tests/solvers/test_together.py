"""The atlas and the model together: a sum of log-scores, decided once."""

import json

import numpy as np
import pytest

from cello1.errors import UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.recipes import SolveSettings
from cello1.recipes.section import checked
from cello1.solvers.choose import choose_solver
from cello1.solvers.run import read_solved, solve

pytest.importorskip("torch", reason="needs torch: pip install 'cello1[local]'")

BLOOD = Puzzle(
    "These cells were taken from blood of one donor.",
    [
        ["MS4A1", "CD79A", "CD79B", "CD74", "HLA-DRA", "RPL13"],
        ["CD3D", "CD3E", "IL7R", "LTB", "TRAC", "RPL13"],
        ["LYZ", "S100A8", "S100A9", "CD14", "FCN1", "RPL13"],
        ["NKG7", "GNLY", "KLRD1", "PRF1", "GZMB", "RPL13"],
    ],
    ["T cell", "classical monocyte", "natural killer cell", "B cell"],
    ["B cell", "T cell", "classical monocyte", "natural killer cell"],
)


@pytest.fixture(scope="module")
def together():
    return choose_solver(SolveSettings(solver="atlas+mini"))


def test_the_scores_are_those_of_both(together):
    expert = together.expert
    model = expert.model.scores(BLOOD)
    want = expert.atlas.scores(BLOOD) + expert.weight * (model - model.mean(axis=0))
    assert np.allclose(expert.scores(BLOOD), want)
    expert.prepare([BLOOD])
    assert np.allclose(expert.scores(BLOOD), want)


def test_it_answers_with_reasons_and_says_of_what_it_is_made(together, tmp_path):
    write_puzzles([BLOOD], tmp_path / "p.parquet")
    solve(tmp_path / "p.parquet", together, tmp_path / "run")
    _, records = read_solved(tmp_path / "run")
    text = records[BLOOD.id]["text"]
    assert text.endswith(
        "<answer>B cell | T cell | classical monocyte | natural killer cell</answer>"
    )
    assert "Cell 1 is B cell" in text
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["solver"] == "atlas+mini"
    assert config["model"]
    assert "sources" in config["atlas"]
    assert together.knows("B cell").how == "source"


def test_settings_of_others_are_refused():
    with pytest.raises(UseError, match="valid cannot be used"):
        checked(SolveSettings, {"solver": "atlas+mini", "valid": True})
    checked(SolveSettings, {"solver": "atlas+mini", "without": ["Adams 2020"]})
