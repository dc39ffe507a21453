"""Addresses without what opens them: no user, password or query is ever stored or printed.

The one place that cleans them, behind run folders, error messages and logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A password may hold a '/', so everything up to the last '@' of the word goes.
_USER = re.compile(r"(?<=://)[^\s'\"<>]*@")
_QUERY = re.compile(r"(://[^\s'\"<>?]*)\?[^\s'\"<>]*")


def without_secrets(text: str) -> str:
    """Take user, password and query out of every address in a text."""
    return _QUERY.sub(r"\1", _USER.sub("", text)) if "://" in text else text


def cleaned(value: Any) -> Any:
    """Do so in every text of a JSON value."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner) for inner in value]
    return value
