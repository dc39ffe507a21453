"""The library's own settings, handed through by their names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from cello1.errors import UseError


def passed_through(
    section: str, given: Mapping[str, Any], config: type[Any], ours: Mapping[str, str]
) -> dict[str, Any]:
    """Return the settings for a config of TRL, numbers made of the text YAML reads `1e-5` as.

    Parameters
    ----------
    section
        Of the recipe, for messages.
    given
        What stands under ``trainer``.
    config
        A dataclass such as TRL's SFTConfig.
    ours
        The settings that are not to be given, each with where to say it instead.

    Raises
    ------
    UseError
        When keys are unknown or ours; all of them are named.
    """
    fields = {field.name: str(field.type) for field in dataclasses.fields(config)}
    faults = []
    for key in given:
        if key in ours:
            faults.append(f"{key} is not set here (use {ours[key]})")
        elif key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            faults.append(f"{key} is unknown" + (f" (did you mean {near[0]}?)" if near else ""))
    if faults:
        raise UseError(
            f"{section}.trainer: {'; '.join(faults)}; the names are those of TRL's "
            f"{config.__name__}"
        )
    return {key: _number(value, fields[key]) for key, value in given.items()}


def _number(value: Any, kind: str) -> Any:
    if isinstance(value, str) and ("float" in kind or "int" in kind) and "str" not in kind:
        try:
            return float(value)
        except ValueError:
            return value
    return value
