"""Recipes: the settings of a pipeline, one file per verb, read from YAML."""

from cello1.recipes.annotate import AnnotateRecipe, AnnotateSettings, AnnotateSolveSettings
from cello1.recipes.atlas import AtlasSettings
from cello1.recipes.base import BaseModelSettings, Stage
from cello1.recipes.build import BuildSettings
from cello1.recipes.cross import CrossSettings
from cello1.recipes.distill import DistillSettings
from cello1.recipes.evaluate import BehaviourSettings, EvaluateSettings
from cello1.recipes.knowledge import KnowledgeSettings
from cello1.recipes.play import PlaySettings
from cello1.recipes.rate import RateSettings
from cello1.recipes.read import Recipe, read_recipe
from cello1.recipes.report import ReportSettings
from cello1.recipes.rl import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.section import checked
from cello1.recipes.sft import SftSettings
from cello1.recipes.simulate import SimulateSettings
from cello1.recipes.solve import EndpointSettings, SolveSettings

__all__ = [
    "AnnotateRecipe",
    "AnnotateSettings",
    "AnnotateSolveSettings",
    "AtlasSettings",
    "BaseModelSettings",
    "BehaviourSettings",
    "BuildSettings",
    "CrossSettings",
    "DistillSettings",
    "EndpointSettings",
    "EvaluateSettings",
    "KnowledgeSettings",
    "PlaySettings",
    "PpoSettings",
    "RateSettings",
    "Recipe",
    "ReportSettings",
    "RlSettings",
    "SftSettings",
    "SimulateSettings",
    "SolveSettings",
    "Stage",
    "VerlSettings",
    "checked",
    "read_recipe",
]
