"""The settings of blind comparisons."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.section import Section, Seed


class RateSettings(Section):
    """How two runs are compared blindly."""

    most: Annotated[int, Field(ge=1, description="Maximum puzzles to compare.")] = 50
    seed: Seed = 0
