"""The settings of fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cello1.recipes.section import Section, Seed


def one_or_more(value: Any) -> Any:
    """Let a single name stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]
# Settings that fine-tuning and reinforcement learning share.
Dropout = Annotated[float, Field(ge=0, lt=1, description="Dropout of the adapter.")]
HeldOut = Annotated[float, Field(ge=0, lt=1, description="Fraction of donors to hold out.")]
MaxNewTokens = Annotated[
    int, Field(ge=1, description="Maximum tokens per response to a held-out puzzle.")
]
Patience = Annotated[
    int | None, Field(ge=1, description="Stop after this many evaluations without improvement.")
]


class AdapterSection(Section):
    """What is trained of a model: an adapter (LoRA, DoRA) or all weights."""

    model: Annotated[str, Field(description="Folder or hub name of the base model.")] = (
        "Qwen/Qwen2.5-7B-Instruct"
    )
    method: Annotated[
        Literal["lora", "dora", "full"],
        Field(description="A LoRA or DoRA adapter, or all weights."),
    ] = "lora"
    rank: Annotated[int, Field(ge=1, description="Rank of the adapter.")] = 256
    alpha: Annotated[float, Field(gt=0, description="Alpha of the adapter.")] = 512
    dropout: Dropout = 0.05
    layers: Annotated[Names, Field(description="Layers to adapt, by name.")] = ("all-linear",)
    attention: Annotated[
        str | None,
        Field(description="Attention implementation of transformers, such as flash_attention_2."),
    ] = None


class SftSettings(AdapterSection):
    """How a model is fine-tuned on traces.

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4): LoRA on all linear layers,
    a learning rate of 5e-5, 10 epochs, 128 traces a step.
    """

    traces: Annotated[Names, Field(description="Files of traces to train on.")] = ()
    knowledge: Annotated[
        Names, Field(description="Files of `cello1 knowledge`, to train on, best before traces.")
    ] = ()
    answers_only: Annotated[
        bool, Field(description="Train on answers without reasoning; any puzzles will do.")
    ] = False
    validation: Annotated[
        str | None,
        Field(description="File of held-out puzzles or traces; by default, donors are held out."),
    ] = None
    held_out: HeldOut = 0.1
    max_length: Annotated[
        int,
        Field(ge=16, description="Maximum tokens of prompt and response; longer ones are dropped."),
    ] = 8_192
    packing: Annotated[
        bool | None,
        Field(description="Pack several traces into a row; by default with flash attention."),
    ] = None
    evaluate_every: Annotated[
        int | None, Field(ge=1, description="Steps between evaluations; by default one epoch.")
    ] = None
    solve: Annotated[int, Field(ge=0, description="Held-out puzzles solved per evaluation.")] = 64
    max_new_tokens: MaxNewTokens = 3_500
    patience: Patience = 3
    gpus: Annotated[int, Field(ge=1, description="GPUs the recipe is written for.")] = 1
    trainer: Annotated[
        dict[str, Any], Field(description="Settings of TRL's SFTConfig, by name.")
    ] = Field(default_factory=dict)
    seed: Seed = 0
