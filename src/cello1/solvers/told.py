"""Wrap a solver to add information to its prompts: evidence, or the answer as a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cello1.atlas import Knowledge
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Knowing, OnDone, RemoteSolver, Solver

# Adds information to puzzles; their ids stay the same.
Tell = Callable[[Sequence[Puzzle]], list[Puzzle]]
_AT_ONCE = 256


class Told:
    """A solver whose prompts hold additional information.

    Parameters
    ----------
    solver
        The wrapped solver.
    tell
        Adds the information.
    settings
        Settings of the information, for the record of a run.
    """

    def __init__(self, solver: Solver, tell: Tell, settings: dict[str, Any]) -> None:
        self.solver, self.tell, self.name = solver, tell, solver.name
        self.settings: dict[str, Any] = {**solver.settings, **settings}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles; ids do not depend on the added information."""
        self.solver.solve(self.shown(puzzles), on_done)

    def shown(self, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
        """Return puzzles with the added information."""
        some = range(0, len(puzzles), _AT_ONCE)
        return [told for at in some for told in self.tell(puzzles[at : at + _AT_ONCE])]

    def knows(self, label: str) -> Knowledge | None:
        """Return how the source of the information knows a candidate; None if not applicable."""
        return self.tell.knows(label) if isinstance(self.tell, Knowing) else None


class RemoteTold(Told):
    """The same for a remote solver.

    Parameters
    ----------
    solver, tell, settings
        As for :class:`Told`.
    """

    def __init__(self, solver: RemoteSolver, tell: Tell, settings: dict[str, Any]) -> None:
        super().__init__(solver, tell, settings)
        self.remote = solver

    @property
    def spent(self) -> float:
        """USD spent so far."""
        return self.remote.spent

    @property
    def stopped(self) -> str | None:
        """Why puzzles were left unanswered, or None."""
        return self.remote.stopped

    @property
    def told(self) -> list[str]:
        """Differences between requests and settings, with the options to set."""
        return self.remote.told

    def dry_run(self, puzzles: Sequence[Puzzle]) -> Iterator[list[dict[str, str]]]:
        """Yield the messages that would be sent, with the added information; nothing is sent."""
        return self.remote.dry_run(self.shown(puzzles))

    def estimate(self, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
        """Return the estimated size and cost of a run; nothing is sent."""
        return self.remote.estimate(self.shown(puzzles))


def telling(solver: Solver, tell: Tell, settings: dict[str, Any]) -> Told:
    """Wrap a solver with additional information; the wrapper of a remote solver is remote."""
    if isinstance(solver, RemoteSolver):
        return RemoteTold(solver, tell, settings)
    return Told(solver, tell, settings)


def shown(solver: Solver, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
    """Return puzzles as a solver sees them."""
    return solver.shown(puzzles) if isinstance(solver, Told) else list(puzzles)
