"""`cello1 rl` with the engines beside TRL."""

import json

import pytest
import yaml
from sft_toys import toy_base, toy_traces
from typer.testing import CliRunner

from cello1.cli import app
from cello1.puzzles.table import write_puzzles


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    write_puzzles(toy_traces(), folder / "puzzles.parquet")
    section = {
        "model": str(toy_base(folder / "base")), "puzzles": str(folder / "puzzles.parquet"),
        "batch": 4, "solve": 2, "max_response": 6, "max_steps": 1,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"ppo": section}))
    return folder / "recipe.yaml"


def test_ppo_runs_from_a_recipe_and_says_what_comes_next(recipe, tmp_path):
    command = ["rl", str(recipe), "minibatch=2", "--engine", "ppo", "--seed", "3"]
    command += ["--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"--solver hf:{tmp_path / 'run' / 'model'}" in done.output
    told = CliRunner().invoke(app, [*command, "--json"])
    record = json.loads(told.stdout)
    assert record["settings"]["minibatch"] == 2
    assert record["settings"]["seed"] == 3
    assert record["engine"] == "ppo"
