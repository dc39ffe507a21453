import numpy as np
import pytest

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle

MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B"],
    "T cell": ["CD3D", "CD3E", "TRAC"],
    "monocyte": ["LYZ", "CD14", "S100A8"],
    "platelet": ["PPBP", "PF4", "GP9"],
}


def toy_puzzle(seed):
    rng = np.random.default_rng(seed)
    types = [str(t) for t in rng.permutation(list(MARKERS))]
    cells = [[*MARKERS[name], f"RPL{seed}"] for name in types]
    candidates = [str(t) for t in rng.permutation(types)]
    meta = {"dataset": "toys", "donor_id": f"d{seed % 5}"}
    return Puzzle("Blood of one donor, aged 42.", cells, candidates, types, meta)


def toy_response(puzzle, seed):
    """Right, half right, repeated, foreign or broken, in turn."""
    gold = list(puzzle.answer)
    texts = [
        response_text("Sure.", puzzle.answer),
        response_text("Swapped.", (gold[1], gold[0], *gold[2:])),
        response_text("Twice.", (gold[0], gold[0], *gold[2:])),
        response_text("Foreign.", ("neuron", *gold[1:])),
        "B cell | T cell",
        "",
        response_text("Few.", gold[:2]),
    ]
    return texts[seed % len(texts)]


@pytest.fixture(scope="session")
def toys():
    return [toy_puzzle(seed) for seed in range(30)]


@pytest.fixture(scope="session")
def responses(toys):
    return {puzzle.id: toy_response(puzzle, seed) for seed, puzzle in enumerate(toys)}


@pytest.fixture(scope="session")
def evaluated(toys, responses):
    """What `cello1 eval` says of the same responses."""
    from cello1.scoring.evaluate import evaluate

    return evaluate(toys, responses)
