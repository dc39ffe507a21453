"""Recipes: the settings of a pipeline, read from YAML into types that refuse unknown keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cello1.errors import UseError
from cello1.recipes.annotate import AnnotateRecipe
from cello1.recipes.atlas import AtlasSettings
from cello1.recipes.base import BaseModelSettings
from cello1.recipes.build import BuildSettings
from cello1.recipes.census import CensusSettings
from cello1.recipes.cross import CrossSettings
from cello1.recipes.distill import DistillSettings
from cello1.recipes.knowledge import KnowledgeSettings
from cello1.recipes.rl import PpoSettings, RlSettings, VerlSettings
from cello1.recipes.section import S, Section, checked
from cello1.recipes.sft import SftSettings
from cello1.recipes.simulate import SimulateSettings
from cello1.recipes.solve import SolveSettings

_MOST_VALUES = 100_000


class Recipe(Section):
    """A whole pipeline; every section has defaults."""

    census: CensusSettings = CensusSettings()
    build: BuildSettings = BuildSettings()
    solve: SolveSettings = SolveSettings()
    annotate: AnnotateRecipe = AnnotateRecipe()
    simulate: SimulateSettings = SimulateSettings()
    cross: CrossSettings = CrossSettings()
    atlas: AtlasSettings = AtlasSettings()
    base: BaseModelSettings = BaseModelSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    distill: DistillSettings = DistillSettings()
    sft: SftSettings = SftSettings()
    rl: RlSettings = RlSettings()
    ppo: PpoSettings = PpoSettings()
    verl: VerlSettings = VerlSettings()


def section_name(section: type[BaseModel]) -> str | None:
    """Return the name that a recipe gives a section, or None when recipes have no such section."""
    fields = Recipe.model_fields.items()
    return next((name for name, field in fields if field.annotation is section), None)


def read_section(section: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read one section of a recipe; overrides may leave the section's name out.

    Raises
    ------
    UseError
        As :func:`read_recipe`, and when recipes have no such section.
    """
    name = section_name(section)
    if name is None:
        raise UseError(f"recipes have no section for {section.__name__}; give the settings by name")
    own = [o if o.startswith(f"{name}.") else f"{name}.{o}" for o in overrides]
    found = getattr(read_recipe(path, own), name)
    assert isinstance(found, section)
    return found


def resolve(
    section: type[S],
    settings: BaseModel | str | Path | None,
    changes: Mapping[str, Any] | None = None,
) -> S:
    """Return settings with changes laid over them.

    Parameters
    ----------
    section
        The kind of settings.
    settings
        An object of that kind, a recipe that has such a section, or None for the defaults.
    changes
        Settings by name, as a caller gave them by keyword.

    Raises
    ------
    UseError
        When the recipe cannot be read, the object is of another kind, or a key or a value is not
        valid.
    """
    if isinstance(settings, str | Path):
        settings = read_section(section, Path(settings))
    if not (settings is None or isinstance(settings, section)):
        raise UseError(f"expected {section.__name__}, found {type(settings).__name__}")
    if settings is not None and not changes:
        return settings
    return checked(
        section, ({} if settings is None else settings.model_dump()) | dict(changes or {})
    )


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
        parsed = read_yaml(value, f"override {override!r}")
        _set(content, key.strip().split("."), parsed)
    return checked(Recipe, content)


def _content(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the sections of a recipe file over those of the one it is like."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UseError(f"recipe {path} cannot be read: {error}") from error
    content = read_yaml(text, f"recipe {path}") or {}
    if not isinstance(content, dict):
        raise UseError(f"recipe {path} must be a mapping of sections such as 'build:'")
    content = {str(name): section for name, section in content.items() if section is not None}
    if (like := content.pop("like", None)) is None:
        return content
    other = (path.parent / str(like)).resolve()
    if other in seen:
        raise UseError(f"recipe {path} is like {other}, which is like itself")
    return _over(_content(other, (*seen, other)), content)


def read_yaml(text: str, what: str) -> Any:
    """Read YAML that people wrote.

    Parameters
    ----------
    text
        The YAML.
    what
        What it is, for the message.

    Raises
    ------
    UseError
        When it is not valid, is nested too deep, or grows by repetition (anchors).
    """
    try:
        value = yaml.safe_load(text)
        size = _size(value, {})
    except RecursionError:
        raise UseError(f"{what} is nested too deep") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UseError(f"{what} is not valid YAML: {error}") from error
    if size > _MOST_VALUES:
        raise UseError(f"{what} holds more than {_MOST_VALUES:,} values; is it a recipe?")
    return value


def _size(value: Any, known: dict[int, int]) -> int:
    """Count the values in a value, those that anchors repeat as often as they stand there."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _MOST_VALUES + 1  # should it hold itself
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(value)]


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, key by key at every depth."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _set(content: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise UseError(f"{'.'.join(path)} goes through {key!r}, which is a value")
    content[path[-1]] = value
