"""Error types by a judge, and how far judge and rules agree with a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cello1.behaviour.detect import ERRORS
from cello1.behaviour.judge import ask_judge, error_prompt, read_errors
from cello1.behaviour.measures import Measured
from cello1.puzzles.answer import Answer
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import donors_of
from cello1.scoring.statistics import Interval, clustered_interval
from cello1.solvers.endpoint.solver import EndpointSolver


@dataclass(frozen=True, slots=True)
class JudgedErrors:
    """The error types a judge gives the wrong cells of a run.

    Attributes
    ----------
    shares
        Error type -> share of the judged cells.
    cells, unread
        Wrong cells that were judged, and those about which the judge said nothing usable.
    agreement
        Rules against judge on the judged cells.
    """

    shares: dict[str, Interval]
    cells: int
    unread: int
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sources of error types agree.

    Attributes
    ----------
    alike
        Share of cells to which both give the same type.
    kappa
        Cohen's kappa; nan when each gives one and the same type throughout.
    cells, unread
        Cells compared, and cells that one of the two says nothing of.
    """

    alike: float
    kappa: float
    cells: int
    unread: int


def agree(pairs: Sequence[tuple[str, str]], unread: int = 0) -> Agreement:
    """Compare pairs of error types."""
    n = len(pairs)
    if not n:
        return Agreement(float("nan"), float("nan"), 0, unread)
    alike = sum(a == b for a, b in pairs) / n
    one, other = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(one[kind] * other[kind] for kind in one) / n**2
    kappa = (alike - expected) / (1 - expected) if expected < 1 else float("nan")
    return Agreement(alike, kappa, n, unread)


def judged_errors(
    measured: Sequence[Measured],
    judge: EndpointSolver,
    out: Path,
    *,
    inputs: Sequence[Path],
    watch: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> JudgedErrors:
    """Let a judge say why the wrong cells of a run are wrong.

    Parameters
    ----------
    measured
        The responses of the run, with the error types the rules give.
    judge, out, inputs, watch
        As in :func:`cello1.behaviour.judge.ask_judge`.
    seed
        Seed of the intervals, which resample donors.
    """
    wrong = [m for m in measured if m.errors]
    # A puzzle can recur among traces, so its place is part of the key.
    keys = [f"{m.puzzle.id}:{place}" for place, m in enumerate(wrong)]
    prompts = [
        error_prompt(
            key,
            m.puzzle,
            response_text(m.answer.reasoning, m.answer.labels),
            sorted(m.errors),
        )
        for key, m in zip(keys, wrong, strict=True)
    ]
    replies = ask_judge(judge, prompts, out, inputs=inputs, watch=watch)
    said = [read_errors(replies.get(key, ""), m.errors) for key, m in zip(keys, wrong, strict=True)]
    read = [(m, kinds) for m, kinds in zip(wrong, said, strict=True) if kinds]
    pairs = [(m.errors[cell], kind) for m, kinds in read for cell, kind in sorted(kinds.items())]
    unread = sum(len(m.errors) for m in wrong) - len(pairs)
    shares = {
        name: clustered_interval(
            [list(kinds.values()).count(name) / len(kinds) for _, kinds in read],
            donors_of([m.puzzle for m, _ in read]),
            weights=[len(kinds) for _, kinds in read],
            seed=seed,
        )
        for name in ERRORS
    }
    return JudgedErrors(shares, len(pairs), unread, agree(pairs, unread))


def judge_agreement(
    labelled: Sequence[tuple[str, Puzzle, Answer, Mapping[int, str]]],
    judge: EndpointSolver,
    out: Path,
    *,
    inputs: Sequence[Path],
) -> Agreement:
    """Compare a judge with the error types a person gave.

    Parameters
    ----------
    labelled
        Responses: an id, the puzzle, the answer, and wrong cell -> error type.
    judge, out, inputs
        As in :func:`cello1.behaviour.judge.ask_judge`.
    """
    wrong = [(key, puzzle, answer, true) for key, puzzle, answer, true in labelled if true]
    prompts = [
        error_prompt(key, puzzle, response_text(answer.reasoning, answer.labels), sorted(true))
        for key, puzzle, answer, true in wrong
    ]
    replies = ask_judge(judge, prompts, out, inputs=inputs)
    pairs, unread = [], 0
    for key, _, _, true in wrong:
        said = read_errors(replies.get(key, ""), true)
        pairs += [(true[cell], kind) for cell, kind in said.items()]
        unread += len(true) - len(said)
    return agree(pairs, unread)
