"""Which of two runs is preferred, by a judge or by people, as a fraction with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cello1.behaviour.judge import pair_prompt, read_verdict
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import donors_of
from cello1.scoring.statistics import Interval, clustered_interval
from cello1.solvers.endpoint.request import Prompt

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@dataclass(frozen=True, slots=True)
class Preference:
    """How the first run compares with the second.

    Attributes
    ----------
    share
        Mean over puzzles of 1 (the first run is preferred), 1/2 (tie) and 0; 1/2 is even.
    wins, ties, losses
        Verdicts: puzzles for a judge, choices for people.
    unread
        Verdicts that are missing or cannot be read.
    agreement
        For a judge, the share of puzzles with the same verdict in both orders; for people, the
        share of pairs of raters who chose alike on a puzzle. None with nothing to compare.
    first_shown
        Share of the decided verdicts for the response shown first (or on the left); far
        from 1/2 it shows a bias for one side.
    """

    share: Interval
    wins: int
    ties: int
    losses: int
    unread: int
    agreement: float | None
    first_shown: float | None


def paired_prompts(
    puzzles: Sequence[Puzzle], a: Mapping[str, str], b: Mapping[str, str]
) -> list[Prompt]:
    """Ask about every puzzle twice, once in each order."""
    prompts = []
    for puzzle in puzzles:
        one, other = a[puzzle.id], b[puzzle.id]
        prompts.append(pair_prompt(f"{puzzle.id}:ab", puzzle, one, other))
        prompts.append(pair_prompt(f"{puzzle.id}:ba", puzzle, other, one))
    return prompts


def judged_preference(
    puzzles: Sequence[Puzzle], replies: Mapping[str, str], *, seed: int = 0
) -> Preference:
    """Read a judge's replies: a puzzle counts for a run only when both orders say so.

    Raises
    ------
    InputError
        When no puzzle has two readable verdicts.
    """
    verdicts: dict[str, tuple[float, float]] = {}
    shown: list[float] = []
    for puzzle in puzzles:
        said = [read_verdict(replies.get(f"{puzzle.id}:{order}", "")) for order in ("ab", "ba")]
        if None not in said:
            first, second = ({"a": WIN, "b": LOSS, "tie": TIE}[str(word)] for word in said)
            verdicts[puzzle.id] = (first, 1 - second)
            shown += [first, second]
    values = {i: v[0] if v[0] == v[1] else TIE for i, v in verdicts.items()}
    same = [v[0] == v[1] for v in verdicts.values()]
    return _preference(
        puzzles, {i: [v] for i, v in values.items()}, len(puzzles) - len(values),
        float(np.mean(same)) if same else None, shown, seed,
    )  # fmt: skip


def rated_preference(
    puzzles: Sequence[Puzzle],
    choices: Sequence[Mapping[str, float]],
    shown: Sequence[float],
    *,
    seed: int = 0,
) -> Preference:
    """Average the choices of people.

    Parameters
    ----------
    puzzles
        The puzzles on the page.
    choices
        For every rater: puzzle id -> WIN, TIE or LOSS of the first run.
    shown
        For every choice whether it was for the left side: WIN, TIE or LOSS.
    """
    by_puzzle = {p.id: [c[p.id] for c in choices if p.id in c] for p in puzzles}
    pairs = [x == y for given in by_puzzle.values() for x, y in combinations(given, 2)]
    missing = sum(p.id not in c for p in puzzles for c in choices)
    agreement = float(np.mean(pairs)) if pairs else None
    return _preference(
        puzzles, {i: v for i, v in by_puzzle.items() if v}, missing, agreement, shown, seed
    )


def _preference(
    puzzles: Sequence[Puzzle],
    values: Mapping[str, Sequence[float]],
    unread: int,
    agreement: float | None,
    shown: Sequence[float],
    seed: int,
) -> Preference:
    there = [p for p in puzzles if p.id in values]
    if not there:
        raise InputError("there is no verdict to count; was the judge or the rater interrupted?")
    means = [float(np.mean(values[p.id])) for p in there]
    counts = Counter(value for given in values.values() for value in given)
    decided = [value for value in shown if value != TIE]
    return Preference(
        clustered_interval(means, donors_of(there), seed=seed),
        counts[WIN], counts[TIE], counts[LOSS], unread, agreement,
        float(np.mean(decided)) if decided else None,
    )  # fmt: skip
