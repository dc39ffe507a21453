"""The settings of learning from rewards on a cluster, by verl."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cello1.recipes.rl import PolicySettings


class VerlSettings(PolicySettings):
    """How a model learns on a cluster, by verl; the defaults are those of Cell-o1.

    arXiv 2506.02911, section 4: 2 nodes of 8 GPUs, GRPO with 5 responses to each of 64 puzzles.
    """

    solve: Annotated[
        int, Field(ge=1, description="Held-out puzzles solved at each evaluation.")
    ] = 128
    algorithm: Annotated[
        Literal["grpo", "ppo"], Field(description="GRPO, or PPO, the ablation.")
    ] = "grpo"
    group: Annotated[int, Field(ge=2, description="GRPO: responses to each puzzle.")] = 5
    rollout: Annotated[
        Literal["vllm", "sglang"], Field(description="What generates the responses.")
    ] = "vllm"
    tensor_parallel: Annotated[
        int, Field(ge=1, description="GPUs that share a model during generation.")
    ] = 2
    tokens_per_gpu: Annotated[int, Field(ge=1, description="Tokens in memory at a time.")] = 16_384
    nodes: Annotated[int, Field(ge=1, description="Machines.")] = 2
    gpus: Annotated[int, Field(ge=1, description="GPUs per machine.")] = 8
    address: Annotated[
        str | None,
        Field(description="Address of a Ray cluster; by default, one is started here."),
    ] = None
    config: dict[str, Any] = Field(
        default_factory=dict, description="verl's own settings by their dotted names."
    )
