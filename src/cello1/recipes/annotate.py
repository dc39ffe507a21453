"""The settings of annotation, in code as on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cello1.recipes.section import BatchKey, ContextColumns, DonorKey, Layer, Section, Seed
from cello1.recipes.solve import SolveSettings


class AnnotateSettings(Section):
    """How the clusters of a data set become batches, and when a label is given."""

    unit: Annotated[
        Literal["cluster", "cell"], Field(description="What is labelled: clusters, or each cell.")
    ] = "cluster"
    rank: Annotated[
        Literal["cells", "pseudobulk", "specific"],
        Field(
            description="What stands for a cluster: one of its cells, a sum of cells, or the "
            "genes specific to it."
        ),
    ] = "cells"
    batches: Annotated[
        int | None,
        Field(ge=1, description="Batches per cluster or cell; by default 20 and 3."),
    ] = None
    batch_size: Annotated[
        int | None,
        Field(ge=2, description="Most clusters in a batch; by default half of them."),
    ] = None
    unique: Annotated[bool, Field(description="Give every type to one cluster at most.")] = False
    min_confidence: Annotated[
        float, Field(ge=0, le=1, description="Below it, a cluster is unknown.")
    ] = 0.0
    unknown_types: Annotated[
        bool, Field(description="Allow candidates that the Cell Ontology does not know.")
    ] = False
    top_genes: Annotated[int, Field(ge=1, description="Genes listed per cell.")] = 50
    min_genes: Annotated[
        int, Field(ge=1, description="Prefer cells that express at least so many genes.")
    ] = 50
    donor_key: DonorKey = "donor_id"
    batch_key: BatchKey = None
    layer: Layer = None
    context_columns: ContextColumns = Field(default_factory=dict)
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> AnnotateSettings:
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
            description="Who answers: markers, centroids, mini, hf:FOLDER_OR_NAME or openai:MODEL."
        ),
    ] = "markers"
