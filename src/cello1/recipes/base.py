"""The settings of training a small model from scratch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cello1.recipes.section import Section, Seed

# In which the offline teacher discusses the cells.
Order = Literal["surest", "listed", "drafted"]


class Stage(Section):
    """One stretch of pre-training, with puzzles of a certain size."""

    steps: Annotated[int, Field(ge=1, description="Steps of this stage.")]
    cells: Annotated[tuple[int, int], Field(description="Fewest and most cells.")]
    genes: Annotated[tuple[int, int], Field(description="Fewest and most genes per cell.")]
    distractors: Annotated[int, Field(ge=0, description="Most types without a cell.")] = 0
    plain: Annotated[
        bool, Field(description="Every type under its label, none under another name.")
    ] = False
    written: Annotated[
        float, Field(ge=0, le=1, description="Share of the puzzles that are written as well.")
    ] = 0.0
    evidence: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the puzzles with an atlas's evidence, simulated."),
    ] = 0.0
    batch_tokens: Annotated[
        int, Field(ge=256, description="Tokens per step, about, beside what is written.")
    ] = 4_096


class BaseModelSettings(Section):
    """How a small model is trained from scratch, or trained further."""

    model: Annotated[
        str | None,
        Field(description="Folder of a small model to train further; by default, none."),
    ] = None
    profiles: Annotated[
        tuple[str, ...], Field(description="Tables of mean expression to draw cells from.")
    ] = ()
    cell_types: Annotated[
        str | None, Field(description="CSV with the columns to keep and what they are.")
    ] = None
    puzzles: Annotated[
        tuple[str, ...], Field(description="Files of training puzzles, for their real cells.")
    ] = ()
    sources: Annotated[
        str | None,
        Field(description="`sources.npz` of another run, in place of profiles and puzzles."),
    ] = None
    real: Annotated[float, Field(ge=0, le=1, description="Share of puzzles of real cells.")] = 0.15
    spelled: Annotated[
        float, Field(ge=0, le=1, description="Share of known labels that are read word by word.")
    ] = 0.2
    other_names: Annotated[
        float, Field(ge=0, le=1, description="Share of types under a synonym or a wider name.")
    ] = 0.3
    invented: Annotated[
        float, Field(ge=0, le=1, description="Share of puzzles with invented names.")
    ] = 0.06
    vocabulary: Annotated[
        int, Field(ge=600, description="Tokens for words; genes and types come on top.")
    ] = 2_600
    hidden: Annotated[int, Field(ge=32, description="Width of the model.")] = 128
    layers: Annotated[int, Field(ge=1, description="Number of layers.")] = 4
    heads: Annotated[int, Field(ge=1, description="Attention heads.")] = 4
    context: Annotated[int, Field(ge=256, description="Most positions.")] = 4_096
    from_tables: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the width that starts from what the tables tell."),
    ] = 0.5
    copying: Annotated[
        bool,
        Field(description="Give a model that is trained further a layer that begins as a copyist."),
    ] = False
    masking: Annotated[
        bool,
        Field(description="Give it a layer that begins by masking the types already given."),
    ] = False
    stages: Annotated[tuple[Stage, ...], Field(description="Stages, from easy to hard.")] = ()
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    workers: Annotated[
        int, Field(ge=0, description="Processes that draw puzzles beside the training.")
    ] = 0
    seed: Seed = 0
