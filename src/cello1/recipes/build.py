"""The settings of building puzzles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cello1.recipes.section import (
    BatchKey,
    ContextColumns,
    DonorKey,
    Layer,
    Option,
    Section,
    Seed,
)

GeneClass = Literal["mitochondrial", "ribosomal", "pseudogene"]


class BuildSettings(Section):
    """How puzzles are made of annotated cells.

    The defaults are those of CellPuzzles (arXiv 2506.02911, section 3), except for the split, which
    is by donor, and for nested types, which are kept apart.
    """

    n_min: Annotated[int, Field(ge=2, description="Minimum cells per puzzle.")] = 8
    n_max: Annotated[int, Field(ge=2, description="Maximum cells per puzzle.")] = 15
    per_n: Annotated[int, Field(ge=1, description="Puzzles per N and file.")] = 40
    distractors: Annotated[int, Field(ge=0, description="Extra candidates that match no cell.")] = 0
    candidate_order: Annotated[
        Literal["shuffled", "sorted"],
        Field(description="Order of the candidates; published rows are sorted."),
    ] = "shuffled"
    nested_types: Annotated[
        Literal["apart", "allowed"],
        Field(description="May a type and its ancestor in the Cell Ontology share a puzzle?"),
    ] = "apart"
    top_genes: Annotated[int, Field(ge=1, description="Genes listed per cell.")] = 50
    min_genes: Annotated[int, Field(ge=1, description="Drop cells with fewer expressed genes.")] = (
        50
    )
    exclude_genes: Annotated[
        tuple[GeneClass, ...], Field(description="Classes of genes to leave out of the lists.")
    ] = ()
    split: Annotated[
        Literal["donor", "dataset", "tissue", "disease", "cell", "puzzle", "none"],
        Field(description="What train, validation and test must not share."),
    ] = "donor"
    fractions: Annotated[
        tuple[float, float, float], Field(description="Fractions of train, validation and test.")
    ] = (0.7, 0.1, 0.2)
    test_donors: Annotated[
        tuple[str, ...], Field(description="Donors to test on."), Option("--test-donor")
    ] = ()
    validation_donors: Annotated[
        tuple[str, ...], Field(description="Donors to validate on."), Option("--validation-donor")
    ] = ()
    unseen_diseases: Annotated[
        tuple[str, ...],
        Field(description="Diseases to hold out entirely, in unseen.parquet."),
        Option("--unseen-disease"),
    ] = ()
    donor_key: DonorKey = "donor_id"
    cell_type_key: Annotated[str, Field(description="obs column of the cell type.")] = "cell_type"
    batch_key: BatchKey = None
    layer: Layer = None
    suspension_type: Annotated[
        str, Field(description="Suspension type to keep (cell, nucleus), or any.")
    ] = "cell"
    pooled_donors: Annotated[
        bool, Field(description="Keep cells of unnamed donors, pooled per file.")
    ] = False
    one_donor: Annotated[
        bool, Field(description="Treat a file without a donor column as one donor.")
    ] = False
    context_columns: ContextColumns = Field(default_factory=dict)
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> BuildSettings:
        faults = []
        if self.n_max < self.n_min:
            faults.append(f"n_max is {self.n_max}, below n_min ({self.n_min})")
        if not (min(self.fractions) >= 0 and abs(sum(self.fractions) - 1) <= 1e-6):
            faults.append(f"fractions {self.fractions} must be >= 0 and sum to 1")
        for column, sentence in self.context_columns.items():
            if "{value}" not in sentence:
                faults.append(f"the sentence for context column {column!r} lacks {{value}}")
        if both := set(self.test_donors) & set(self.validation_donors):
            faults.append(f"donors {sorted(both)} are named for test and validation")
        if faults:
            raise ValueError("; ".join(faults))
        return self
