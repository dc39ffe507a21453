"""Recipes: the settings of a pipeline, read from YAML into types that refuse unknown keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from cello1.errors import UseError
from cello1.recipes.rl import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.training import BaseModelSettings, DistillSettings, Section, SftSettings

GeneClass = Literal["mitochondrial", "ribosomal", "pseudogene"]
# What building and annotating are told of a file in the same words.
BatchKey = Annotated[str | None, Field(description="obs column of the experimental batch")]
Layer = Annotated[
    str | None, Field(description="X, raw.X or a layer; default: the first with raw counts")
]
ContextColumns = Annotated[
    dict[str, str], Field(description="obs column -> sentence with {value}, added to the context")
]


class BuildSettings(Section):
    """How puzzles are made of annotated cells.

    The defaults are those of CellPuzzles (arXiv 2506.02911, section 3), but for the split, which
    is by donor here, and nested types, which are kept apart.
    """

    n_min: Annotated[int, Field(ge=2, description="fewest cells in a puzzle")] = 8
    n_max: Annotated[int, Field(ge=2, description="most cells in a puzzle")] = 15
    per_n: Annotated[int, Field(ge=1, description="puzzles per N and file")] = 40
    distractors: Annotated[int, Field(ge=0, description="candidates that fit no cell")] = 0
    candidate_order: Annotated[
        Literal["shuffled", "sorted"], Field(description="published rows are sorted")
    ] = "shuffled"
    nested_types: Annotated[
        Literal["apart", "allowed"],
        Field(description="may a type and its ancestor in the Cell Ontology share a puzzle"),
    ] = "apart"
    top_genes: Annotated[int, Field(ge=1, description="genes listed per cell")] = 50
    min_genes: Annotated[int, Field(ge=1, description="drop cells with fewer expressed genes")] = 50
    exclude_genes: Annotated[
        tuple[GeneClass, ...], Field(description="kinds of genes never listed")
    ] = ()
    split: Annotated[
        Literal["donor", "dataset", "tissue", "disease", "cell", "puzzle", "none"],
        Field(description="what is never shared between train, validation and test"),
    ] = "donor"
    fractions: Annotated[
        tuple[float, float, float], Field(description="train, validation, test")
    ] = (0.7, 0.1, 0.2)
    test_donors: Annotated[tuple[str, ...], Field(description="donors that must be tested")] = ()
    validation_donors: Annotated[tuple[str, ...], Field(description="donors to validate on")] = ()
    unseen_diseases: Annotated[
        tuple[str, ...], Field(description="diseases held out whole, in unseen.parquet")
    ] = ()
    donor_key: Annotated[str, Field(description="obs column of the donor")] = "donor_id"
    cell_type_key: Annotated[str, Field(description="obs column of the type")] = "cell_type"
    batch_key: BatchKey = None
    layer: Layer = None
    suspension_type: Annotated[
        str, Field(description="keep this kind of suspension only, or any")
    ] = "cell"
    pooled_donors: Annotated[
        bool, Field(description="keep cells of unnamed donors as one group per file")
    ] = False
    one_donor: Annotated[bool, Field(description="take a file without donors as one donor")] = False
    context_columns: ContextColumns = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0

    @model_validator(mode="after")
    def _consistent(self) -> BuildSettings:
        faults = []
        if self.n_max < self.n_min:
            faults.append(f"n_max is {self.n_max}, below n_min ({self.n_min})")
        if not (min(self.fractions) >= 0 and abs(sum(self.fractions) - 1) <= 1e-6):
            faults.append(f"fractions {self.fractions} must be >= 0 and sum to 1")
        for column, sentence in self.context_columns.items():
            if "{value}" not in sentence:
                faults.append(f"the sentence for context column {column!r} lacks {{value}}")
        if both := set(self.test_donors) & set(self.validation_donors):
            faults.append(f"donors {sorted(both)} are named for test and validation")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class SolveSettings(Section):
    """Who answers, and how."""

    solver: Annotated[
        str, Field(description="mini, chance, markers, centroids, hf:FOLDER_OR_NAME, openai:MODEL")
    ] = "mini"
    alone: Annotated[bool, Field(description="classical: decide each cell by itself")] = False
    markers: Annotated[str | None, Field(description="marker table")] = None
    decode: Annotated[
        Literal["generate", "assign"], Field(description="hf: write text, or rate every type")
    ] = "generate"
    valid: Annotated[bool, Field(description="hf: only valid answers can be written")] = False
    samples: Annotated[int, Field(ge=1, description="answers that vote")] = 1
    permute: Annotated[bool, Field(description="votes see other orders")] = False
    temperature: Annotated[float | None, Field(ge=0, description="default: 0, and 1 for votes")] = (
        None
    )
    max_new_tokens: Annotated[int, Field(ge=1, description="budget of a response")] = 3_500
    engine: Annotated[
        Literal["transformers", "vllm"], Field(description="hf: what runs the model")
    ] = "transformers"
    base_url: Annotated[str | None, Field(description="openai: server, up to /v1")] = None
    in_flight: Annotated[int, Field(ge=1, description="openai: requests at a time")] = 8
    per_minute: Annotated[int | None, Field(ge=1, description="openai: requests a minute")] = None
    price_in: Annotated[float | None, Field(ge=0, description="USD / million tokens")] = None
    price_out: Annotated[float | None, Field(ge=0, description="USD / million tokens")] = None
    max_cost: Annotated[float | None, Field(ge=0, description="stop at this many USD")] = None
    cache: Annotated[str | None, Field(description="openai: folder of paid answers")] = None
    seed: Annotated[int, Field(ge=0, description="of every random choice")] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SolveSettings:
        kind = self.solver.partition(":")[0]
        local_only = {"decode": "generate", "valid": False, "engine": "transformers"}
        local = kind in ("mini", "hf")
        wrong = [
            k for k, default in local_only.items() if not local and getattr(self, k) != default
        ]
        if self.samples > 1 and not local and kind != "openai":
            wrong.append("samples")
        if self.base_url is not None and kind != "openai":
            wrong.append("base_url")
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be used with solver {self.solver}")
        if self.decode == "assign" and (self.samples > 1 or self.valid):
            raise ValueError("decode=assign rates every type; it neither samples nor writes")
        if self.permute and self.samples == 1:
            raise ValueError("permute needs samples to vote")
        return self

    @property
    def sampling_temperature(self) -> float:
        """The temperature to use: votes need answers that differ."""
        return (1.0 if self.samples > 1 else 0.0) if self.temperature is None else self.temperature


class Recipe(Section):
    """A whole pipeline; every section has defaults."""

    build: BuildSettings = BuildSettings()
    base: BaseModelSettings = BaseModelSettings()
    distill: DistillSettings = DistillSettings()
    sft: SftSettings = SftSettings()
    rl: RlSettings = RlSettings()
    ppo: PpoSettings = PpoSettings()
    verl: VerlSettings = VerlSettings()


def read_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides such as ``build.n_min=5`` (values are YAML).

    A recipe may name another one under ``like``, by its path from there; it then only says what
    is different.

    Raises
    ------
    UseError
        When the file cannot be read or a key or value is not known; every problem is named.
    """
    content = {} if path is None else _content(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise UseError(f"override {override!r} must look like build.n_min=5")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UseError(f"override {override!r} is no YAML: {error}") from error
        _set(content, key.strip().split("."), parsed)
    return checked(Recipe, content)


def _content(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the sections of a recipe file over those of the one it is like."""
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UseError(f"recipe {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UseError(f"recipe {path} must be a mapping of sections such as 'build:'")
    content = {name: section for name, section in content.items() if section is not None}
    if (like := content.pop("like", None)) is None:
        return content
    other = (path.parent / str(like)).resolve()
    if other in seen:
        raise UseError(f"recipe {path} is like {other}, which is like itself")
    return _over(_content(other, (*seen, other)), content)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, key by key at every depth."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged


S = TypeVar("S", bound=BaseModel)


def checked(section: type[S], content: dict[str, Any]) -> S:
    """Make settings of plain values; all problems in one error."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}"
            for e in error.errors()
        )
        raise UseError(f"settings are not valid: {problems}") from error


def _set(content: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise UseError(f"{'.'.join(path)} goes through {key!r}, which is a value")
    content[path[-1]] = value
