"""The protocols of solvers, and their responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cello1.atlas import Knowledge
from cello1.puzzles.puzzle import Puzzle, label_key

_NAMED = 12  # most labels in a message
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """The response of a solver to one puzzle.

    Attributes
    ----------
    text
        The response, in the format of :mod:`cello1.puzzles.answer` if all went well.
    seconds
        Time spent on this puzzle.
    prompt_tokens, completion_tokens
        Lengths in tokens; None for solvers that have no tokens.
    finish_reason
        ``stop``, or ``length`` when the text was cut off.
    logprob
        Mean log-probability of the tokens, for language models that return it.
    scores
        Log-scores of every cell and candidate, shape (N, M), where the solver has them.
    probabilities
        Probability of every cell and candidate under a one-to-one assignment, shape (N, M), and
        how it was computed.
    agreement
        Share of sampled answers that agree with this one, for votes.
    votes
        For votes, the number of answers (``answers``), how many of them were unreadable and did
        not count (``unreadable``), and how many calls failed (``failed``).
    """

    text: str
    seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str = "stop"
    logprob: float | None = None
    scores: Floats | None = None
    probabilities: Floats | None = None
    probability_method: str | None = None
    agreement: float | None = None
    votes: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Failure:
    """A puzzle that could not be answered; it is no prediction, and the next run asks it again."""

    reason: str


OnDone = Callable[[str, Response | Failure], None]


class Solver(Protocol):
    """Anything that turns puzzles into responses.

    Attributes
    ----------
    name
        Name in tables.
    settings
        Everything its responses depend on (JSON values): part of the identity of a run.
    """

    name: str
    settings: dict[str, Any]

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer all puzzles, calling ``on_done(puzzle.id, response)`` as each is finished."""
        ...


@runtime_checkable
class RemoteSolver(Protocol):
    """A solver that sends puzzles to another machine; a wrapper of one is one, too.

    Attributes
    ----------
    name, settings
        As for any solver.
    """

    name: str
    settings: dict[str, Any]

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer all puzzles, like any solver."""
        ...

    @property
    def spent(self) -> float:
        """USD spent so far; 0 if prices are unknown."""
        ...

    @property
    def stopped(self) -> str | None:
        """Why puzzles were left unanswered, or None."""
        ...

    @property
    def told(self) -> list[str]:
        """Differences between requests and settings, with the options to set."""
        ...

    def dry_run(self, puzzles: Sequence[Puzzle]) -> Iterator[list[dict[str, str]]]:
        """Yield the messages that would be sent, request by request; nothing is sent."""
        ...

    def estimate(self, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
        """Return the number of prompts, tokens and cost of a run; nothing is sent."""
        ...


@runtime_checkable
class Knowing(Protocol):
    """A solver or an expert that can report how it knows a candidate."""

    def knows(self, label: str) -> Knowledge | None:
        """Return how a candidate is known; None when it does not apply."""
        ...


def known_partly(solver: Solver, labels: Iterable[str]) -> str | None:
    """Name the candidates that a solver has no data on.

    Returns
    -------
    str or None
        ``3 of 12 candidates are known only by relatives (a, b, c), 1 not at all (d)``; None when
        all are known, or the solver cannot tell.
    """
    if not isinstance(solver, Knowing):
        return None
    names = {label_key(label): label for label in sorted(labels)}
    found: dict[str, list[str]] = {}
    for label in names.values():
        if (knowledge := solver.knows(label)) is not None and knowledge.how != "source":
            found.setdefault(knowledge.how, []).append(label)
    ways = {
        "relative": "only by relatives",
        "markers only": "only by markers",
        "not at all": "not at all",
    }
    parts = [
        f"{len(of)} {way} ({', '.join(of[:_NAMED])}{', ...' if len(of) > _NAMED else ''})"
        for how, way in ways.items()
        if (of := found.get(how))
    ]
    if not parts:
        return None
    first, *rest = parts
    number, _, tail = first.partition(" ")
    verb = "is" if number == "1" else "are"
    text = f"{number} of {len(names)} candidates {verb} known {tail}"
    return ", ".join([text, *rest])
