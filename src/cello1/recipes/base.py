"""The settings of training a small model from scratch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cello1.recipes.section import Section, Seed

# In which the offline teacher discusses the cells.
Order = Literal["surest", "listed", "drafted"]


class Stage(Section):
    """One stretch of pre-training, with puzzles or drills of a certain size."""

    tokens: Annotated[int, Field(ge=1, description="Tokens read in this stage.")]
    cells: Annotated[tuple[int, int], Field(description="Fewest and most cells.")]
    genes: Annotated[tuple[int, int], Field(description="Fewest and most genes per cell.")]
    telling: Annotated[
        float, Field(ge=0, le=1, description="Share of a shortened list that tells the type.")
    ] = 0.5
    distractors: Annotated[int, Field(ge=0, description="Most types without a cell.")] = 0
    drill: Annotated[
        bool, Field(description="No puzzles: lists of any genes, to be repeated cell by cell.")
    ] = False
    blind: Annotated[
        bool,
        Field(description="Any genes: all there is to learn is that no type comes twice."),
    ] = False
    crossed: Annotated[
        bool, Field(description="Make each cell of three of its type, donor and batch.")
    ] = False
    order: Annotated[
        Order,
        Field(
            description="Discuss the cells surest first with revision, as listed, or as a draft "
            "that is then settled."
        ),
    ] = "surest"
    batch_tokens: Annotated[int, Field(ge=256, description="Tokens per step, about.")] = 2_048


class BaseModelSettings(Section):
    """How a small model is trained from scratch, or trained further."""

    model: Annotated[
        str | None,
        Field(description="Folder of a small model to train further; by default, none."),
    ] = None
    puzzles: Annotated[
        tuple[str, ...],
        Field(description="Files to draw cells from, each as often as the others."),
    ] = ()
    vocabulary: Annotated[int, Field(ge=600, description="Size of the vocabulary.")] = 6_000
    hidden: Annotated[int, Field(ge=32, description="Width of the model.")] = 128
    layers: Annotated[int, Field(ge=1, description="Number of layers.")] = 4
    heads: Annotated[int, Field(ge=1, description="Attention heads.")] = 4
    context: Annotated[int, Field(ge=256, description="Most positions.")] = 4_096
    stages: Annotated[tuple[Stage, ...], Field(description="Stages, from easy to hard.")] = ()
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    seed: Seed = 0
