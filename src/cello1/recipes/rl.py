"""The settings of learning from rewards: by GRPO, by PPO on one machine, by verl on a cluster."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cello1.recipes.section import Section, Seed
from cello1.recipes.sft import AdapterSection, Dropout, HeldOut, MaxNewTokens, Names, Patience

# What takes the steps of `cello1 rl`; each has a section of its own in the recipe.
Engine = Literal["trl", "ppo", "verl"]


class PracticeSettings(Section):
    """Which puzzles are trained on, which are held out, and when to evaluate."""

    puzzles: Annotated[Names, Field(description="Files of puzzles with answers.")] = ()
    sources: Annotated[
        str | None,
        Field(description="`sources.npz` of `cello1 base`: practise on simulated puzzles as well."),
    ] = None
    simulated: Annotated[int, Field(ge=1, description="Simulated puzzles, given sources.")] = 4_000
    cells: Annotated[
        tuple[int, int], Field(description="Fewest and most cells of a simulated puzzle.")
    ] = (4, 13)
    evidence: Annotated[
        float,
        Field(ge=0, le=1, description="Share of them with the evidence of a simulated atlas."),
    ] = 0.0
    validation: Annotated[
        str | None,
        Field(description="File of held-out puzzles; by default, donors are held out."),
    ] = None
    held_out: HeldOut = 0.1
    max_prompt: Annotated[
        int, Field(ge=1, description="Maximum tokens per prompt; longer ones are left out.")
    ] = 3_072
    evaluate_every: Annotated[int, Field(ge=1, description="Steps between evaluations.")] = 20
    seed: Seed = 0


class PolicySettings(PracticeSettings):
    """What PPO on one machine and verl on a cluster share.

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4).
    """

    model: Annotated[str, Field(description="Folder or hub name of the model to start from.")] = ""
    reward: Annotated[
        Literal["batch", "cell+batch"], Field(description="Reward of a response.")
    ] = "batch"
    kl: Annotated[
        float,
        Field(
            ge=0,
            description="KL penalty against the initial model, in the reward (GRPO: in the loss).",
        ),
    ] = 0.001
    batch: Annotated[int, Field(ge=1, description="Puzzles per step.")] = 64
    minibatch: Annotated[int, Field(ge=1, description="Puzzles per optimizer step.")] = 64
    epochs: Annotated[int, Field(ge=1, description="Epochs over the puzzles.")] = 20
    max_response: Annotated[int, Field(ge=1, description="Maximum tokens per response.")] = 3_000
    learning_rate: Annotated[float, Field(gt=0, description="Learning rate of the policy.")] = 1e-6
    value_learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate of the critic (PPO).")
    ] = 1e-5


class RlSettings(AdapterSection, PracticeSettings):
    """How a model is trained by rewards for its own responses (GRPO).

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4) where it states them; those of
    the trainer are in :mod:`cello1.training.rl.trl.grpo`.
    """

    reward: Annotated[
        str | dict[str, float],
        Field(description="batch, cell+batch, a dotted path, or several with their weights."),
    ] = "batch"
    no_signal: Annotated[
        Literal["keep", "drop"],
        Field(description="Whether groups whose responses all get the same reward are kept."),
    ] = "keep"
    dropout: Dropout = 0.0
    solve: Annotated[
        int | None,
        Field(ge=0, description="Held-out puzzles solved per evaluation; by default all."),
    ] = None
    max_new_tokens: MaxNewTokens = 3_500
    patience: Patience = None
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="Settings of TRL's GRPOConfig, by name."
    )


class PpoSettings(PolicySettings):
    """How a model is trained by proximal policy optimization on one machine.

    The defaults are those of the ablation of Cell-o1 (arXiv 2506.02911, section 4); what the paper
    leaves open (clipping, one pass) is as in verl, with which it was run.
    """

    solve: Annotated[int, Field(ge=0, description="Held-out puzzles solved per evaluation.")] = 64
    passes: Annotated[int, Field(ge=1, description="Passes over each batch.")] = 1
    micro_batch: Annotated[int, Field(ge=1, description="Responses per micro-batch.")] = 8
    max_steps: Annotated[int | None, Field(ge=1, description="Stop after this many steps.")] = None
    gamma: Annotated[float, Field(ge=0, le=1, description="Discount factor.")] = 1.0
    lam: Annotated[float, Field(ge=0, le=1, description="Lambda of the advantage estimates.")] = 1.0
    clip: Annotated[
        float, Field(gt=0, lt=1, description="Clipping range of the probability ratio.")
    ] = 0.2
    value_clip: Annotated[float, Field(gt=0, description="Clipping range of the values.")] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0, description="Maximum norm of the gradient.")] = 1.0
    save_every: Annotated[int, Field(ge=1, description="Steps between checkpoints.")] = 10


class VerlSettings(PolicySettings):
    """How a model is trained on a cluster by verl; the defaults are those of Cell-o1.

    arXiv 2506.02911, section 4: 2 nodes of 8 GPUs, GRPO with 5 responses to each of 64 puzzles.
    """

    solve: Annotated[int, Field(ge=1, description="Held-out puzzles solved per evaluation.")] = 128
    algorithm: Annotated[
        Literal["grpo", "ppo"], Field(description="GRPO, or PPO (the ablation).")
    ] = "grpo"
    group: Annotated[int, Field(ge=2, description="GRPO: responses per puzzle.")] = 5
    rollout: Annotated[
        Literal["vllm", "sglang"], Field(description="Engine that generates the responses.")
    ] = "vllm"
    tensor_parallel: Annotated[
        int, Field(ge=1, description="GPUs that share a model during generation.")
    ] = 2
    tokens_per_gpu: Annotated[
        int, Field(ge=1, description="Maximum tokens per GPU and micro-batch.")
    ] = 16_384
    nodes: Annotated[int, Field(ge=1, description="Nodes.")] = 2
    gpus: Annotated[int, Field(ge=1, description="GPUs per node.")] = 8
    address: Annotated[
        str | None,
        Field(description="Address of a Ray cluster; by default, one is started here."),
    ] = None
    config: dict[str, Any] = Field(
        default_factory=dict, description="verl's own settings, by dotted name."
    )
