"""From settings to a teacher: the solver that gives the k-th response to a puzzle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from cello1.puzzles.prompt import gold_message, system_message
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import DistillSettings, SolveSettings, checked
from cello1.solvers.base import OnDone, Solver
from cello1.solvers.choose import choose_solver, evidence_for
from cello1.solvers.classical.expert import ClassicalSolver, Expert
from cello1.solvers.told import Told, telling
from cello1.solvers.vote import VotingSolver
from cello1.training.teacher.teacher import Teacher

if TYPE_CHECKING:
    from cello1.solvers.evidence import AtlasEvidence

_FOLDS = 5
_ATLAS = ("atlas", "atlas_only", "without")  # options of an atlas
_HINT = (
    " The right answer is known: {answer}. Write the reasoning that leads to it from the genes, "
    "step by step, as if you did not know it, and never mention that it was given."
)

Sampler = Callable[[int], Solver]


def choose_teacher(
    settings: DistillSettings,
    puzzles: Sequence[Puzzle],
    train: Sequence[Puzzle] = (),
    validation: Sequence[Puzzle] = (),
) -> Sampler:
    """Return the solver of each sample; everything it needs is loaded now.

    Parameters
    ----------
    settings
        The teacher, and how it samples.
    puzzles
        The puzzles to answer. Centroids without `train` learn from these, for every donor from the
        puzzles of the others: a teacher that has seen the cells would nearly always be right,
        and for the wrong reasons.
    train, validation
        For centroids: puzzles to learn from, and to choose the model on.

    Raises
    ------
    UseError
        When there is no such solver, or an option is unknown or does not fit.
    """
    options = dict(settings.options)
    if settings.evidence is not None and settings.teacher != "atlas":
        options = {k: v for k, v in options.items() if k not in _ATLAS}  # of the evidence alone
    shared = {"solver": settings.teacher, "seed": settings.seed, **options}
    if settings.teacher.partition(":")[0] in ("hf", "openai"):
        asked = {"samples": settings.samples, "temperature": settings.temperature}
        solver = choose_solver(checked(SolveSettings, shared | asked))
        sampler: Sampler = solver.sampler if isinstance(solver, VotingSolver) else lambda k: solver
        return cache(lambda k: hinting(sampler(k))) if settings.hint else sampler
    asking = checked(SolveSettings, shared)

    def expert(learned: Sequence[Puzzle]) -> Expert:
        solver = choose_solver(asking, learned, validation)
        assert isinstance(solver, ClassicalSolver)
        return solver.expert

    if settings.teacher != "centroids" or train:
        return _teachers(settings, expert(train))
    folds = donor_folds(puzzles)
    parts = [[p for p in puzzles if folds[_donor(p)] != f] for f in range(max(folds.values()) + 1)]
    samplers = [_teachers(settings, expert(part or puzzles)) for part in parts]
    return lambda k: ByDonor([sampler(k) for sampler in samplers], folds)


def evidence_told(settings: DistillSettings) -> AtlasEvidence | None:
    """Return what tells the puzzles with evidence before a teacher is asked, or None.

    The traces keep it: a student learns from the prompt that the teacher saw.
    """
    if settings.evidence is None:
        return None
    atlas = {k: v for k, v in settings.options.items() if k in _ATLAS}
    return evidence_for(checked(SolveSettings, {"solver": "atlas", **atlas}))


def donor_folds(puzzles: Sequence[Puzzle]) -> dict[str, int]:
    """Deal donors into folds, in sorted order; a single donor makes a single fold."""
    donors = sorted({_donor(puzzle) for puzzle in puzzles})
    return {donor: i % _FOLDS for i, donor in enumerate(donors)}


class ByDonor:
    """Asks, for every donor, the teacher that did not learn from it.

    Parameters
    ----------
    teachers
        One for each fold.
    folds
        Donor -> fold.
    """

    def __init__(self, teachers: Sequence[Solver], folds: dict[str, int]) -> None:
        self.teachers, self.folds = teachers, folds
        self.name = teachers[0].name
        self.settings: dict[str, Any] = {**teachers[0].settings, "folds": len(teachers)}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles one after the other."""
        for puzzle in puzzles:
            self.teachers[self.folds[_donor(puzzle)]].solve([puzzle], on_done)


def hinting(solver: Solver) -> Told:
    """Return a solver that is told the answers, in the system message."""
    return telling(solver, lambda puzzles: [hinted(p) for p in puzzles], {"hint": _HINT})


def hinted(puzzle: Puzzle) -> Puzzle:
    """Put the answer into the system message that a teacher sees."""
    told = system_message(puzzle) + _HINT.format(answer=gold_message(puzzle.answer or ()))
    return replace(puzzle, meta={**puzzle.meta, "system_msg": told})


def _teachers(settings: DistillSettings, expert: Expert) -> Sampler:
    return lambda k: Teacher(
        expert,
        sample=k,
        temperature=settings.temperature,
        seed=settings.seed,
        hint=settings.hint,
        order=settings.order,
    )


def _donor(puzzle: Puzzle) -> str:
    return str(puzzle.meta.get("donor_id"))
