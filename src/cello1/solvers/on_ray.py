"""Run a solver on a Ray cluster: one copy in every actor, which gets batches of puzzles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cello1.atlas import Knowledge
from cello1.engine import each_batch
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Failure, Knowing, OnDone, Response, Solver

BATCH = 16


class OnRay:
    """Answers like another solver, on the machines of a Ray cluster.

    It has the other's name and settings: the run is the same, and can be resumed with either
    engine.

    Parameters
    ----------
    solver
        The other solver; only its name, settings and knowledge of candidates are used.
    make
        Makes the other solver, once in every actor.
    address
        Address of the cluster; by default one is started on this machine.
    model
        Whether the solver runs a model, so that it gets GPUs, if the cluster has any.
    """

    def __init__(
        self,
        solver: Solver,
        make: Callable[[], Solver],
        address: str | None = None,
        *,
        model: bool = False,
    ) -> None:
        self.solver, self.name, self.settings = solver, solver.name, solver.settings
        self.make, self.address, self.model = make, address, model

    def knows(self, label: str) -> Knowledge | None:
        """Return how the other solver knows a candidate."""
        return self.solver.knows(label) if isinstance(self.solver, Knowing) else None

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

        for place, result in each_batch(start, puzzles, BATCH, self.address, gpus=self.model):
            on_done(puzzles[place].id, result)
