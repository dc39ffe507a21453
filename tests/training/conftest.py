from pathlib import Path

import numpy as np
import pytest
import torch

import cello1
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B"],
    "T cell": ["CD3D", "CD3E", "TRAC"],
    "monocyte": ["LYZ", "CD14", "S100A8"],
    "platelet": ["PPBP", "PF4", "GP9"],
}
CONTEXT = "These cells were taken from blood of one donor. The donor was diagnosed with lupus."


def toy_puzzle(seed: int, donor: str) -> Puzzle:
    """Four blood cells; each lists two of its three markers among genes that tell nothing."""
    rng = np.random.default_rng(seed)
    types = [str(t) for t in rng.permutation(list(MARKERS))]
    cells = []
    for name in types:
        known = rng.choice(MARKERS[name], 2, replace=False)
        noise = rng.choice([f"RPL{i}" for i in range(1, 30)], 6, replace=False)
        cells.append([str(g) for g in rng.permutation([*known, *noise])])
    candidates = [str(t) for t in rng.permutation(types)]
    return Puzzle(CONTEXT, cells, candidates, types, {"donor_id": donor, "tissue": "blood"})


@pytest.fixture
def toys():
    return [toy_puzzle(seed, f"d{seed % 5}") for seed in range(40)]


@pytest.fixture
def single(monkeypatch):
    """Compute in float32, for comparisons to the last digits, as on a CPU without AMX."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.fixture
def half(monkeypatch):
    """Compute in bfloat16, as on a CPU with AMX."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)


@pytest.fixture(scope="session")
def kang(tmp_path_factory, cells_dir) -> Path:
    """Puzzles of the Kang training donors, with those of the validation donor beside them."""
    folder = tmp_path_factory.mktemp("kang")
    settings = BuildSettings(
        test_donors=("1016", "1488"), validation_donors=("1039",), per_n=10, seed=0
    )
    cello1.build([cells_dir / "kang2018_ifnb2800.h5ad"], folder, settings)
    return folder
