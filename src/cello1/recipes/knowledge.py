"""The settings of the knowledge stage: what is asked of the atlas."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cello1.recipes.section import AtlasFolder, AtlasOnly, Section, Seed, Without


class KnowledgeSettings(Section):
    """Questions and answers that a model learns before it reasons over batches."""

    questions: Annotated[int, Field(ge=1, description="How many.")] = 40_000
    atlas: AtlasFolder = None
    atlas_only: AtlasOnly = False
    without: Without = ()
    genes: Annotated[
        tuple[int, int], Field(description="Fewest and most genes of a list that is shown.")
    ] = (20, 50)
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> KnowledgeSettings:
        if self.atlas_only and self.atlas is None:
            raise ValueError("atlas_only needs the folder of an atlas")
        if not 5 <= self.genes[0] <= self.genes[1]:
            raise ValueError(f"genes is {self.genes}; expected two numbers, the first at least 5")
        return self
