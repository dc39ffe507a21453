"""The embedded weights are what their program made of the embedded atlas."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cello1.atlas import Atlas
from cello1.atlas.atlas import EMBEDDED, Weights

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
