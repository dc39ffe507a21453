"""Pages from templates: everything is escaped, style and script are inside the page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cello1.pages.style import Plot
from cello1.scoring.statistics import Interval


class Parts(NamedTuple):
    """The style sheets and scripts of a page, in the order in which they are joined."""

    styles: tuple[str, ...]
    scripts: tuple[str, ...]


# To add a page: a template NAME.html.j2 and a line here.
PAGES = {
    "report": Parts(
        ("base.css", "report.css", "browser.css"),
        ("base.js", "report.js", "puzzle.js", "browser.js"),
    ),
    "play": Parts(("base.css", "play.css"), ("base.js", "play.js")),
    "rate": Parts(("rate.css",), ("rate.js",)),
    "annotation": Parts(("base.css", "annotation.css"), ("base.js", "annotation.js")),
}


def page_of(name: str, **values: Any) -> str:
    """Fill the template of a page and put its style and script into it.

    Parameters
    ----------
    name
        One of :data:`PAGES`; its template is ``NAME.html.j2``. In it, ``style`` and ``script``
        are the joined files, and ``script_hash`` is the hash of the script for a content security
        policy.
    values
        Further variables of the template; all are escaped.
    """
    style, script = ("".join(map(_asset, parts)) for parts in PAGES[name])
    template = _environment().get_template(f"{name}.html.j2")
    # Ours and fixed, so they need no escaping.
    own = {"style": Markup(style), "script": Markup(script), "script_hash": _hash(script)}
    return template.render(**values, **own)


def pack(value: Any) -> str:
    """Write JSON, compressed, as base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _hash(script: str) -> str:
    """Return the hash of a script for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("cello1.pages") / "templates" / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    """Return the templates; undefined names are errors."""
    found = Environment(
        loader=PackageLoader("cello1.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "span": span, "duration": duration, "legend": legend}
    return found


def legend(plots: Sequence[tuple[Plot, Any]]) -> list[str]:
    """Return the names of the runs drawn in any of these figures, in order."""
    names = {i: name for plot, _ in plots for i, name in plot.names.items()}
    return [names[i] for i in sorted(names)]


def percent(share: float, *, signed: bool = False) -> str:
    """Write a fraction as per cent: `26.0 %`; tiny ones as an upper bound."""
    if 0 < abs(share) < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:{'+' if signed else ''}.1f} %".replace("-", "\N{MINUS SIGN}")


def span(value: Interval, *, signed: bool = False) -> str:
    """Write the bounds of an interval, in per cent: `19.2 to 45.7`."""
    low, high = (f"{100 * v:{'+' if signed else ''}.1f}" for v in (value.low, value.high))
    return f"{low} to {high}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Write a time with two significant digits: `83 ms`, `1.4 s`, `12 min`."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 1:
        return f"{1_000 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
