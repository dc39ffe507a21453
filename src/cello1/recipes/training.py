"""The sections of a recipe that say how a model learns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# In which the offline teacher tells of the cells.
Order = Literal["surest", "listed", "drafted"]


class Section(BaseModel):
    """Settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(Section):
    """One stretch of pre-training, with puzzles or drills of a certain size."""

    tokens: Annotated[int, Field(ge=1, description="tokens read in this stage")]
    cells: Annotated[tuple[int, int], Field(description="fewest and most cells")]
    genes: Annotated[tuple[int, int], Field(description="fewest and most genes per cell")]
    telling: Annotated[
        float, Field(ge=0, le=1, description="share of a shortened list that tells the type")
    ] = 0.5
    distractors: Annotated[int, Field(ge=0, description="most types without a cell")] = 0
    drill: Annotated[
        bool, Field(description="no puzzles: lists of any genes, to be said again by cell")
    ] = False
    blind: Annotated[
        bool, Field(description="any genes: nothing can be learned but that no type comes twice")
    ] = False
    crossed: Annotated[
        bool, Field(description="cells made of three of their type, donor and batch each")
    ] = False
    order: Annotated[
        Order,
        Field(description="surest first and revised, as listed, or drafted as listed and settled"),
    ] = "surest"
    batch_tokens: Annotated[int, Field(ge=256, description="tokens per step, about")] = 2_048


class BaseModelSettings(Section):
    """How a small model is trained from scratch, or goes on from where another training ended."""

    model: Annotated[
        str | None, Field(description="folder of a small model to go on from; default: none")
    ] = None
    puzzles: Annotated[
        tuple[str, ...], Field(description="files to draw cells from, each as often as the others")
    ] = ()
    vocabulary: Annotated[int, Field(ge=600, description="tokens")] = 6_000
    hidden: Annotated[int, Field(ge=32, description="width of the model")] = 128
    layers: Annotated[int, Field(ge=1, description="depth")] = 4
    heads: Annotated[int, Field(ge=1, description="attention heads")] = 4
    context: Annotated[int, Field(ge=256, description="most positions")] = 4_096
    stages: Annotated[tuple[Stage, ...], Field(description="from easy to hard")] = ()
    learning_rate: Annotated[float, Field(gt=0, description="at its highest")] = 1e-3
    seed: Annotated[int, Field(ge=0, description="of weights and data")] = 0


class DistillSettings(Section):
    """How a teacher's responses become traces.

    The paper (arXiv 2506.02911, section 4): OpenAI o1, 8 samples a puzzle, accepted iff the
    format is valid and every cell is right. The filters beyond that are off by default.
    """

    teacher: Annotated[
        str, Field(description="markers, centroids, hf:FOLDER_OR_NAME or openai:MODEL")
    ] = "centroids"
    options: Annotated[
        dict[str, Any], Field(description="further settings of the solver, as in `cello1 solve`")
    ] = {}
    samples: Annotated[int, Field(ge=1, description="responses per puzzle, at most")] = 8
    temperature: Annotated[float, Field(ge=0, description="of the samples")] = 1.0
    target: Annotated[
        int | None,
        Field(ge=1, description="stop at so many solved puzzles; sample again only the unsolved"),
    ] = None
    hint: Annotated[bool, Field(description="the teacher is shown the answer to justify")] = False
    order: Annotated[Order, Field(description="offline teacher: as for the stages of base")] = (
        "surest"
    )
    min_true_genes: Annotated[
        float | None, Field(ge=0, le=1, description="share of cited genes that must be true")
    ] = None
    min_words: Annotated[int | None, Field(ge=0, description="of the reasoning")] = None
    max_words: Annotated[int | None, Field(ge=1, description="of the reasoning")] = None
    no_early_answer: Annotated[
        bool, Field(description="refuse reasoning that begins with the whole answer")
    ] = False
    keep: Annotated[
        Literal["shortest", "longest", "random", "best_supported"],
        Field(description="which accepted responses of a puzzle become traces"),
    ] = "shortest"
    per_puzzle: Annotated[int, Field(ge=1, description="traces per puzzle, at most")] = 1
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0

    @model_validator(mode="after")
    def _consistent(self) -> DistillSettings:
        ours = {"solver", "samples", "temperature", "seed", "permute", "alone"}
        if taken := sorted(ours & set(self.options)):
            raise ValueError(f"options cannot set {', '.join(taken)}")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words is {self.min_words}, above max_words ({self.max_words})")
        return self


class AdapterSection(Section):
    """What of a model is trained: an adapter (LoRA, DoRA) or all weights."""

    model: Annotated[str, Field(description="folder or hub name of the base model")] = (
        "Qwen/Qwen2.5-7B-Instruct"
    )
    method: Annotated[Literal["lora", "dora", "full"], Field(description="what is trained")] = (
        "lora"
    )
    rank: Annotated[int, Field(ge=1, description="of the adapter")] = 256
    alpha: Annotated[float, Field(gt=0, description="scale of the adapter, times its rank")] = 512
    dropout: Annotated[float, Field(ge=0, lt=1, description="before the adapter")] = 0.05
    layers: Annotated[
        tuple[str, ...], Field(description="names of the layers that get an adapter")
    ] = ("all-linear",)
    attention: Annotated[
        str | None, Field(description="attention of transformers, such as flash_attention_2")
    ] = None

    @field_validator("layers", mode="before")
    @classmethod
    def _one_or_more_layers(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class SftSettings(AdapterSection):
    """How a model is fine-tuned on traces.

    The defaults are those of Cell-o1 (arXiv 2506.02911, section 4): LoRA on all linear layers,
    a learning rate of 5e-5, 10 epochs, 128 traces a step.
    """

    traces: Annotated[tuple[str, ...], Field(description="files of traces")] = ()
    answers_only: Annotated[
        bool, Field(description="teach the answers without reasoning; any puzzles will do")
    ] = False
    validation: Annotated[
        str | None, Field(description="file of held-out puzzles or traces; default: donors")
    ] = None
    held_out: Annotated[float, Field(ge=0, lt=1, description="share of donors held out")] = 0.1
    max_length: Annotated[
        int, Field(ge=16, description="most tokens of prompt and response; longer are dropped")
    ] = 8_192
    packing: Annotated[
        bool | None, Field(description="several traces in a row; default: with flash attention")
    ] = None
    evaluate_every: Annotated[
        int | None, Field(ge=1, description="steps between evaluations; default: an epoch")
    ] = None
    solve: Annotated[int, Field(ge=0, description="held-out puzzles solved at each")] = 64
    max_new_tokens: Annotated[int, Field(ge=1, description="budget of a response there")] = 3_500
    patience: Annotated[
        int | None, Field(ge=1, description="evaluations without a better one before the end")
    ] = 3
    gpus: Annotated[int, Field(ge=1, description="that the recipe is written for: estimates")] = 1
    trainer: Annotated[
        dict[str, Any], Field(description="settings of TRL's SFTConfig by their names")
    ] = {}
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0

    @field_validator("traces", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
