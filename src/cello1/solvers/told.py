"""Solvers whose puzzles are told more before they are asked: evidence, or the answer as a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cello1.atlas import Knowledge
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Knowing, OnDone, RemoteSolver, Solver

# Says of puzzles what is to be told besides; their ids stay the same.
Tell = Callable[[Sequence[Puzzle]], list[Puzzle]]
_AT_ONCE = 256


class Told:
    """A solver that is told more than the puzzles say.

    Parameters
    ----------
    solver
        Who answers.
    tell
        What is told.
    settings
        What a run records of it.
    """

    def __init__(self, solver: Solver, tell: Tell, settings: dict[str, Any]) -> None:
        self.solver, self.tell, self.name = solver, tell, solver.name
        self.settings: dict[str, Any] = {**solver.settings, **settings}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles; the id leaves out what is told, so it is the same."""
        self.solver.solve(self.shown(puzzles), on_done)

    def shown(self, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
        """Return puzzles as they are asked."""
        some = range(0, len(puzzles), _AT_ONCE)
        return [told for at in some for told in self.tell(puzzles[at : at + _AT_ONCE])]

    def knows(self, label: str) -> Knowledge | None:
        """Say how what is told knows a candidate; None where that means nothing."""
        return self.tell.knows(label) if isinstance(self.tell, Knowing) else None


class RemoteTold(Told):
    """The same for one that sends puzzles off this machine.

    Parameters
    ----------
    solver, tell, settings
        As of :class:`Told`.
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
        """What was asked otherwise than the settings say, and the options to set."""
        return self.remote.told

    def dry_run(self, puzzles: Sequence[Puzzle]) -> Iterator[list[dict[str, str]]]:
        """Yield the messages that would be sent, with what is told; nothing is sent."""
        return self.remote.dry_run(self.shown(puzzles))

    def estimate(self, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
        """Return what asking would take; nothing is sent."""
        return self.remote.estimate(self.shown(puzzles))


def telling(solver: Solver, tell: Tell, settings: dict[str, Any]) -> Told:
    """Return a solver that is told more; it is remote when the one it asks is."""
    if isinstance(solver, RemoteSolver):
        return RemoteTold(solver, tell, settings)
    return Told(solver, tell, settings)


def shown(solver: Solver, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
    """Return puzzles as a solver is asked them."""
    return solver.shown(puzzles) if isinstance(solver, Told) else list(puzzles)
