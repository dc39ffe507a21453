"""Tables of what the atlas knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

_LISTED = 3


def types_table(types: Sequence[Mapping[str, Any]]) -> Table:
    """Show types with their sources and tissues."""
    table = Table(title=f"{len(types)} cell types")
    for name in ("type", "term", "sources", "tissues"):
        table.add_column(name, overflow="fold")
    for row in types:
        lists = [_some(row["sources"]), _some(row["tissues"])]
        table.add_row(escape(row["label"]), row["term"] or "", *map(escape, lists))
    return table


def sources_table(sources: Sequence[Mapping[str, Any]]) -> Table:
    """Show the sources."""
    table = Table(title=f"{len(sources)} sources")
    for name in ("source", "kind", "study", "types", "genes", "licence"):
        table.add_column(name, overflow="fold")
    for row in sources:
        texts = [escape(row[k]) for k in ("name", "kind", "study")]
        table.add_row(*texts, str(row["types"]), str(row["genes"]), escape(row["licence"]))
    return table


def type_panel(found: Mapping[str, Any]) -> Panel:
    """Show one type."""
    lines = [
        f"known by {found['known']}: {', '.join(found['through'])}",
        "genes: " + ", ".join(f"{gene} {value}" for gene, value in found["genes"].items()),
        "tissues: " + (", ".join(f"{t} ({n})" for t, n in found["tissues"].items()) or "none"),
        "nearest: " + ", ".join(f"{name} {value}" for name, value in found["nearest"].items()),
    ]
    title = f"{found['label']} ({found['term'] or 'not in the ontology'})"
    return Panel(escape("\n".join(lines)), title=escape(title), title_align="left")


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
