"""How much of what a teacher said was accepted, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

from cello1.citations.citations import citations
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import DistillSettings
from cello1.training.run.traces import response_of

_DIGITS = 6
_MILLION = 1e6


def acceptance(
    puzzles: Mapping[str, Puzzle],
    records: Sequence[Mapping[str, Any]],
    traces: Sequence[Puzzle],
    settings: DistillSettings,
    vocabulary: Set[str],
) -> dict[str, Any]:
    """Sum up a distillation.

    Parameters
    ----------
    puzzles
        By id; those that were never asked do not count.
    records
        The responses with their verdicts.
    traces
        What was kept.
    settings
        For the prices of tokens, if they were given.
    vocabulary
        What counts as a gene.

    Returns
    -------
    dict
        ``puzzles`` asked and ``solved`` (any response accepted), the share of both overall and
        by number of cells, tissue and cell type (puzzles that hold the type), ``responses`` and
        their share, the ``rejected`` by kind, ``traces``, their mean ``words`` and share of
        ``true_citations``, and the ``cost``.
    """
    asked = {r["puzzle"]: puzzles[r["puzzle"]] for r in records}
    solved = {r["puzzle"] for r in records if r["accepted"]}
    accepted = sum(bool(r["accepted"]) for r in records)
    by: dict[str, dict[str, Counter[bool]]] = {"n_cells": {}, "tissue": {}, "cell_type": {}}
    for puzzle_id, puzzle in asked.items():
        tissue = puzzle.meta.get("tissue")
        groups = [("n_cells", str(len(puzzle.cells))), ("tissue", str(tissue or "unknown"))]
        groups += [("cell_type", label) for label in puzzle.answer or ()]
        for what, group in groups:
            by[what].setdefault(group, Counter())[puzzle_id in solved] += 1
    return {
        "puzzles": len(asked),
        "solved": len(solved),
        "acceptance": _share(len(solved), len(asked)),
        "responses": len(records),
        "response_acceptance": _share(accepted, len(records)),
        "rejected": dict(
            sorted(Counter(r["verdict"] for r in records if not r["accepted"]).items())
        ),
        "by": {what: _groups(groups, what) for what, groups in by.items()},
        "traces": len(traces),
        "hint": settings.hint,
        **_texts(traces, vocabulary),
        "cost": _cost(records, settings.options),
    }


def _groups(groups: Mapping[str, Counter[bool]], what: str) -> dict[str, dict[str, Any]]:
    key = (lambda g: (int(g), g)) if what == "n_cells" else (lambda g: (0, g))
    return {
        group: {
            "puzzles": groups[group].total(),
            "solved": groups[group][True],
            "acceptance": _share(groups[group][True], groups[group].total()),
        }
        for group in sorted(groups, key=key)
    }


def _texts(traces: Sequence[Puzzle], vocabulary: Set[str]) -> dict[str, Any]:
    words, cited, true = 0, 0, 0
    for trace in traces:
        response = parse_response(response_of(trace))
        assert isinstance(response, Answer)
        words += len(response.reasoning.split())
        found = citations(trace, response.reasoning, vocabulary)
        cited, true = cited + len(found), true + sum(c.true for c in found)
    return {
        "words": _share(words, len(traces)),
        "citations": cited,
        "true_citations": _share(true, cited),
    }


def _cost(records: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Add up what the records tell; None where it is not known."""
    tokens: dict[str, int | None] = {}
    for name in ("prompt_tokens", "completion_tokens"):
        counts = [r[name] for r in records]
        tokens[name] = None if None in counts else sum(counts)
    usd = None
    parts = [(tokens["prompt_tokens"], options.get("price_in"))]
    parts.append((tokens["completion_tokens"], options.get("price_out")))
    if all(count is not None and price is not None for count, price in parts):
        usd = sum((count or 0) * float(price or 0) for count, price in parts) / _MILLION
    seconds = round(sum(float(r["seconds"]) for r in records), _DIGITS)
    return {"seconds": seconds, **tokens, "usd": usd}


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, _DIGITS) if whole else None
