"""The settings of annotation, in code as on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cello1.recipes.read import BatchKey, ContextColumns, Layer
from cello1.recipes.training import Section


class AnnotateSettings(Section):
    """How the clusters of a data set become batches, and when a label is given."""

    unit: Annotated[
        Literal["cluster", "cell"], Field(description="what is labelled: clusters, or each cell")
    ] = "cluster"
    rank: Annotated[
        Literal["cells", "pseudobulk", "specific"],
        Field(description="what stands for a cluster: a cell, a sum of cells, its own genes"),
    ] = "cells"
    batches: Annotated[int | None, Field(ge=1, description="per cluster [20] or cell [3]")] = None
    batch_size: Annotated[int | None, Field(ge=2, description="clusters per batch at most")] = None
    unique: Annotated[bool, Field(description="give every label to one cluster only")] = False
    min_confidence: Annotated[
        float, Field(ge=0, le=1, description="below it, a cluster stays unknown")
    ] = 0.0
    unknown_types: Annotated[
        bool, Field(description="allow candidates that the Cell Ontology does not know")
    ] = False
    top_genes: Annotated[int, Field(ge=1, description="genes listed per cell")] = 50
    min_genes: Annotated[int, Field(ge=1, description="prefer cells that express as many")] = 50
    donor_key: Annotated[str, Field(description="obs column of the donor")] = "donor_id"
    batch_key: BatchKey = None
    layer: Layer = None
    context_columns: ContextColumns = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0

    @model_validator(mode="after")
    def _consistent(self) -> AnnotateSettings:
        if self.unit == "cell" and (self.rank != "cells" or self.unique):
            raise ValueError("unit=cell needs rank=cells, and cells of one type cannot be unique")
        return self

    @property
    def rounds(self) -> int:
        """Batches in which each cluster (or cell) takes part."""
        return self.batches or (3 if self.unit == "cell" else 20)
