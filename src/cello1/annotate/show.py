"""What `cello1 annotate` prints: contexts and prompts beforehand, the labels afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cello1.annotate.plan import Plan
from cello1.annotate.run import prepare
from cello1.annotate.table import read_uns
from cello1.puzzles.prompt import CHARACTERS_PER_TOKEN, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Solver
from cello1.terminal.tables import show


def contexts(plan: Plan, solver: Solver) -> str:
    """Say what is asked, of whom, and what the prompts tell of the donors."""
    where = solver.settings.get("base_url") or "this machine"
    lines = [
        f"{len(plan.puzzles)} batches of up to {max(len(b.clusters) for b in plan.batches)} of "
        f"{len(plan.clusters.names)} clusters, {len(plan.candidates)} candidates, ranked by "
        f"{plan.expression.name} ({plan.expression.values}); {solver.name} on {where} is told:"
    ]
    return "\n".join([*lines, *(f"  {context}" for context in plan.contexts)])


def requests(adata: Any, options: Mapping[str, Any]) -> Iterator[Any]:
    """Yield every prompt, then to whom it would go, tokens and cost as far as they are known."""
    prepared = prepare(adata, options)
    asked: list[Puzzle] = [*prepared.plan.puzzles, *(p for f in prepared.folds for p in f.puzzles)]
    solver: Any = prepared.solver
    sends = hasattr(solver, "dry_run")
    chats = solver.dry_run(asked) if sends else ([m._asdict() for m in messages(p)] for p in asked)
    characters = 0
    for chat in chats:
        characters += sum(len(message["content"]) for message in chat)
        yield chat
    known = solver.estimate(asked) if sends else {}
    yield (
        {
            "solver": solver.name,
            "sent_to": solver.settings.get("base_url") if sends else None,
            "contexts": prepared.plan.contexts,
            "batches": len(prepared.plan.puzzles),
            "for_calibration": sum(len(f.puzzles) for f in prepared.folds),
            "prompt_tokens": characters // CHARACTERS_PER_TOKEN,
        }
        | known
    )


def show_annotation(adata: Any, key: str) -> None:
    """Show the clusters with their labels."""
    found = read_uns(adata, key)
    table = Table(title=f"{found['solver']}, clusters of {found['groupby']}", title_justify="left")
    for column in ("cluster", "cells", "label", "confidence", "runner-up", "votes", "evidence"):
        table.add_column(column, justify="right" if column in ("cells", "confidence") else "left")
    for row in found["clusters"]:
        if "best" not in row:
            table.add_row(escape(row["cluster"]), str(row["cells"]), row["label"])
            continue
        label = row["label"] if row["label"] == row["best"] else f"{row['label']} ({row['best']}?)"
        table.add_row(
            escape(row["cluster"]), f"{row['cells']:,}", escape(label),
            f"{row['confidence']:.2f}",
            escape(f"{row['runner_up']} {row['runner_up_probability']:.2f}"),
            f"{row['votes']}/{row['batches']}",
            escape(", ".join(row.get("supported", [])[:5])),
        )  # fmt: skip
    fitted = found["calibration"]
    note = f"confidence: temperature {fitted['temperature']:.2f}, {fitted['source']}"
    show(table, Text(note, style="dim"))
