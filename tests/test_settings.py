"""A setting is told once: its field makes option, recipe key, keyword and row of the page."""

import inspect
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import cello1 as co
from cello1 import recipes
from cello1.cli.app import VERBS, make_app
from cello1.cli.options import FromRecipe, command, is_option, spelled
from cello1.errors import UseError
from cello1.recipes import (
    BuildSettings,
    PpoSettings,
    Recipe,
    RlSettings,
    SolveSettings,
    read_recipe,
)
from cello1.recipes.read import resolve
from cello1.recipes.section import Section, takes

ROOT = Path(__file__).resolve().parents[1]
ENGINES = {"trl": RlSettings, "ppo": PpoSettings}
SECTIONS = [s for s in vars(recipes).values() if inspect.isclass(s) and issubclass(s, Section)]


@pytest.fixture
def changed(monkeypatch):
    """Change the default of `n_min` in its model, for the time of a test."""
    field = BuildSettings.model_fields["n_min"]
    monkeypatch.setattr(field, "default", 6)
    BuildSettings.model_rebuild(force=True)
    monkeypatch.setattr(Recipe.model_fields["build"], "default", BuildSettings())
    Recipe.model_rebuild(force=True)
    yield 6
    monkeypatch.undo()
    BuildSettings.model_rebuild(force=True)
    Recipe.model_rebuild(force=True)


def help_of(verb: str) -> str:
    shown = CliRunner().invoke(make_app(), [verb, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    return shown.output


def test_a_default_stands_in_one_place(changed, monkeypatch):
    row = next(line for line in help_of("build").splitlines() if "--n-min" in line)
    assert "[default: 6]" in row
    assert read_recipe(None).build.n_min == 6
    assert resolve(BuildSettings, None).n_min == 6

    @takes(BuildSettings)
    def building(**changes):
        return resolve(BuildSettings, None, changes)

    assert inspect.signature(building).parameters["n_min"].default == 6
    assert building().n_min == 6
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    table = pytest.importorskip("cello1_docs").settings_table(BuildSettings)
    assert "| `n_min` | whole number &gt;= 2 | `6` | Minimum cells per puzzle. |" in table


def test_the_default_is_back_after_that():
    assert BuildSettings().n_min == read_recipe(None).build.n_min == 8
    assert "[default: 8]" in help_of("build")


def test_an_option_wins_over_the_recipe_and_one_not_given_does_not(tmp_path):
    told = []

    def verb(settings: BuildSettings) -> None:
        told.append(settings)

    app = typer.Typer()
    app.command()(command(verb))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "build: {n_min: 3, n_max: 5, test_donors: [a], context_columns: {bmi: 'BMI {value}'}}\n"
    )

    def build(*options):
        result = CliRunner().invoke(app, ["--recipe", str(recipe), *options])
        assert result.exit_code == 0, result.output
        return told[-1]

    assert (build().n_min, build().n_max, build().test_donors) == (3, 5, ("a",))
    given = build("--n-min", "4", "--test-donor", "b", "--test-donor", "c", "--one-donor")
    assert (given.n_min, given.n_max, given.test_donors, given.one_donor) == (
        4, 5, ("b", "c"), True,
    )  # fmt: skip
    assert build("--fractions", "0.5", "0.25", "0.25").fractions == (0.5, 0.25, 0.25)
    columns = build("--context-column", "sex={value}: sex").context_columns
    assert columns == {"bmi": "BMI {value}", "sex": "{value}: sex"}


def test_the_engine_says_which_settings_there_are(tmp_path):
    told = []

    def verb(
        settings: Annotated[RlSettings | PpoSettings, FromRecipe("", ENGINES)],
        engine: Annotated[str, typer.Option()] = "trl",
    ):
        told.append(settings)

    app = typer.Typer(rich_markup_mode="markdown")
    app.command()(command(verb))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("rl: {held_out: 0.3}\nppo: {gamma: 0.9, puzzles: a}\n")

    def call(*options):
        result = CliRunner().invoke(app, [str(recipe), *options])
        return told[-1] if result.exit_code == 0 else result.exception

    given = ("--held-out", "0.2", "--reward", "batch", "--puzzles", "b", "--puzzles", "c")
    assert call("batch=3", "--engine", "ppo", "--clip", "0.1", *given) == PpoSettings(
        gamma=0.9, batch=3, clip=0.1, held_out=0.2, puzzles=("b", "c")
    )
    assert call("--engine", "trl", *given, "--trainer", "beta=0.1") == RlSettings(
        held_out=0.2, puzzles=("b", "c"), trainer={"beta": 0.1}
    )
    assert "--clip cannot be used with --engine trl" in str(call("--engine", "trl", "--clip", "1"))
    help_ = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "ppo: Clipping range of the probability ratio. [default: 0.2]" in help_
    assert "[default: 64 (ppo)]" in next(x for x in help_.splitlines() if "--solve " in x)


def test_a_recipe_says_how_to_annotate(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("annotate: {top_genes: 20, solver: 'openai:x', samples: 3}\n")
    told = []

    def verb(settings: recipes.AnnotateRecipe) -> None:
        told.append(settings)

    app = typer.Typer()
    app.command()(command(verb))
    CliRunner().invoke(app, ["--recipe", str(recipe), "--samples", "2"])
    CliRunner().invoke(app, ["--markers", "m.csv"])
    assert (told[0].top_genes, told[0].solver, told[0].samples) == (20, "openai:x", 2)
    assert told[1].solver == "markers"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_every_setting_says_what_it_is(section):
    for name, field in section.model_fields.items():
        if section is not Recipe:
            assert field.description, name
            assert field.description[0].isupper() or " " in field.description, name
            assert field.description.endswith((".", "?")), name


def test_every_setting_that_can_be_an_option_is_one():
    group = typer.main.get_command(make_app())
    known = {
        "build": BuildSettings, "doctor": BuildSettings, "solve": SolveSettings,
        "annotate": recipes.AnnotateSettings, "distill": recipes.DistillSettings,
        "sft": recipes.SftSettings, "base": recipes.BaseModelSettings,
    }  # fmt: skip
    assert known.keys() <= {line.split()[1] for _, line in VERBS}
    engines = (recipes.RlSettings, recipes.PpoSettings, recipes.VerlSettings)
    for verb, section in [*known.items(), *(("rl", section) for section in engines)]:
        options = {o for p in group.commands[verb].params for o in p.opts}
        for name, field in section.model_fields.items():
            if is_option(field):
                assert spelled(name, field) in options, f"{verb}: {name}"


def test_python_takes_keywords_settings_and_recipes(tmp_path):
    assert resolve(SolveSettings, SolveSettings(seed=3), {"alone": True}) == SolveSettings(
        seed=3, alone=True
    )
    recipe = tmp_path / "r.yaml"
    recipe.write_text("build: {n_min: 4}")
    assert resolve(BuildSettings, recipe, {"n_max": 9}) == BuildSettings(n_min=4, n_max=9)
    with pytest.raises(UseError, match="n_mni: Extra inputs are not permitted"):
        co.build([], tmp_path / "out", n_mni=3)
    with pytest.raises(UseError, match=r"n_min: .* \(n_min is 1\)"):
        co.build([], tmp_path / "out", n_min=1)


def test_trainings_are_called_as_their_verbs(tmp_path):
    for train in (co.sft, co.rl, co.base):
        with pytest.raises(UseError, match="no_such: Extra inputs"):
            train(None, tmp_path / "out", no_such=1)
        with pytest.raises(UseError, match=r"none\.yaml cannot be read"):
            train(tmp_path / "none.yaml", tmp_path / "out")
    for engine in ("ppo", "verl"):
        with pytest.raises(UseError, match="curriculum_: Extra inputs"):
            co.rl(None, tmp_path / "out", engine=engine, curriculum_=1)
        with pytest.raises(UseError, match="found RlSettings"):
            co.rl(recipes.RlSettings(), tmp_path / "out", engine=engine)


def test_help_and_editors_see_the_keywords():
    for function, name in ((co.build, "n_min"), (co.solve, "samples"), (co.simulate, "donors")):
        parameter = inspect.signature(function).parameters[name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
