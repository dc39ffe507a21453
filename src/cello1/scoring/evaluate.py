"""Metrics of a run: mean scores with intervals and chance levels, by N and by origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import perm
from typing import Any

import numpy as np

from cello1.errors import InputError
from cello1.puzzles.answer import Tolerated, parse_tolerantly
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.score import Score, score, score_labels
from cello1.scoring.statistics import (
    FEW_CLUSTERS,
    Interval,
    Paired,
    clustered_interval,
    paired_difference,
)

BREAKDOWNS = ("n_cells", "tissue", "disease", "dataset")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics over one set of puzzles; names as in arXiv 2506.02911.

    Attributes
    ----------
    n
        Puzzles scored.
    cell_accuracy
        Macro: mean over puzzles of the share of right cells.
    cell_accuracy_micro
        Right cells / cells, pooled over puzzles (what the published script prints).
    batch_accuracy
        Share of puzzles with every cell right.
    format_validity, uniqueness
        Share of well-formed responses; mean share of different labels.
    chance_cell, chance_batch
        Expected accuracies of a random one-to-one assignment: the means of 1/M and (M-N)!/M!.
    length, length_unit
        Mean length of the responses, in ``tokens`` where the solver counted them, else ``words``.
    """

    n: int
    cell_accuracy: Interval
    cell_accuracy_micro: Interval
    batch_accuracy: Interval
    format_validity: Interval
    uniqueness: Interval
    chance_cell: float
    chance_batch: float
    length: float
    length_unit: str


@dataclass(frozen=True, slots=True)
class Tolerant:
    """Result of a tolerant reading of the same responses; never part of the score.

    Attributes
    ----------
    unreadable
        Responses that break the exact format and therefore score 0.
    still_unreadable
        Those of them that have no clear reading either.
    cell_accuracy, batch_accuracy
        Means over all responses, read tolerantly (:func:`cello1.puzzles.answer.parse_tolerantly`).
    repairs
        What was overlooked -> number of responses.
    """

    unreadable: int
    still_unreadable: int
    cell_accuracy: float
    batch_accuracy: float
    repairs: dict[str, int]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything `cello1 eval` reports about one run."""

    overall: Metrics
    by: dict[str, dict[str, Metrics]]
    complaints: dict[str, int]
    notes: list[str]
    tolerant: Tolerant


@dataclass(frozen=True, slots=True)
class Scored:
    """A puzzle with the score of its response."""

    puzzle: Puzzle
    score: Score
    length: int


def chance(puzzle: Puzzle) -> tuple[float, float]:
    """Return the expected cell and batch accuracy of a random one-to-one assignment."""
    n, m = len(puzzle.cells), len(puzzle.candidates)
    return 1 / m, 1 / perm(m, n)


def score_all(
    puzzles: Sequence[Puzzle], responses: Mapping[str, str], tokens: Mapping[str, int] | None = None
) -> list[Scored]:
    """Score every puzzle that has a response, in the order of the puzzles."""
    return [
        Scored(
            p,
            score(p, responses[p.id]),
            len(responses[p.id].split()) if tokens is None else tokens[p.id],
        )
        for p in puzzles
        if p.id in responses
    ]


def evaluate(
    puzzles: Sequence[Puzzle],
    responses: Mapping[str, str],
    *,
    tokens: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate responses to puzzles whose answers are known.

    Parameters
    ----------
    puzzles
        The puzzles; each needs its answer.
    responses
        Puzzle id -> text. Puzzles without a response are left out of every mean, and a note
        gives their number: a failed call is not a wrong answer.
    tokens
        Puzzle id -> length of the response in tokens, where known for all of them.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        When no puzzle has a response.
    """
    scored = score_all(puzzles, responses, tokens)
    if not scored:
        raise InputError("none of the puzzles has a response; solve them first")
    unit = "words" if tokens is None else "tokens"
    overall = metrics(scored, unit, seed)
    by = {name: _breakdown(scored, name, unit, seed) for name in BREAKDOWNS}
    complaints = Counter(_kind(s.score) for s in scored if s.score.reason)
    return Evaluation(
        overall,
        {name: groups for name, groups in by.items() if groups},
        dict(sorted(complaints.items(), key=lambda item: (-item[1], item[0]))),
        _notes(puzzles, scored, overall),
        tolerant(scored, responses),
    )


def tolerant(scored: Sequence[Scored], responses: Mapping[str, str]) -> Tolerant:
    """Read all responses tolerantly and count what had to be overlooked."""
    cells = exact = 0.0
    lost, repairs = 0, Counter[str]()
    for s in scored:
        lenient = s.score
        if s.score.reason:  # the others read the same
            read = parse_tolerantly(responses[s.puzzle.id], s.puzzle)
            if isinstance(read, Tolerated):
                lenient = score_labels(s.puzzle, read.answer.labels)
                repairs.update(str(repair) for repair in read.repairs)
            else:
                lost += not s.score.format_valid
        cells, exact = cells + lenient.cell_accuracy, exact + lenient.exact
    return Tolerant(
        unreadable=sum(not s.score.format_valid for s in scored),
        still_unreadable=lost,
        cell_accuracy=cells / len(scored),
        batch_accuracy=exact / len(scored),
        repairs=dict(sorted(repairs.items(), key=lambda item: (-item[1], item[0]))),
    )


def metrics(scored: Sequence[Scored], length_unit: str = "words", seed: int = 0) -> Metrics:
    """Average the scores of one set of puzzles."""
    donors = donors_of([s.puzzle for s in scored])
    cells = [s.score.cell_accuracy for s in scored]

    def interval(values: Sequence[float], weights: Sequence[int] | None = None) -> Interval:
        return clustered_interval(values, donors, weights=weights, seed=seed)

    chances = np.array([chance(s.puzzle) for s in scored])
    return Metrics(
        n=len(scored),
        cell_accuracy=interval(cells),
        cell_accuracy_micro=interval(cells, [len(s.puzzle.cells) for s in scored]),
        batch_accuracy=interval([float(s.score.exact) for s in scored]),
        format_validity=interval([float(s.score.format_valid) for s in scored]),
        uniqueness=interval([s.score.uniqueness for s in scored]),
        chance_cell=float(chances[:, 0].mean()),
        chance_batch=float(chances[:, 1].mean()),
        length=float(np.mean([s.length for s in scored])),
        length_unit=length_unit,
    )


def compare(
    a: Sequence[Scored], b: Sequence[Scored], *, seed: int = 0
) -> tuple[dict[str, Paired], int]:
    """Compare two runs over the puzzles both answered: (metric -> A minus B, their number).

    Raises
    ------
    InputError
        When they share no puzzle.
    """
    other = {s.puzzle.id: s.score for s in b}
    pairs = [(s, other[s.puzzle.id]) for s in a if s.puzzle.id in other]
    if not pairs:
        raise InputError("the two runs have no puzzle in common; solve the same file with both")
    exact_a, exact_b = [s.score.exact for s, _ in pairs], [t.exact for _, t in pairs]
    donors = donors_of([s.puzzle for s, _ in pairs])
    columns: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "cell_accuracy": (
            [s.score.cell_accuracy for s, _ in pairs],
            [t.cell_accuracy for _, t in pairs],
        ),
        "batch_accuracy": (exact_a, exact_b),
    }
    return {
        name: paired_difference(x, y, exact_a, exact_b, donors, seed=seed)
        for name, (x, y) in columns.items()
    }, len(pairs)


def donors_of(puzzles: Sequence[Puzzle]) -> list[str] | None:
    """Return the donor of every puzzle, or None when any is not recorded."""
    donors = [p.meta.get("donor_id") for p in puzzles]
    return None if None in donors else [str(d) for d in donors]


def _breakdown(scored: Sequence[Scored], name: str, unit: str, seed: int) -> dict[str, Metrics]:
    groups: dict[Any, list[Scored]] = {}
    for s in scored:
        value = len(s.puzzle.cells) if name == "n_cells" else s.puzzle.meta.get(name)
        if value is not None:
            groups.setdefault(value, []).append(s)
    return {str(value): metrics(groups[value], unit, seed) for value in sorted(groups)}


def _kind(found: Score) -> str:
    """Name the kind of a complaint, so that equal faults count together."""
    if not found.format_valid:
        return f"format: {found.reason}"
    return f"labels: {'; '.join(found.faults)}"


def _notes(puzzles: Sequence[Puzzle], scored: Sequence[Scored], overall: Metrics) -> list[str]:
    notes = []
    missing = len(puzzles) - len(scored)
    if missing:
        notes.append(f"{missing} of {len(puzzles)} puzzles have no response and are not counted")
    donors = donors_of([s.puzzle for s in scored])
    n_donors = 0 if donors is None else len(set(donors))
    if donors is None:
        notes.append("donors are not recorded: intervals resample puzzles and may be too narrow")
    elif n_donors == 1:
        notes.append(
            "one donor only: intervals resample puzzles and say nothing about other donors"
        )
    elif n_donors < FEW_CLUSTERS:
        notes.append(f"{n_donors} donors: intervals over so few donors tend to be too narrow")
    if any(s.puzzle.meta.get("pooled") for s in scored):
        notes.append("some puzzles come from pooled donors, which count as one donor per file")
    if any(s.puzzle.meta.get("synthetic") for s in scored):
        notes.append("some puzzles are made of simulated cells")
    return notes
