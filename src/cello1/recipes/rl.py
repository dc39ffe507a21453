"""The sections of a recipe that say how a model learns from rewards: by GRPO, by PPO, by verl."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cello1.recipes.training import AdapterSection, Section


class PractiseSection(Section):
    """What is practised on, and what is held out."""

    puzzles: Annotated[tuple[str, ...], Field(description="files of puzzles with answers")] = ()
    validation: Annotated[
        str | None, Field(description="file of held-out puzzles; default: donors are held out")
    ] = None
    held_out: Annotated[float, Field(ge=0, lt=1, description="share of donors held out")] = 0.1

    @field_validator("puzzles", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Curriculum(Section):
    """From small batches to whole ones: larger puzzles are cut to the size of the day."""

    start: Annotated[int, Field(ge=2, description="cells at first")] = 3
    pass_rate: Annotated[
        float, Field(gt=0, le=1, description="share of right batches that adds a cell")
    ] = 0.5


class RlSettings(AdapterSection, PractiseSection):
    """How a model learns from the worth of its own responses (GRPO).

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4) where it states them; those of
    the trainer are in :mod:`cello1.training.rl.trl.settings`.
    """

    max_prompt: Annotated[
        int, Field(ge=16, description="most tokens of a prompt; longer are left out")
    ] = 3_072
    reward: Annotated[
        str | dict[str, float],
        Field(description="batch, cell+batch, a dotted path, or several with their weights"),
    ] = "batch"
    no_signal: Annotated[
        Literal["keep", "drop", "resample"],
        Field(description="groups whose responses are all worth the same"),
    ] = "keep"
    curriculum: Annotated[
        Curriculum | None, Field(description="sizes by pass rate; default: puzzles as they are")
    ] = None
    dropout: Annotated[float, Field(ge=0, lt=1, description="before the adapter")] = 0.0
    evaluate_every: Annotated[int, Field(ge=1, description="steps between evaluations")] = 20
    solve: Annotated[
        int | None, Field(ge=0, description="held-out puzzles solved at each; default: all")
    ] = None
    max_new_tokens: Annotated[int, Field(ge=1, description="budget of a response there")] = 3_500
    patience: Annotated[
        int | None, Field(ge=1, description="evaluations without a better one before the end")
    ] = None
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="settings of TRL's GRPOConfig by their names"
    )
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0


class PpoSettings(PractiseSection):
    """How a model learns by proximal policy optimisation, on one machine.

    The defaults are those of the ablation of Cell-o1 (arXiv 2506.02911, section 4); what the paper
    leaves open (clipping, one pass) is as in verl, with which it was run.
    """

    model: Annotated[str, Field(description="folder or hub name: where it starts")] = ""
    solve: Annotated[int, Field(ge=0, description="held-out puzzles solved at each validation")] = (
        64
    )
    reward: Annotated[
        Literal["batch", "cell+batch"], Field(description="what a response is paid")
    ] = "batch"
    kl: Annotated[float, Field(ge=0, description="price of leaving the start, in the reward")] = (
        0.001
    )
    batch: Annotated[int, Field(ge=1, description="puzzles answered per step, once each")] = 64
    passes: Annotated[int, Field(ge=1, description="times each batch is learned from")] = 1
    minibatch: Annotated[int, Field(ge=1, description="responses per optimiser step")] = 64
    micro_batch: Annotated[int, Field(ge=1, description="responses in memory at a time")] = 8
    epochs: Annotated[int, Field(ge=1, description="times each puzzle is answered")] = 20
    max_steps: Annotated[int | None, Field(ge=1, description="end earlier, after so many")] = None
    max_prompt: Annotated[
        int, Field(ge=1, description="most tokens of a prompt; longer ones are dropped")
    ] = 3_072
    max_response: Annotated[int, Field(ge=1, description="most tokens of a response")] = 3_000
    learning_rate: Annotated[float, Field(gt=0, description="of the policy")] = 1e-6
    value_learning_rate: Annotated[float, Field(gt=0, description="of the critic")] = 1e-5
    gamma: Annotated[float, Field(ge=0, le=1, description="discount of later rewards")] = 1.0
    lam: Annotated[float, Field(ge=0, le=1, description="lambda of the advantages")] = 1.0
    clip: Annotated[float, Field(gt=0, lt=1, description="of the probability ratio")] = 0.2
    value_clip: Annotated[float, Field(gt=0, description="of the change of a value")] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0, description="longer gradients are cut")] = 1.0
    evaluate_every: Annotated[int, Field(ge=1, description="steps between validations")] = 20
    save_every: Annotated[int, Field(ge=1, description="steps between checkpoints")] = 10
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0


class VerlSettings(PractiseSection):
    """How a model learns on a cluster, by verl; the defaults are those of Cell-o1.

    arXiv 2506.02911, section 4: 2 nodes of 8 GPUs, GRPO with 5 responses to each of 64 puzzles.
    """

    model: Annotated[str, Field(description="folder or hub name: where it starts")] = ""
    solve: Annotated[int, Field(ge=1, description="held-out puzzles solved at each validation")] = (
        128
    )
    algorithm: Annotated[Literal["grpo", "ppo"], Field(description="PPO is the ablation")] = "grpo"
    reward: Annotated[
        Literal["batch", "cell+batch"], Field(description="what a response is paid")
    ] = "batch"
    kl: Annotated[
        float,
        Field(ge=0, description="price of leaving the start: in the loss, for PPO the reward"),
    ] = 0.001
    group: Annotated[int, Field(ge=2, description="responses to each puzzle, for GRPO")] = 5
    batch: Annotated[int, Field(ge=1, description="puzzles per step")] = 64
    minibatch: Annotated[int, Field(ge=1, description="puzzles per optimiser step")] = 64
    epochs: Annotated[int, Field(ge=1, description="times each puzzle is answered")] = 20
    max_prompt: Annotated[
        int, Field(ge=1, description="most tokens of a prompt; longer ones are dropped")
    ] = 3_072
    max_response: Annotated[int, Field(ge=1, description="most tokens of a response")] = 3_000
    learning_rate: Annotated[float, Field(gt=0, description="of the policy")] = 1e-6
    value_learning_rate: Annotated[float, Field(gt=0, description="of the critic, for PPO")] = 1e-5
    rollout: Annotated[Literal["vllm", "sglang"], Field(description="what writes responses")] = (
        "vllm"
    )
    tensor_parallel: Annotated[int, Field(ge=1, description="GPUs that share a model there")] = 2
    tokens_per_gpu: Annotated[int, Field(ge=1, description="tokens in memory at a time")] = 16_384
    nodes: Annotated[int, Field(ge=1, description="machines")] = 2
    gpus: Annotated[int, Field(ge=1, description="of each machine")] = 8
    address: Annotated[
        str | None, Field(description="of a Ray cluster; default: one is started here")
    ] = None
    evaluate_every: Annotated[
        int, Field(ge=1, description="steps between validations, each with a checkpoint")
    ] = 20
    config: dict[str, Any] = Field(
        default_factory=dict, description="verl's own settings by their dotted names"
    )
    seed: Annotated[int, Field(ge=0, description="of the order of the puzzles")] = 0
