from __future__ import annotations

from pathlib import Path

import pytest

from cello1.errors import InputError, UseError
from cello1.recipes import BuildSettings, Recipe, checked, read_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@pytest.fixture
def recipe(tmp_path):
    def written(text: str | bytes, *overrides: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(path, overrides)

    return written


def test_every_setting_has_a_default(recipe):
    assert read_recipe(None) == recipe("") == recipe("build: {}") == Recipe()
    build = Recipe().build
    assert (build.n_min, build.n_max, build.per_n, build.top_genes) == (8, 15, 40, 50)
    assert (build.split, build.fractions, build.seed) == ("donor", (0.7, 0.1, 0.2), 0)


def test_a_recipe_sets_what_it_names_and_nothing_else(recipe):
    text = "build:\n  n_min: 5\n  test_donors: [d1, d2]\n  exclude_genes: [ribosomal]\n"
    assert recipe(text).build == BuildSettings(
        n_min=5, test_donors=("d1", "d2"), exclude_genes=("ribosomal",)
    )


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(recipe):
    found = recipe(
        "build: {n_min: 5, seed: 3}",
        "build.n_min=6",
        "build.n_min=7",
        "build.split=none",
        "build.fractions=[0.5, 0.25, 0.25]",
        "build.context_columns.bmi=The BMI is {value} = high.",
    ).build
    assert (found.n_min, found.seed, found.split) == (7, 3, "none")
    assert found.fractions == (0.5, 0.25, 0.25)
    assert found.context_columns == {"bmi": "The BMI is {value} = high."}
    assert read_recipe(None, ["build.seed=9"]).build.seed == 9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("n_mni: 5", ["build.n_mni: Extra inputs are not permitted"]),
        ("n_min: 1", ["build.n_min: Input should be greater than or equal to 2"]),
        ("n_min: 5.5", ["build.n_min"]),
        ("n_min: many", ["build.n_min"]),
        ("seed: -1", ["build.seed"]),
        ("split: person", ["build.split", "'donor'"]),
        ("exclude_genes: [ribosomal, mito]", ["build.exclude_genes.1"]),
        ("fractions: [0.5, 0.5]", ["build.fractions"]),
        ("fractions: [0.5, 0.5, 0.5]", ["must be >= 0 and sum to 1"]),
        ("fractions: [1.5, -0.5, 0]", ["must be >= 0 and sum to 1"]),
        ("fractions: [.nan, 0.5, 0.5]", ["fractions"]),
        ("n_min: 9\n  n_max: 8", ["n_max is 8, below n_min (9)"]),
        ("context_columns: {bmi: high}", ["context column 'bmi' lacks {value}"]),
        ("test_donors: [a]\n  validation_donors: [a, b]", ["donors ['a']"]),
        ("n_mni: 5\n  seed: -1\n  per_n: 0", ["build.n_mni", "build.seed", "build.per_n"]),
        ("n_min: 9\n  n_max: 8\n  fractions: [1, 1, 1]", ["n_max is 8", "fractions"]),
    ],
)
def test_bad_settings_give_one_error_that_names_every_problem(recipe, settings, said):
    with pytest.raises(InputError, match="settings are not valid") as refused:
        recipe(f"build:\n  {settings}\n")
    for part in said:
        assert part in str(refused.value)


def test_an_unknown_section_is_refused(recipe):
    with pytest.raises(InputError, match="bulid: Extra inputs are not permitted"):
        recipe("bulid: {n_min: 5}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("build.n_min", "must look like build.n_min=5"),
        ("=5", "must look like build.n_min=5"),
        ("build.n_min.deep=5", "goes through 'n_min', which is a value"),
        ("build.n_mni=5", "build.n_mni: Extra inputs"),
        ("build=5", "build"),
        ("build.n_min=[", r"build\.n_min=\["),
    ],
)
def test_a_bad_override_is_named(recipe, override, said):
    with pytest.raises(InputError, match=said):
        recipe("build: {n_min: 5}", override)


@pytest.mark.parametrize("text", ["build: [", "- build", "build", b"build: \xe9", b"\x00"])
def test_a_file_that_is_no_recipe_is_named(recipe, text):
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        recipe(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_settings_from_python_are_checked_alike():
    assert checked(BuildSettings, {"n_min": 5}) == BuildSettings(n_min=5)
    with pytest.raises(InputError, match="n_mni: Extra inputs are not permitted"):
        checked(BuildSettings, {"n_mni": 5})


def test_a_recipe_like_another_says_only_what_is_different(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "first.yaml").write_text("build: {n_min: 5, seed: 3}\nrl: {trainer: {beta: 0.1}}\n")
    second = tmp_path / "deep" / "second.yaml"
    second.write_text("like: ../first.yaml\nbuild: {seed: 4}\nrl: {trainer: {max_steps: 7}}\n")
    (tmp_path / "third.yaml").write_text("like: deep/second.yaml\n")
    found = read_recipe(tmp_path / "third.yaml", ["build.n_max=9"])
    assert (found.build.n_min, found.build.n_max, found.build.seed) == (5, 9, 4)
    assert found.rl.trainer == {"beta": 0.1, "max_steps": 7}


def test_a_recipe_like_itself_or_like_none_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("like: b.yaml\n")
    (tmp_path / "b.yaml").write_text("like: a.yaml\n")
    with pytest.raises(UseError, match="like itself"):
        read_recipe(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("like: missing.yaml\n")
    with pytest.raises(UseError, match=r"missing\.yaml cannot be read"):
        read_recipe(tmp_path / "c.yaml")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path):
    assert read_recipe(path)
