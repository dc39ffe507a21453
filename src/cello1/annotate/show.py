"""Output of `cello1 annotate`: the prompts of a dry run, and the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cello1.annotate.data import Data
from cello1.annotate.prepare import prepare
from cello1.annotate.table import opened
from cello1.puzzles.prompt import CHARACTERS_PER_TOKEN, messages
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.told import shown
from cello1.terminal.tables import Table, show
from cello1.terminal.text import text

_GENES = 3


def requests(data: Data, options: Mapping[str, Any]) -> Iterator[Any]:
    """Yield every prompt, then the recipient, and tokens and cost as far as they are known."""
    prepared = prepare(data, options, lambda what, share: None)
    plan = prepared.plan
    asked: list[Puzzle] = []
    held_out = 0
    if plan is not None:
        folds = [batch.puzzle for fold in prepared.folds for batch in fold.batches(plan)]
        checks = list({puzzle.id: puzzle for puzzle in folds}.values())
        asked, held_out = [*plan.puzzles, *checks], len(checks)
    solver: Any = prepared.solver
    chats = (
        solver.dry_run(asked)
        if prepared.sends
        else ([m._asdict() for m in messages(p)] for p in shown(solver, asked))
    )
    characters = 0
    for chat in chats:
        characters += sum(len(message["content"]) for message in chat)
        yield chat
    known = solver.estimate(asked) if prepared.sends else {}
    yield (
        {
            "solver": solver.name,
            "sent_to": solver.settings.get("base_url") if prepared.sends else None,
            "contexts": [] if plan is None else plan.contexts,
            "batches": 0 if plan is None else len(plan.puzzles),
            "for_calibration": held_out,
            "prompt_tokens": characters // CHARACTERS_PER_TOKEN,
            "notes": prepared.notes,
        }
        | known
    )


def show_annotation(uns: Mapping[str, Any]) -> None:
    """Show the clusters with their labels, and the notes."""
    found = opened(uns)
    table = Table(
        "cluster", "cells >", "label", "confidence >", "runner-up", "evidence",
        title=f"{found['solver']}, clusters of {found['groupby']}",
    )  # fmt: skip
    for row in found["clusters"]:
        label = row["label"]
        if row["level"] != "type":
            label += f" ({row['best']}?)"
        table.add_row(
            row["cluster"], f"{row['cells']:,}", label, f"{row['confidence']:.2f}",
            f"{row['runner_up']} {row['runner_up_probability']:.2f}",
            ", ".join(row.get("supported", [])[:_GENES]),
        )  # fmt: skip
    show(table, *(text(f"note: {note}", "dim") for note in found["notes"]))
