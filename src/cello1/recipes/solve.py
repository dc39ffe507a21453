"""The settings of solving: who answers, and how a server is asked.

Where nobody is named, the solver follows from what is asked and what is installed: options that
only a language model has mean `mini`, a table of markers means `markers`; else it is `atlas+mini`,
the best on validation donors (:mod:`cello1.solvers.together`), or the atlas alone without torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from cello1.recipes.section import (
    AtlasFolder,
    AtlasOnly,
    Evidence,
    Option,
    Section,
    Seed,
    Without,
)

# Which split of a build is solved or played, where none is named.
SPLIT = "test"
BEST, WITHOUT_TORCH = "atlas+mini", "atlas"
# What only a language model on this machine can be asked for.
_FOR_MINI = (
    "evidence", "decode", "valid", "samples", "permute", "temperature", "max_new_tokens",
)  # fmt: skip


def runs_models() -> bool:
    """Say whether what local language models need is installed."""
    return all(find_spec(name) is not None for name in ("torch", "transformers"))


class Default(NamedTuple):
    """Who answers where nobody is named.

    Attributes
    ----------
    solver
        The solver.
    because
        Why, as a sentence goes on.
    """

    solver: str
    because: str


class EndpointSettings(Section):
    """How a language model behind a server is asked."""

    temperature: Annotated[
        float | None, Field(ge=0, description="Sampling temperature; by default 0, and 1 to vote.")
    ] = None
    max_new_tokens: Annotated[int, Field(ge=1, description="Maximum tokens per response.")] = 3_500
    base_url: Annotated[
        str | None,
        Field(description="openai: address of the server, up to /v1."),
        Option(metavar="URL"),
    ] = None
    in_flight: Annotated[int, Field(ge=1, description="openai: maximum concurrent requests.")] = 8
    per_minute: Annotated[
        int | None, Field(ge=1, description="openai: maximum requests per minute.")
    ] = None
    price_in: Annotated[
        float | None, Field(ge=0, description="openai: USD per million prompt tokens.")
    ] = None
    price_out: Annotated[
        float | None, Field(ge=0, description="openai: USD per million completion tokens.")
    ] = None
    max_cost: Annotated[
        float | None,
        Field(ge=0, description="openai: stop before spending more than this, in USD."),
    ] = None
    cache: Annotated[
        Path | None,
        Field(description="openai: folder that caches answers already paid for."),
        Option(metavar="FOLDER"),
    ] = None
    retries: Annotated[int, Field(ge=0, description="openai: retries of a failed request.")] = 6
    timeout: Annotated[
        float, Field(ge=0, description="openai: seconds before a request times out.")
    ] = 600.0
    seed: Seed = 0

    @model_validator(mode="after")
    def _cost_is_known(self) -> EndpointSettings:
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("a limit on the cost needs both prices, in USD per million tokens")
        return self

    @property
    def sampling_temperature(self) -> float:
        """The temperature to use."""
        return self.temperature or 0.0


class SolveSettings(EndpointSettings):
    """Who answers, and how."""

    solver: Annotated[
        str | None,
        Field(
            description="Who answers: atlas+mini, atlas, mini, markers, centroids, chance, "
            "hf:FOLDER_OR_NAME or openai:MODEL. By default atlas+mini, without torch atlas; mini "
            "for options of language models, such as --valid, and markers with --markers."
        ),
    ] = None
    alone: Annotated[
        bool, Field(description="All but mini, hf and openai: label each cell by itself.")
    ] = False
    markers: Annotated[
        Path | None,
        Field(description="markers: marker table (PanglaoDB, ScType or CSV)."),
        Option(metavar="FILE"),
    ] = None
    atlas: AtlasFolder = None
    atlas_only: AtlasOnly = False
    without: Without = ()
    evidence: Evidence = None
    decode: Annotated[
        Literal["generate", "assign"] | None,
        Field(
            description="mini, hf: write a response, or rate every type and assign. By default, "
            "models of `cello1 base`, such as mini, rate and others write."
        ),
    ] = None
    valid: Annotated[
        bool, Field(description="mini, hf: allow only valid answers to be written.")
    ] = False
    samples: Annotated[int, Field(ge=1, description="Answers per puzzle, combined by vote.")] = 1
    permute: Annotated[
        bool, Field(description="Shuffle cells and candidates anew for every vote.")
    ] = False
    engine: Annotated[
        Literal["transformers", "vllm", "ray"],
        Field(
            description="mini, hf: what runs the model; ray: any solver but openai, on a cluster."
        ),
    ] = "transformers"
    address: Annotated[
        str | None,
        Field(description="ray: address of the cluster, or auto; by default one is started here."),
    ] = None

    @model_validator(mode="after")
    def _consistent(self) -> SolveSettings:
        if self.base_url is not None and self.solver is None:
            raise ValueError("base_url is that of a server: name its model, solver=openai:MODEL")
        who = self.who
        kind = who.partition(":")[0]
        local_only = ("decode", "valid", "engine")
        local = kind in ("mini", "hf")
        fields = type(self).model_fields
        wrong = [k for k in local_only if not local and getattr(self, k) != fields[k].default]
        reads = local or kind == "openai"
        if self.evidence is not None and not reads:
            wrong.append("evidence")
        if who not in ("atlas", "atlas+mini") and self.evidence != "atlas":
            wrong += [k for k in ("atlas", "atlas_only", "without") if getattr(self, k)]
        if self.markers is not None and who != "markers":
            wrong.append("markers")
        if self.samples > 1 and not local and kind != "openai":
            wrong.append("samples")
        if self.base_url is not None and kind != "openai":
            wrong.append("base_url")
        if self.engine == "ray" and kind != "openai":
            wrong = [name for name in wrong if name != "engine"]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be used with solver {who}")
        if self.atlas_only and self.atlas is None:
            raise ValueError("atlas_only needs the folder of an atlas")
        if self.decode == "assign" and (self.samples > 1 or self.valid):
            raise ValueError("decode=assign rates every type; it neither samples nor writes")
        if self.address is not None and self.engine != "ray":
            raise ValueError("address is that of a Ray cluster: it needs engine=ray")
        if self.permute and self.samples == 1:
            raise ValueError("permute needs samples to vote")
        return self

    @property
    def who(self) -> str:
        """The solver that is named, else the default."""
        return self.solver or self.default.solver

    @property
    def default(self) -> Default:
        """Who answers where nobody is named, and why."""
        fields = type(self).model_fields
        if asked := [k for k in _FOR_MINI if getattr(self, k) != fields[k].default]:
            needs = "needs" if len(asked) == 1 else "need"
            return Default("mini", f"{', '.join(asked)} {needs} a language model")
        if self.engine == "vllm":
            return Default("mini", "engine vllm runs language models")
        if self.markers is not None:
            return Default("markers", "a table of markers is named")
        if runs_models():
            why = f"it is the best on validation donors; without torch it is {WITHOUT_TORCH}"
            return Default(BEST, why)
        return Default(
            WITHOUT_TORCH,
            f"torch and transformers are not installed; with them it is {BEST}, which is better: "
            "pip install 'cello1[local]'",
        )

    @property
    def sampling_temperature(self) -> float:
        """Temperature to use: votes need answers that differ."""
        return (1.0 if self.samples > 1 else 0.0) if self.temperature is None else self.temperature
