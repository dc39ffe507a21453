"""Recipes: the settings of a pipeline, one file per verb, read from YAML."""

from cello1.recipes.annotate import AnnotateSettings
from cello1.recipes.read import (
    BuildSettings,
    Recipe,
    SolveSettings,
    checked,
    read_recipe,
)

__all__ = [
    "AnnotateSettings",
    "BuildSettings",
    "Recipe",
    "SolveSettings",
    "checked",
    "read_recipe",
]
