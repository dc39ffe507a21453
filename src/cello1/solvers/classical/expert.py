"""Classical solvers: an expert scores cells against types, and the assignment follows.

Every expert can decide alone (each cell independently, as in usual annotation) or jointly
(one-to-one over the batch); the difference is the gain of joint assignment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from scipy.special import softmax

from cello1.atlas import Knowledge
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.assign import assign_alone, assign_jointly, probabilities
from cello1.solvers.base import Floats, Knowing, OnDone, Response
from cello1.solvers.classical.reasons import explain

_AT_ONCE = 1_000  # puzzles per call of `prepare`, for experts that have it


class Expert(Protocol):
    """Anything that scores how well a gene list fits a type."""

    name: str
    settings: dict[str, Any]

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return log-scores of every cell and candidate, shape (N, M)."""
        ...

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the genes that support a type (against a rival), strongest first."""
        ...


class ClassicalSolver:
    """An expert with a way to decide.

    Parameters
    ----------
    expert
        Scores cells against candidates.
    joint
        Decide jointly over the batch, one-to-one; otherwise for every cell independently.
    """

    def __init__(self, expert: Expert, *, joint: bool = True) -> None:
        self.expert, self.joint = expert, joint
        self.name = f"{expert.name} ({'jointly' if joint else 'alone'})"
        self.settings = {**expert.settings, "solver": expert.name, "joint": joint}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles in order; experts with `prepare` score many in one call."""
        prepare = getattr(self.expert, "prepare", None)
        for start in range(0, len(puzzles), _AT_ONCE):
            if prepare is not None:
                prepare(puzzles[start : start + _AT_ONCE])
            for puzzle in puzzles[start : start + _AT_ONCE]:
                on_done(puzzle.id, self.answer(puzzle))

    def knows(self, label: str) -> Knowledge | None:
        """Return how a candidate is known; None for an expert without knowledge of types."""
        return self.expert.knows(label) if isinstance(self.expert, Knowing) else None

    def answer(self, puzzle: Puzzle) -> Response:
        """Answer one puzzle, with reasons."""
        start = time.perf_counter()
        scores = self.expert.scores(puzzle)
        if self.joint:
            chosen = assign_jointly(scores).tolist()
            shares, method = probabilities(scores)
        else:
            chosen = assign_alone(scores).tolist()
            shares, method = softmax(scores, axis=1), "softmax"  # type: ignore[assignment]
        reasoning = explain(puzzle, chosen, shares, self.expert.evidence, self.joint)
        text = response_text(reasoning, tuple(puzzle.candidates[j] for j in chosen))
        return Response(
            text,
            seconds=time.perf_counter() - start,
            scores=scores,
            probabilities=shares,
            probability_method=method,
        )
