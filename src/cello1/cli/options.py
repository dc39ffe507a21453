"""Options of the command line, made from the settings they set.

A verb is a function with arguments of its own and a parameter for each section of settings:

    def build(files: ..., out: Out, settings: BuildSettings) -> None

:func:`command` makes of it what Typer reads: every field of the section becomes an option with
the field's description and default. An option that is given wins over the recipe; one that is not
given leaves the recipe, or the default, alone. Where `--engine` chooses the section, all engines'
settings are options.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cello1.addresses import without_secrets
from cello1.errors import UseError
from cello1.recipes.read import read_section, read_yaml, section_name
from cello1.recipes.section import Option, checked, default_of, fields_of
from cello1.terminal.text import clean

_LONGEST = 2_000
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Puzzles = Annotated[
    Path | None, typer.Option(help="Where the puzzles are now, if they were moved.")
]
SOURCE = "File or folder of puzzles, or a name on the Hugging Face hub"
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of puzzles on the hub.")]
Overrides = list[str] | None
# Engine -> section of settings; a verb without engines has one, under "".
Sections = Mapping[str, type[BaseModel]]


@dataclass(frozen=True)
class Only:
    """These settings of a section alone are options; no recipe is read.

    Attributes
    ----------
    names
        The settings.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class FromRecipe:
    """The recipe comes first, followed by settings such as ``model=DIR``.

    Attributes
    ----------
    example
        Some settings, for the help.
    engines
        Value of ``--engine`` -> section, where that option chooses the section.
    """

    example: str
    engines: Mapping[str, type[BaseModel]] | None = None


def example(command: str) -> str:
    """Write the example under the help of a verb."""
    return f"Example: `{command}`"


def print_json(value: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def command(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb as Typer takes it: with an option for each setting."""
    hints = get_type_hints(verb, include_extras=True)
    sections: dict[str, tuple[Sections, tuple[Any, ...]]] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        kinds, marks = _sections(hints[name])
        if kinds:
            sections[name] = (kinds, marks)
        else:
            parameters[name] = _parameter(name, hints[name], parameter.default)
    for kinds, marks in sections.values():
        only = next((m.names for m in marks if isinstance(m, Only)), None)
        recipe = next((m for m in marks if isinstance(m, FromRecipe)), None)
        named = [f"`{key}`" for section in kinds.values() if (key := section_name(section))]
        said = f"YAML with a section {', '.join(named)}."
        if recipe is not None:
            first = Annotated[Path, typer.Argument(help=said)]
            more = Annotated[
                Overrides, typer.Argument(help=f"Settings over it: {recipe.example} ...")
            ]
            parameters = {
                "recipe": _parameter("recipe", first, inspect.Parameter.empty),
                "overrides": _parameter("overrides", more, None),
            } | parameters
        elif only is None and named:
            told = Annotated[Path | None, typer.Option(help=said)]
            parameters["recipe"] = _parameter("recipe", told, None)
        fields: dict[str, dict[str, FieldInfo]] = {}
        for engine, section in kinds.items():
            for name, field in fields_of(section).items():
                fields.setdefault(name, {})[engine] = field
        for name, by in fields.items():
            kind = next(filter(None, (_kind(field.annotation) for field in by.values())), None)
            if name not in parameters and kind and (only is None or name in only):
                option = _option(name, by, len(kinds))
                parameters[name] = _parameter(name, Annotated[kind, option], None)

    def call(**given: Any) -> None:
        own = {name: value for name, value in given.items() if name in hints}
        verb(**own | {name: _settings(*told, given) for name, told in sections.items()})

    call.__name__, call.__doc__, call.__module__ = verb.__name__, verb.__doc__, verb.__module__
    call.__annotations__ = {name: p.annotation for name, p in parameters.items()} | {"return": None}
    call.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    return call


def _settings(kinds: Sections, marks: tuple[Any, ...], given: Mapping[str, Any]) -> BaseModel:
    """Make settings of the options that were given, over those of the recipe."""
    section = kinds[given["engine"] if len(kinds) > 1 else ""]
    known = {name: field for kind in kinds.values() for name, field in kind.model_fields.items()}
    told = {n: v for n, v in given.items() if n in known and v is not None and v != []}
    if foreign := [name for name in told if name not in section.model_fields]:
        options = ", ".join(spelled(name, known[name]) for name in foreign)
        raise UseError(f"{options} cannot be used with --engine {given['engine']}")
    content = {}
    if not any(isinstance(mark, Only) for mark in marks) and section_name(section):
        found = read_section(section, given.get("recipe"), given.get("overrides") or [])
        content = found.model_dump(exclude_unset=True)
    for name, value in told.items():
        if get_origin(_bare(section.model_fields[name].annotation)) is dict:
            told[name] = content.get(name, {}) | _pairs(name, section.model_fields[name], value)
    return checked(section, content | told)


def _pairs(name: str, field: FieldInfo, given: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values that need not be text are YAML, as in recipes."""
    option, pairs = spelled(name, field), {}
    plain = get_args(_bare(field.annotation))[1] is str
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UseError(f"{option} {pair!r} must look like NAME=VALUE")
        pairs[key.strip()] = value if plain else read_yaml(value, f"{option} {pair!r}")
    return pairs


def spelled(name: str, field: FieldInfo) -> str:
    """Return the option of a setting."""
    own = next((m.name for m in field.metadata if isinstance(m, Option) and m.name), None)
    return own or f"--{name.replace('_', '-')}"


def is_option(field: FieldInfo) -> bool:
    """Return whether a setting can be an option; nested ones are told in recipes alone."""
    return _kind(field.annotation) is not None


def _option(name: str, by: Mapping[str, FieldInfo], engines: int) -> Any:
    """Return the option of a setting, which the sections of some engines have."""
    field = next(iter(by.values()))
    bare, default = _bare(field.annotation), default_of(field)
    flags = spelled(name, field)
    metavar = next((m.metavar for m in field.metadata if isinstance(m, Option)), None)
    text = (f"{', '.join(by)}: " if len(by) < engines else "") + (field.description or "")
    if get_origin(bare) is Literal:
        metavar = "|".join(map(str, get_args(bare)))
    elif get_origin(bare) is tuple and get_origin(get_args(bare)[0]) is Literal:
        metavar = "|".join(map(str, get_args(get_args(bare)[0])))
    elif get_origin(bare) is dict:
        metavar = "NAME=VALUE"
    if get_origin(bare) is dict or (get_origin(bare) is tuple and Ellipsis in get_args(bare)):
        text += " Repeatable."
    if bare is bool and default is not False:
        flags += f"/--no-{flags.removeprefix('--')}"
    defaults = {engine: _default(field) for engine, field in by.items()}
    told = [f"{said} ({engine})" for engine, said in defaults.items() if said]
    if told:
        same = len(set(defaults.values())) == 1
        text += f" [default: {next(iter(defaults.values())) if same else ', '.join(told)}]"
    return typer.Option(flags, help=text, metavar=metavar, show_default=False)


def _default(field: FieldInfo) -> str:
    """Write the default of a setting, or nothing where it says nothing."""
    default = default_of(field)
    return "" if default is None or default is False or default in ((), {}) else shown(default)


def shown(default: Any) -> str:
    """Write a default for people."""
    if isinstance(default, tuple):
        return " ".join(map(shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _sections(hint: Any) -> tuple[Sections, tuple[Any, ...]]:
    """Return the sections of settings that a parameter stands for, by engine; none for others."""
    bare, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if inspect.isclass(bare) and issubclass(bare, BaseModel):
        return {"": bare}, tuple(marks)
    engines = next((mark.engines for mark in marks if isinstance(mark, FromRecipe)), None)
    return engines or {}, tuple(marks)


def _bare(annotation: Any) -> Any:
    """Return a type without None and Annotated."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _bare(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def _kind(annotation: Any) -> Any:
    """Return the type that Typer reads an option as, or None when it cannot be one."""
    bare = _bare(annotation)
    origin, inside = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        return next(filter(None, map(_kind, inside)), None)
    if bare in (bool, int, float, str, Path):
        return bare | None
    if origin is Literal:
        return str | None
    if origin is dict:
        return list[str] | None
    if origin is tuple and Ellipsis in inside:
        kind = _kind(inside[0])
        return None if kind is None else list[_bare(kind)] | None  # type: ignore[misc]
    if origin is tuple and all(kind in (int, float, str) for kind in inside):
        return bare | None
    return None


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def complain(message: str) -> None:
    """Print an error on one line, without passwords and whatever else would act on a terminal."""
    plain = clean(without_secrets(" ".join(message.split())))
    if len(plain) > _LONGEST:
        plain = f"{plain[: _LONGEST // 2]} ... {plain[-_LONGEST // 2 :]}"
    typer.echo(f"error: {plain}", err=True)
