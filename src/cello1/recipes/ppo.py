"""The settings of proximal policy optimization, on one machine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cello1.recipes.rl import PolicySettings


class PpoSettings(PolicySettings):
    """How a model learns by proximal policy optimization, on one machine.

    The defaults are those of the ablation of Cell-o1 (arXiv 2506.02911, section 4); what the paper
    leaves open (clipping, one pass) is as in verl, with which it was run.
    """

    solve: Annotated[
        int, Field(ge=0, description="Held-out puzzles solved at each evaluation.")
    ] = 64
    passes: Annotated[int, Field(ge=1, description="Times each batch is learned from.")] = 1
    micro_batch: Annotated[int, Field(ge=1, description="Responses in memory at a time.")] = 8
    max_steps: Annotated[int | None, Field(ge=1, description="Stop after so many steps.")] = None
    gamma: Annotated[float, Field(ge=0, le=1, description="Discount of later rewards.")] = 1.0
    lam: Annotated[float, Field(ge=0, le=1, description="Lambda of the advantages.")] = 1.0
    clip: Annotated[float, Field(gt=0, lt=1, description="Clip of the probability ratio.")] = 0.2
    value_clip: Annotated[float, Field(gt=0, description="Clip of the change of a value.")] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0, description="Clip of the gradient's norm.")] = 1.0
    save_every: Annotated[int, Field(ge=1, description="Steps between checkpoints.")] = 10
