"""Sections of settings, each defined once for recipes, options, keywords and documentation.

A field of a section has a type, a default, a description and bounds. From it come the key of the
recipe, the option of the command line (:mod:`cello1.cli.options`), the keyword of the Python
function (:func:`takes`) and the row in the documentation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from cello1.errors import UseError, brief


@dataclass(frozen=True)
class Option:
    """How the command line spells a setting whose own name will not do.

    Attributes
    ----------
    name
        The option, such as ``--test-donor`` for the setting `test_donors`.
    metavar
        What its value is, such as ``FILE``.
    """

    name: str | None = None
    metavar: str | None = None


class Section(BaseModel):
    """Settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Seed = Annotated[int, Field(ge=0, description="Seed for all random choices.")]
# What several verbs are told in the same words: of prompts, of the atlas, then of a file.
Evidence = Annotated[
    Literal["atlas"] | None,
    Field(
        description="Tell a model that reads text, in its prompt, what the atlas says of each cell."
    ),
]
AtlasFolder = Annotated[
    Path | None,
    Field(description="Atlas: folder of `cello1 atlas build`, beside the embedded one."),
    Option(metavar="FOLDER"),
]
AtlasOnly = Annotated[bool, Field(description="Atlas: use that folder alone.")]
Without = Annotated[tuple[str, ...], Field(description="Atlas: sources or studies to leave out.")]
DonorKey = Annotated[str, Field(description="obs column of the donor.")]
BatchKey = Annotated[str | None, Field(description="obs column of the experimental batch.")]
Layer = Annotated[
    str | None,
    Field(description="X, raw.X or a layer; by default the first that holds raw counts."),
]
ContextColumns = Annotated[
    dict[str, str],
    Field(description="obs column and a sentence with {value} to add to the context."),
    Option("--context-column"),
]

S = TypeVar("S", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., Any])


def checked(section: type[S], content: Mapping[str, Any]) -> S:
    """Make settings of plain values.

    Raises
    ------
    UseError
        When a key or a value is not valid; every problem is named.
    """
    try:
        return section.model_validate(dict(content))
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors()))
        raise UseError(f"settings are not valid: {problems}") from error


def _problem(error: Any) -> str:
    where = [str(part) for part in error["loc"]]
    problem = f"{'.'.join(where) or 'settings'}: {error['msg']}"
    if not where or error["type"] == "extra_forbidden":
        return problem
    return f"{problem} ({where[-1]} is {brief(error['input'])})"


def takes(section: type[BaseModel]) -> Callable[[F], F]:
    """Show the fields of a section as keywords of a function that collects them in ``**changes``.

    The function itself passes them to :func:`cello1.recipes.read.resolve`; this shows their names
    and defaults to ``help`` and editors.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        told = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default_of(field),
                annotation=field.annotation,
            )
            for name, field in section.model_fields.items()
            if name not in signature.parameters
        ]  # fmt: skip
        function.__signature__ = signature.replace(parameters=[*own, *told])  # type: ignore[attr-defined]
        return function

    return decorate


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section: its own first, then those of the sections it extends."""
    own = inspect.get_annotations(section)
    return dict(sorted(section.model_fields.items(), key=lambda field: field[0] not in own))


def default_of(field: FieldInfo) -> Any:
    """Return the default of a field."""
    return field.get_default(call_default_factory=True, validated_data={})
