"""Which responses of a teacher are accepted, and which of these become traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from cello1.citations.citations import citations
from cello1.citations.genes import TOKEN
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import DistillSettings
from cello1.scoring.score import score
from cello1.training.run.traces import response_of

_DIGITS = 6
_MILLION = 1e6


class Verdict(NamedTuple):
    """Whether a response is accepted, and if not, why.

    Attributes
    ----------
    kind
        ``accepted``, ``format``, ``wrong``, ``genes``, ``length`` or ``early answer``.
    reason
        The reason in words; empty when accepted.
    """

    kind: str
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the response may become a trace."""
        return self.kind == "accepted"


def check_response(
    puzzle: Puzzle, text: str, settings: DistillSettings, vocabulary: Set[str]
) -> Verdict:
    """Check a response: format, every cell, then the filters that are enabled.

    Parameters
    ----------
    puzzle
        A puzzle with its answer.
    text
        The whole response.
    settings
        The filters.
    vocabulary
        What counts as a gene.
    """
    found, response = score(puzzle, text), parse_response(text)
    if not isinstance(response, Answer):
        return Verdict("format", response.reason)
    if not found.exact:
        wrong = found.right.count(False)
        return Verdict("wrong", found.reason or f"{wrong} of {len(found.right)} cells are wrong")
    return _filter(puzzle, response, settings, vocabulary) or Verdict("accepted", "")


def _filter(
    puzzle: Puzzle, response: Answer, settings: DistillSettings, vocabulary: Set[str]
) -> Verdict | None:
    reasoning = response.reasoning
    words, fewest, most = len(reasoning.split()), settings.min_words, settings.max_words
    if fewest is not None and words < fewest:
        return Verdict("length", f"{words} words of reasoning, below {fewest}")
    if most is not None and words > most:
        return Verdict("length", f"{words} words of reasoning, above {most}")
    if settings.no_early_answer and answers_early(puzzle, reasoning, vocabulary):
        return Verdict("early answer", "the whole answer stands before the first gene cited")
    if settings.min_true_genes is not None:
        cited = citations(puzzle, reasoning, vocabulary)
        true = sum(c.true for c in cited)
        if true < settings.min_true_genes * len(cited) or not cited:
            example = next((c for c in cited if not c.true), None)
            such = "" if example is None else f", such as {example.gene} for cell {example.cell}"
            return Verdict("genes", f"{true} of {len(cited)} cited genes are in their cell{such}")
    return None


def answers_early(puzzle: Puzzle, reasoning: str, vocabulary: Set[str]) -> bool:
    """Return whether all labels are listed in the order of the cells before any gene is cited.

    Candidates listed in another order are not an answer.
    """
    first_gene = min(
        (match.start() for match in TOKEN.finditer(reasoning) if match.group() in vocabulary),
        default=len(reasoning),
    )
    opening, at = reasoning[:first_gene].casefold(), 0
    for label in puzzle.answer_keys or ():
        at = opening.find(label, at)
        if at < 0:
            return False
        at += len(label)
    return True


def choose(
    puzzle: Puzzle,
    accepted: Sequence[Mapping[str, Any]],
    settings: DistillSettings,
    vocabulary: Set[str],
) -> list[Mapping[str, Any]]:
    """Choose which accepted records of a puzzle to keep, at most `per_puzzle` different ones."""
    different = {r["text"]: r for r in sorted(accepted, key=lambda r: -int(r["sample"]))}
    records = sorted(different.values(), key=lambda r: int(r["sample"]))
    if settings.keep == "random":
        rng = np.random.default_rng([settings.seed, int(puzzle.id, 16)])
        records = [records[i] for i in rng.permutation(len(records))]
    elif settings.keep == "best_supported":
        records.sort(key=lambda r: support(puzzle, r["text"], vocabulary), reverse=True)
    else:
        sign = 1 if settings.keep == "shortest" else -1
        records.sort(key=lambda r: sign * len(r["text"].split()))
    return records[: settings.per_puzzle]


def support(puzzle: Puzzle, text: str, vocabulary: Set[str]) -> tuple[float, int]:
    """Return the fraction of cited genes that are true, and their number."""
    response = parse_response(text)
    cited = citations(puzzle, getattr(response, "reasoning", ""), vocabulary)
    true = sum(c.true for c in cited)
    return (true / len(cited) if cited else 0.0), true


def acceptance(
    puzzles: Mapping[str, Puzzle],
    records: Sequence[Mapping[str, Any]],
    traces: Sequence[Puzzle],
    settings: DistillSettings,
    vocabulary: Set[str],
) -> dict[str, Any]:
    """Summarize a distillation.

    Parameters
    ----------
    puzzles
        Puzzles by id; those that were never asked do not count.
    records
        The responses with their verdicts.
    traces
        The traces that were kept.
    settings
        Settings, for the prices of tokens if given.
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
    """Add up time, tokens and cost of the records; None where not known."""
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
