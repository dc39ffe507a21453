"""A solver on the machines of a Ray cluster: one in every actor, batches of puzzles to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cello1.engine import each_batch
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Failure, OnDone, Response, Solver

BATCH = 16


class OnRay:
    """Answers as another solver does, wherever Ray finds room.

    It has the other's name and settings: the run it makes is the same run, and goes on with either
    engine.

    Parameters
    ----------
    make
        Makes the solver, once in every actor.
    address
        Of the cluster; by default one is started on this machine.
    """

    def __init__(self, make: Callable[[], Solver], address: str | None = None) -> None:
        here = make()
        self.name, self.settings = here.name, here.settings
        self.make, self.address = make, address

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer all puzzles; those of a lost worker are answered again elsewhere."""
        make = self.make

        def start() -> Callable[[list[Puzzle]], list[Response | Failure]]:
            solver = make()

            def answer(asked: list[Puzzle]) -> list[Response | Failure]:
                found: dict[str, Response | Failure] = {}
                solver.solve(asked, found.__setitem__)
                return [found[puzzle.id] for puzzle in asked]

            return answer

        for place, result in each_batch(start, puzzles, BATCH, self.address):
            on_done(puzzles[place].id, result)
