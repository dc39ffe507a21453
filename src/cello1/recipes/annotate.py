"""The settings of annotation, in code as on the command line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cello1.recipes.section import BatchKey, ContextColumns, DonorKey, Layer, Section, Seed
from cello1.recipes.solve import SolveSettings


class AnnotateSettings(Section):
    """What is labelled, how a language model is shown it, and when a label is given."""

    unit: Annotated[
        Literal["cluster", "cell"], Field(description="What is labelled: clusters, or each cell.")
    ] = "cluster"
    rank: Annotated[
        Literal["cells", "pseudobulk", "specific"],
        Field(
            description="How a cluster is shown to a language model: one of its cells, a sum of "
            "cells, or the genes specific to it."
        ),
    ] = "cells"
    batches: Annotated[
        int | None,
        Field(
            ge=1,
            description="How often a language model sees each cluster (20) or cell (3).",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        Field(
            ge=2,
            description="Clusters shown to a language model at a time; by default half of them.",
        ),
    ] = None
    unique: Annotated[bool, Field(description="Assign every type to at most one cluster.")] = False
    min_confidence: Annotated[
        float | None,
        Field(ge=0, le=1, description="Minimum probability of a label; by default as fitted."),
    ] = None
    unknown_types: Annotated[
        bool, Field(description="Allow candidates that are not in the Cell Ontology.")
    ] = False
    top_genes: Annotated[int, Field(ge=1, description="Genes listed per cell.")] = 50
    min_genes: Annotated[
        int, Field(ge=1, description="Prefer cells that express at least this many genes.")
    ] = 50
    donor_key: DonorKey = "donor_id"
    batch_key: BatchKey = None
    layer: Layer = None
    context_columns: ContextColumns = Field(default_factory=dict)
    seed: Seed = 0

    @model_validator(mode="after")
    def _unit_fits(self) -> AnnotateSettings:
        if self.unit == "cell" and (self.rank != "cells" or self.unique):
            raise ValueError("unit=cell needs rank=cells, and cells of one type cannot be unique")
        return self

    @property
    def rounds(self) -> int:
        """Batches in which each cluster (or cell) takes part."""
        return self.batches or (3 if self.unit == "cell" else 20)


class AnnotateSolveSettings(SolveSettings):
    """Who answers when cells are annotated."""

    solver: Annotated[
        str,
        Field(
            description="Who answers: atlas, markers, centroids, mini, hf:FOLDER_OR_NAME or "
            "openai:MODEL."
        ),
    ] = "atlas"

    @model_validator(mode="before")
    @classmethod
    def _who_uses_the_table(cls, values: Any) -> Any:
        """Ask who a table of markers is for, when nobody is named: the markers."""
        if isinstance(values, dict) and values.get("markers") and "solver" not in values:
            return {**values, "solver": "markers"}
        return values


class AnnotateRecipe(AnnotateSolveSettings, AnnotateSettings):
    """How cells are annotated and who answers, as one section of a recipe."""
