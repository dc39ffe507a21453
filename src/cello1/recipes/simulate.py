"""The settings of simulated cells."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.section import Section, Seed


class SimulateSettings(Section):
    """How cells are simulated from mean profiles."""

    donors: Annotated[int, Field(ge=1, description="Donors per table.")] = 8
    cells_per_type: Annotated[int, Field(ge=1, description="Cells per donor and type.")] = 20
    depth: Annotated[float, Field(gt=0, description="Median counts per cell.")] = 3_000.0
    seed: Seed = 0
