"""What a distillation accepted, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_TITLES = {"n_cells": "N", "tissue": "tissue", "cell_type": "puzzles with"}


def acceptance_table(metrics: Mapping[str, Any]) -> RenderableType:
    """Show acceptance overall and by N, tissue and type, then what the traces are like.

    Parameters
    ----------
    metrics
        As :func:`cello1.training.distill.acceptance.acceptance` returns them.
    """
    table = Table(title=f"teacher: {escape(metrics['teacher'])}", title_justify="left")
    table.add_column("")
    for column in ("puzzles", "solved", "accepted"):
        table.add_column(column, justify="right")
    table.add_row("all", *_row(metrics))
    for what, groups in metrics["by"].items():
        table.add_section()
        for group, found in groups.items():
            table.add_row(f"{_TITLES[what]} {escape(group)}", *_row(found))
    return Group(table, Text(_summary(metrics), style="dim"))


def _row(found: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{found['puzzles']:,}", f"{found['solved']:,}", _percent(found["acceptance"])


def _summary(metrics: Mapping[str, Any]) -> str:
    rejected = ", ".join(f"{count:,} {kind}" for kind, count in metrics["rejected"].items())
    parts = [
        f"{metrics['responses']:,} responses, {_percent(metrics['response_acceptance'])} accepted",
        f"rejected: {rejected or 'none'}",
        f"{metrics['traces']:,} traces{' (with hint)' if metrics['hint'] else ''}",
    ]
    if metrics["words"] is not None:
        parts.append(f"{metrics['words']:.0f} words each")
    if metrics["true_citations"] is not None:
        parts.append(
            f"{_percent(metrics['true_citations'])} of {metrics['citations']:,} cited genes true"
        )
    if metrics["cost"]["usd"] is not None:
        parts.append(f"{metrics['cost']['usd']:.4f} USD")
    return "; ".join(parts)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
