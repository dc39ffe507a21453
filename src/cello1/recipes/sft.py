"""The settings of fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cello1.recipes.section import Section, Seed


def one_or_more(value: Any) -> Any:
    """Let a single name stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]


class AdapterSection(Section):
    """What of a model is trained: an adapter (LoRA, DoRA) or all weights."""

    model: Annotated[str, Field(description="Folder or hub name of the base model.")] = (
        "Qwen/Qwen2.5-7B-Instruct"
    )
    method: Annotated[Literal["lora", "dora", "full"], Field(description="What is trained.")] = (
        "lora"
    )
    rank: Annotated[int, Field(ge=1, description="Rank of the adapter.")] = 256
    alpha: Annotated[float, Field(gt=0, description="Scale of the adapter, times its rank.")] = 512
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout before the adapter.")] = 0.05
    layers: Annotated[Names, Field(description="Names of the layers that get an adapter.")] = (
        "all-linear",
    )
    attention: Annotated[
        str | None,
        Field(description="Attention implementation of transformers, such as flash_attention_2."),
    ] = None


class SftSettings(AdapterSection):
    """How a model is fine-tuned on traces.

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4): LoRA on all linear layers,
    a learning rate of 5e-5, 10 epochs, 128 traces a step.
    """

    traces: Annotated[Names, Field(description="Files of traces.")] = ()
    answers_only: Annotated[
        bool, Field(description="Teach the answers without reasoning; any puzzles will do.")
    ] = False
    validation: Annotated[
        str | None,
        Field(description="File of held-out puzzles or traces; by default, donors are held out."),
    ] = None
    held_out: Annotated[float, Field(ge=0, lt=1, description="Share of donors held out.")] = 0.1
    max_length: Annotated[
        int, Field(ge=16, description="Most tokens of prompt and response; longer are dropped.")
    ] = 8_192
    packing: Annotated[
        bool | None,
        Field(description="Pack several traces into a row; by default with flash attention."),
    ] = None
    evaluate_every: Annotated[
        int | None, Field(ge=1, description="Steps between evaluations; by default an epoch.")
    ] = None
    solve: Annotated[int, Field(ge=0, description="Held-out puzzles solved at each.")] = 64
    max_new_tokens: Annotated[int, Field(ge=1, description="Most tokens of a response there.")] = (
        3_500
    )
    patience: Annotated[
        int | None, Field(ge=1, description="Stop after so many evaluations without a better one.")
    ] = 3
    gpus: Annotated[int, Field(ge=1, description="GPUs the recipe is written for.")] = 1
    trainer: Annotated[
        dict[str, Any], Field(description="Settings of TRL's SFTConfig by their names.")
    ] = Field(default_factory=dict)
    seed: Seed = 0
