"""Who answers where nobody is named, and that it is said."""

import sys

import pytest

from cello1.errors import InputError, UseError
from cello1.puzzles.table import write_puzzles
from cello1.recipes import AnnotateSolveSettings, SolveSettings
from cello1.recipes.section import checked
from cello1.runs import read_run
from cello1.solvers.choose import choose_solver
from cello1.solvers.run import solve


@pytest.fixture
def without_torch(monkeypatch):
    """No torch can be found or imported here."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("torch", "transformers")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def with_torch():
    pytest.importorskip("torch", reason="needs torch: pip install 'cello1[local]'")
    pytest.importorskip("transformers", reason="needs transformers: pip install 'cello1[local]'")


@pytest.fixture
def file(toys, tmp_path):
    write_puzzles(toys[:6], tmp_path / "puzzles.parquet")
    return tmp_path / "puzzles.parquet"


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        ({}, "atlas+mini"),
        ({"alone": True}, "atlas+mini"),
        ({"without": ["a"]}, "atlas+mini"),
        ({"engine": "ray"}, "atlas+mini"),
        ({"seed": 3}, "atlas+mini"),
        ({"valid": True}, "mini"),
        ({"decode": "assign"}, "mini"),
        ({"decode": "generate"}, "mini"),
        ({"samples": 3, "permute": True}, "mini"),
        ({"temperature": 0.7}, "mini"),
        ({"evidence": "atlas"}, "mini"),
        ({"engine": "vllm"}, "mini"),
        ({"markers": "table.csv"}, "markers"),
        ({"solver": "chance"}, "chance"),
    ],
)
def test_it_follows_from_what_is_asked(with_torch, asked, who):
    settings = checked(SolveSettings, asked)
    assert settings.who == who
    assert settings.solver == asked.get("solver")  # so that more options can still change it


@pytest.mark.parametrize(("asked", "who"), [({}, "atlas"), ({"valid": True}, "mini")])
def test_without_torch_it_is_the_atlas(without_torch, asked, who):
    assert checked(SolveSettings, asked).who == who


def test_a_server_needs_the_name_of_its_model():
    with pytest.raises(UseError, match="name its model, solver=openai:MODEL"):
        checked(SolveSettings, {"base_url": "http://localhost:1/v1"})


@pytest.mark.parametrize("solver", ["mini", "atlas+mini", "openai:m", "hf:x"])
def test_a_table_of_markers_is_for_the_markers(solver):
    with pytest.raises(UseError, match="markers cannot be used with solver"):
        checked(SolveSettings, {"solver": solver, "markers": "table.csv"})


def test_annotation_has_a_default_of_its_own():
    assert checked(AnnotateSolveSettings, {}).who == "atlas"


def test_with_torch_it_is_both_together(with_torch, run, file, tmp_path):
    code, _, said = run("solve", file, "--out", tmp_path / "run")
    assert code == 0
    assert said.startswith("solver: atlas+mini, because it is the best on validation donors;")
    assert "without torch it is atlas" in said
    assert read_run(tmp_path / "run")["config"]["solver"] == "atlas+mini"


def test_without_torch_it_works_and_says_what_torch_would_add(without_torch, run, file, tmp_path):
    code, _, said = run("solve", file, "--out", tmp_path / "run")
    assert code == 0
    assert said.startswith("solver: atlas, because torch and transformers are not installed;")
    assert "pip install 'cello1[local]'" in said
    assert "atlas+mini" in said
    assert read_run(tmp_path / "run")["config"]["solver"] == "atlas"
    code, _, said = run("solve", file, "--valid", "--out", tmp_path / "valid")
    assert code == 1
    assert "needs torch and transformers" in said


def test_a_solver_that_is_named_needs_no_explanation(run, file, tmp_path):
    assert "solver:" not in run("solve", file, "--solver", "chance", "--out", tmp_path / "r")[2]


def test_help_tells_the_rule(run):
    said = " ".join(run("solve", "--help")[1].replace("│", " ").split())
    assert "By default atlas+mini, without torch atlas; mini for options of language" in said


def test_in_python_none_is_the_default(without_torch, file, tmp_path):
    solve(file, None, tmp_path / "run", alone=True)
    config = read_run(tmp_path / "run")["config"]
    assert (config["solver"], config["joint"]) == ("atlas", False)
    with pytest.raises(InputError, match="needs torch"):
        choose_solver(SolveSettings(evidence="atlas"))
