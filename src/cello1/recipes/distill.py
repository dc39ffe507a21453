"""The settings of distillation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cello1.recipes.base import Order
from cello1.recipes.section import Evidence, Option, Section, Seed

# Which split of a build a teacher is asked about, where none is named.
SPLIT = "train"


class DistillSettings(Section):
    """How a teacher's responses become traces.

    The paper (arXiv 2506.02911, section 4): OpenAI o1, 8 samples a puzzle, accepted if the
    format is valid and every cell is right. The filters beyond that are off by default.
    """

    teacher: Annotated[
        str,
        Field(
            description="Who answers: atlas, markers, centroids, hf:FOLDER_OR_NAME or openai:MODEL."
        ),
    ] = "centroids"
    options: Annotated[
        dict[str, Any],
        Field(description="Further settings of the teacher, as in `cello1 solve`."),
        Option("--option"),
    ] = Field(default_factory=dict)
    evidence: Evidence = None
    samples: Annotated[int, Field(ge=1, description="Maximum responses per puzzle.")] = 8
    temperature: Annotated[float, Field(ge=0, description="Sampling temperature.")] = 1.0
    target: Annotated[
        int | None,
        Field(
            ge=1,
            description="Stop after this many solved puzzles; only unsolved ones are resampled.",
        ),
    ] = None
    hint: Annotated[
        bool, Field(description="Show the teacher the answer and let it justify it.")
    ] = False
    order: Annotated[
        Order, Field(description="Order in which the offline teacher discusses the cells.")
    ] = "surest"
    min_true_genes: Annotated[
        float | None,
        Field(ge=0, le=1, description="Minimum fraction of cited genes that are in their cell."),
    ] = None
    min_words: Annotated[int | None, Field(ge=0, description="Minimum words of reasoning.")] = None
    max_words: Annotated[int | None, Field(ge=1, description="Maximum words of reasoning.")] = None
    no_early_answer: Annotated[
        bool, Field(description="Reject reasoning that begins with the whole answer.")
    ] = False
    keep: Annotated[
        Literal["shortest", "longest", "random", "best_supported"],
        Field(description="Which of the accepted responses to a puzzle become traces."),
    ] = "shortest"
    per_puzzle: Annotated[int, Field(ge=1, description="Maximum traces per puzzle.")] = 1
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> DistillSettings:
        ours = {"solver", "samples", "temperature", "seed", "permute", "alone", "evidence"}
        if taken := sorted(ours & set(self.options)):
            raise ValueError(f"options cannot set {', '.join(taken)}")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words is {self.min_words}, above max_words ({self.max_words})")
        return self
