"""Make text from outside safe for a terminal: the only place that escapes it.

Names of files, donors, types and runs may come from anyone. They can hold Rich markup, which would
be interpreted, and control characters, which the terminal would obey.
"""

from __future__ import annotations

import re

from rich.text import Text

# Control characters but for newline and tab, and those that reorder text to hide some of it.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(value: object) -> str:
    r"""Return a text in which control characters are written out, as ``\\x1b``."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(value))


def text(value: object, style: str = "") -> Text:
    """Return a text for Rich without markup or control sequences."""
    return value if isinstance(value, Text) else Text(clean(value), style=style)
