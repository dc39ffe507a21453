"""The settings of crossed puzzles."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.section import Section, Seed


class CrossSettings(Section):
    """How puzzles are crossed into new ones."""

    count: Annotated[int, Field(ge=1, description="New puzzles, spread evenly over the files.")] = (
        4_000
    )
    ambient: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Fraction of genes replaced by genes of other cells of the donor.",
        ),
    ] = 0.0
    seed: Seed = 0
