"""The embedded weights are what their program made of the embedded atlas."""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from atlas_tables import OWN, SELDOM

from cello1.atlas import Atlas
from cello1.atlas.atlas import EMBEDDED, Weights
from cello1.atlas.source import Column

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads((EMBEDDED / "weights.json").read_text("utf-8"))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_are_those_of_the_manifest(manifest: dict) -> None:
    told = json.loads(json.dumps(asdict(Atlas.read().weights)))
    assert told == manifest["weights"]
    assert Atlas.read().with_weights(temperature=2.0).weights != Weights.read()


def test_weights_were_made_of_this_atlas_and_recipe(manifest: dict) -> None:
    made_of, program = manifest["made_of"], manifest["command"].split()[1]
    assert (ROOT / program).is_file()
    assert made_of["recipes/atlas.yaml"] == sha(ROOT / "recipes" / "atlas.yaml")
    for name in ("atlas.npz", "atlas.json", "symbols.tsv.gz"):
        assert made_of[f"embedded/{name}"] == sha(EMBEDDED / name), f"{name}: {program} once more"


def test_weights_were_made_of_the_shared_tables_and_validation_cells(
    manifest: dict, shared: Path
) -> None:
    files = {n.removeprefix("DATA/"): h for n, h in manifest["made_of"].items() if "DATA/" in n}
    assert len(files) > 40
    for name, wanted in files.items():
        assert sha(shared / "data" / name) == wanted
    tested = ("pbmc3k", "puram", "he2020", "cortex", "cellpuzzles")
    assert not [name for name in files if any(word in name for word in tested)]


def test_fitted_weights_do_not_lower_validation(manifest: dict) -> None:
    # On average: single sets of 50 puzzles move by some hundredths either way.
    # Two kinds of simulated puzzles and five validation sets, with nothing, types, branches hidden.
    assert len(manifest["accuracy"]) == 7 * 3
    for k in (0, 1):
        change = [
            found["fitted"][k] - found["before"][k] for found in manifest["accuracy"].values()
        ]
        assert sum(change) / len(change) > -0.005


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("atlas_weights")
    sys.modules.pop("atlas_weights", None)


def test_half_of_the_branches_leaves_no_near_relative(program) -> None:
    keys = set(Atlas.read().keys)
    hidden = program.half_of("a study", "branches")
    assert 0.2 < len(hidden) / len(keys) < 0.8
    # Every study hides another half, and none the half that another one leaves.
    halves = [program.half_of(study, "types") for study in ("one", "two", "three", "four", "five")]
    for i, half in enumerate(halves):
        assert all(0.3 < len(half ^ other) / len(keys) < 0.7 for other in halves[:i])
    assert program.half_of("a study", "nothing") == set()
    branches = {program.branch_of(key) for key in hidden}
    assert not branches & {program.branch_of(key) for key in keys - hidden}
    assert len(branches) > 5


def test_simulated_puzzles_are_shuffled_and_keep_to_variable_genes(program, monkeypatch) -> None:
    monkeypatch.setattr(program, "VARIABLE", 30)
    types = [*OWN, "macrophage"]
    genes = [*(gene for own in OWN.values() for gene in own), "CD68", *SELDOM]
    own = [*OWN.values(), ("CD68",)]
    means = np.array([[9.0 if g in some else 0.1 for g in genes] for some in own])
    means /= means.sum(axis=1, keepdims=True)
    columns = [Column(name, None) for name in types]
    cases = program.simulate(columns, genes, means, 12, 1, variable=True)
    assert len(cases) == 12
    assert any(case.gold != sorted(case.gold) for case in cases)
    listed = {gene for case in cases for cell in case.cells for gene in cell}
    assert {"CD79A", "CD68"} <= listed
    assert len(listed) <= 30
    for case in cases:
        assert sorted(case.gold) == list(range(len(case.cells)))
        for cell, place in zip(case.cells, case.gold, strict=True):
            if (name := case.candidates[place]) in OWN:
                best = max(OWN, key=lambda n, c=cell: len(set(OWN[n]) & set(c[:6])))
                assert best == name
