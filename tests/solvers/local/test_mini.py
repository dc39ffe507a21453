"""The embedded model: small, whole, and at work on real cells without a network."""

import json

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

import cello1
from cello1.cli import app
from cello1.demo import _write_builtin
from cello1.recipes import BuildSettings, SolveSettings, checked
from cello1.solvers.choose import choose_solver
from cello1.solvers.local.mini import FOLDER, Mini


@pytest.fixture(scope="module")
def blood(tmp_path_factory):
    """Puzzles of the real cells that ship with scanpy."""
    folder = tmp_path_factory.mktemp("blood")
    settings = BuildSettings(n_min=8, n_max=8, per_n=6, split="none", nested_types="allowed")
    cello1.build([_write_builtin(folder / "blood.h5ad")], folder / "puzzles", settings)
    return folder / "puzzles" / "all.parquet"


def test_it_is_small_and_in_half_precision_and_says_what_it_is_made_of():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 40e6
    with safe_open(FOLDER / "model.safetensors", framework="pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}
    card = (FOLDER / "README.md").read_text("utf-8")
    for part in ("license: bsd-3-clause", "## What it learned from", "## Results"):
        assert part in card
    record = json.loads((FOLDER / "training.json").read_text("utf-8"))
    assert len(record["tables"]) == 41
    # Neither those it is tested on nor those it was chosen by.
    learned = " ".join(record["donors"])
    assert not [donor for donor in ("1016", "1488", "1039", ", 107") if donor in learned]


def test_it_is_the_default_and_answers_every_puzzle_of_real_cells(blood, tmp_path):
    ran = CliRunner().invoke(app, ["solve", str(blood), "--out", str(tmp_path / "run")])
    assert ran.exit_code == 0, ran.output
    puzzles, records = (
        cello1.read_puzzles(blood),
        [
            json.loads(line)
            for line in (tmp_path / "run" / "responses.jsonl").read_text().splitlines()
        ],
    )
    scores = {r["id"]: r for r in records}
    assert set(scores) == {puzzle.id for puzzle in puzzles}
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["solver"] == "mini"
    assert config["weights"].startswith("sha256:")


def test_assigning_it_knows_more_of_real_cells_than_chance(blood):
    puzzles, texts = cello1.read_puzzles(blood), {}
    solver = choose_solver(checked(SolveSettings, {"decode": "assign"}))
    solver.solve(puzzles, lambda i, response: texts.update({i: response.text}))
    assert solver.name == "mini (assign)"
    found = cello1.evaluate(puzzles, texts).overall
    assert found.uniqueness.estimate == 1
    assert found.cell_accuracy.estimate > 2 * found.chance_cell


def test_its_words_come_back_as_they_went_in():
    vocabulary = Mini().vocabulary
    text = "<think>Cell 3 lists CD3D, NKG7, so natural killer cell.</think>"
    assert vocabulary.text(vocabulary.encode(text)) == text
