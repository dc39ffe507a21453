"""The settings of scoring runs and of studying how they reason."""

from __future__ import annotations

from cello1.recipes.section import Section, Seed


class EvaluateSettings(Section):
    """How runs are scored."""

    seed: Seed = 0


class BehaviourSettings(Section):
    """How the reasoning of runs is studied."""

    seed: Seed = 0
