from pathlib import Path

import pytest

from cello1.puzzles.puzzle import Puzzle
from cello1.reports.behaviour_check import read_labels

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def labelled():
    return read_labels(HERE / "behaviour_labels.jsonl")


@pytest.fixture(scope="session")
def blood():
    return Puzzle(
        "Blood.",
        [["S100A8", "LYZ"], ["CD8A", "CD3D", "NKG7"], ["MS4A1", "CD79A"], ["GNLY", "NKG7"]],
        ["B cell", "CD8-positive, alpha-beta T cell", "classical monocyte", "natural killer cell"],
        ["classical monocyte", "CD8-positive, alpha-beta T cell", "B cell", "natural killer cell"],
        {"donor_id": "d1"},
    )
