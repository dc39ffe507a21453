"""Toy puzzles and a tiny model, as in the other tests of training."""

import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "training"), str(_TESTS / "solvers")]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    from sft_toys import toy_base

    return toy_base(tmp_path_factory.mktemp("verl") / "base")


@pytest.fixture(scope="session")
def puzzles(tmp_path_factory):
    from sft_toys import toy_traces

    from cello1.puzzles.table import write_puzzles

    path = tmp_path_factory.mktemp("verl") / "train.parquet"
    write_puzzles(toy_traces(), path)
    return path
