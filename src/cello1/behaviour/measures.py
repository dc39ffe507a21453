"""How a run reasons: shares of its responses that show a behaviour, with donor-clustered intervals.

Behaviours follow arXiv 2506.02911 (self-reflection, curriculum reasoning, five error types) and
add what a joint task calls for: elimination, comparison of cells, cells discussed, agreement of
reasoning and answer. Order is measured, not only announced: Kendall's tau-b between how early a
cell is settled and whether it is right, and between that and how clear the cell is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import kendalltau

from cello1.behaviour.detect import ERRORS, FLAGS, Behaviour, detect, error_types
from cello1.citations.citations import gene_vocabulary
from cello1.errors import InputError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import SUFFIXES
from cello1.puzzles.table import read_puzzles
from cello1.scoring.evaluate import donors_of
from cello1.scoring.score import score
from cello1.scoring.statistics import Interval, clustered_interval
from cello1.solvers.base import Floats
from cello1.solvers.classical.markers import Markers
from cello1.solvers.run import read_solved

OWN, TABLE = "the run's own scores", "the marker table"


@dataclass(frozen=True, slots=True)
class Measured:
    """One well-formed response, measured.

    Attributes
    ----------
    puzzle, answer, behaviour
        The puzzle, the answer to it, and its behaviour.
    right
        For every cell whether it is right; None when the puzzle has no answer.
    values
        Measure -> its value for this response; missing if undefined.
    errors
        Wrong cell -> error type, by rule.
    margin_source
        Source of the lead of the best type over the second, which measures how clear a cell is.
    """

    puzzle: Puzzle
    answer: Answer
    behaviour: Behaviour
    right: tuple[bool, ...] | None
    values: dict[str, float]
    errors: Mapping[int, str]
    margin_source: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The behaviours of one run.

    Attributes
    ----------
    responses, malformed
        Number of responses, and of those that cannot be parsed.
    measures
        Name -> mean over responses: the flags, ``reordered`` (cells are not settled in the order
        of the list), ``discussed`` (share of cells), ``agreement`` (share of the reasoning's
        conclusions that the answer keeps), ``consistent`` (all are kept), ``order_right`` and
        ``order_clear`` (tau-b, positive when right or clear cells come first).
    errors
        Error type -> share of the wrong cells.
    wrong_cells
        Their number.
    margin_source
        As in :class:`Measured`.
    """

    responses: int
    malformed: int
    measures: dict[str, Interval]
    errors: dict[str, Interval]
    wrong_cells: int
    margin_source: str


SIGNED = ("order_right", "order_clear")
MEASURES = (*FLAGS, "reordered", "discussed", "agreement", "consistent", *SIGNED)


Responses = Sequence[tuple[Puzzle, Mapping[str, Any]]]


def read_responses(source: Path, puzzles: Path | None = None) -> Responses:
    """Read a run folder, or a file of puzzles whose rows hold whole responses (traces).

    Returns
    -------
    Responses
        Puzzles, each with a record that has at least ``text``. Among traces a puzzle can recur,
        with another response.

    Raises
    ------
    InputError
        When there is no response to read.
    """
    if source.is_dir() and (source / "reasoning.parquet").exists():
        source = source / "reasoning.parquet"
    if source.is_file() and source.suffix in SUFFIXES:
        responses = [
            (p, {"text": p.meta["assistant_msg"]}) for p in read_puzzles(source) if _has_response(p)
        ]
    else:
        asked, records = read_solved(source, puzzles)
        responses = [(p, records[p.id]) for p in asked if p.id in records]
    if not responses:
        raise InputError(
            f"{source} holds no responses; expected a run of `cello1 solve`, or rows whose "
            "assistant_msg is a whole response"
        )
    return responses


def measure(responses: Responses) -> tuple[list[Measured], int]:
    """Measure every response; returns the well-formed ones and the number of the others."""
    vocabulary = gene_vocabulary(puzzle for puzzle, _ in responses)
    markers = Markers.from_file()
    found = []
    for puzzle, record in responses:
        answer = parse_response(record["text"])
        if not isinstance(answer, Answer):
            continue
        behaviour = detect(puzzle, answer)
        right = score(puzzle, record["text"]).right if puzzle.answer else None
        errors: Mapping[int, str] = {}
        if right is not None and len(answer.labels) == len(right):
            errors = error_types(puzzle, answer, behaviour, right, vocabulary)
        margin, margin_source = _margin(puzzle, record, markers)
        values = _values(puzzle, behaviour, right, margin)
        found.append(Measured(puzzle, answer, behaviour, right, values, errors, margin_source))
    return found, len(responses) - len(found)


def summarize(measured: Sequence[Measured], malformed: int = 0, *, seed: int = 0) -> Summary:
    """Average the measures of a run; intervals resample donors where these are known."""
    if not measured:
        raise InputError(
            f"none of {malformed} responses is in the format <think>..</think>, <answer>..</answer>"
        )
    measures = {name: _interval(measured, name, seed) for name in MEASURES}
    wrong = [m for m in measured if m.errors]
    donors = donors_of([m.puzzle for m in wrong])
    weights = [len(m.errors) for m in wrong]
    errors = {
        name: clustered_interval(
            [list(m.errors.values()).count(name) / len(m.errors) for m in wrong],
            donors,
            weights=weights,
            seed=seed,
        )
        for name in ERRORS
    }
    sources = sorted({m.margin_source for m in measured})
    return Summary(
        len(measured) + malformed, malformed, measures, errors, sum(weights), " or ".join(sources)
    )


def differences(
    a: Sequence[Measured], b: Sequence[Measured], *, seed: int = 0
) -> dict[str, Interval]:
    """Return A minus B of every measure, over the puzzles for which both runs have it."""
    found = {}
    for name in MEASURES:
        one, other = _means(a, name), _means(b, name)
        shared = {m.puzzle.id: m.puzzle for m in a if m.puzzle.id in one.keys() & other.keys()}
        delta = [one[i] - other[i] for i in shared]
        donors = donors_of(list(shared.values()))
        found[name] = clustered_interval(delta, donors, proportion=False, seed=seed)
    return found


def _means(measured: Sequence[Measured], name: str) -> dict[str, float]:
    """Return the mean of a measure for every puzzle that has it: traces can repeat a puzzle."""
    values: dict[str, list[float]] = {}
    for m in measured:
        if name in m.values:
            values.setdefault(m.puzzle.id, []).append(m.values[name])
    return {i: float(np.mean(v)) for i, v in values.items()}


def _has_response(puzzle: Puzzle) -> bool:
    return "<think>" in puzzle.meta.get("assistant_msg", "")


def _interval(measured: Sequence[Measured], name: str, seed: int) -> Interval:
    there = [m for m in measured if name in m.values]
    donors = donors_of([m.puzzle for m in there])
    values = [m.values[name] for m in there]
    return clustered_interval(values, donors, proportion=name not in SIGNED, seed=seed)


def _values(
    puzzle: Puzzle, found: Behaviour, right: Sequence[bool] | None, margin: Floats
) -> dict[str, float]:
    values = {name: float(getattr(found, name)) for name in FLAGS}
    values["discussed"] = len(found.discussed) / len(puzzle.cells)
    if found.order:
        values["reordered"] = float(list(found.order) != sorted(found.order))
    if found.concluded:
        values["agreement"] = 1 - len(found.conflicts) / len(found.concluded)
        values["consistent"] = float(not found.conflicts)
    early = -np.arange(len(found.order), dtype=np.float64)
    cells = [cell - 1 for cell in found.order]
    known: dict[str, Sequence[float] | Floats] = {"order_clear": margin}
    if right is not None:
        known["order_right"] = right
    for name, value in known.items():
        tau = _tau(early, np.asarray(value, dtype=np.float64)[cells])
        if tau is not None:
            values[name] = tau
    return values


def _tau(a: Floats, b: Floats) -> float | None:
    """Return Kendall's tau-b, or None where one side does not vary."""
    if len(a) < 2 or np.ptp(b) == 0:
        return None
    return float(kendalltau(a, b).statistic)


def _margin(puzzle: Puzzle, record: Mapping[str, Any], markers: Markers) -> tuple[Floats, str]:
    """Return the lead of the best type of each cell, shape (N,), and the source of the scores."""
    own = record.get("scores")
    scores = markers.scores(puzzle) if own is None else np.asarray(own, dtype=np.float64)
    ranked = np.sort(log_softmax(scores, axis=1), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2]), TABLE if own is None else OWN
