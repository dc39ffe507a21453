"""The settings of the report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.section import Section, Seed


class ReportSettings(Section):
    """What the page shows."""

    most_puzzles: Annotated[
        int,
        Field(ge=1, description="Maximum puzzles to browse; larger sets are sampled."),
    ] = 1_000
    seed: Seed = 0
