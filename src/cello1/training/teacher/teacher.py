"""An offline teacher: a classical expert that explains how it came to its answer.

Its traces follow an expert: context first, surest cells first with the genes that decide,
rivals weighed over the remaining cells, an earlier choice revised when another cell needs the type
more, the last cell by elimination, and at the end all of them in order. Every gene cited is in
the list of its cell.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cello1.atlas import Knowledge
from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes.base import Order
from cello1.solvers.assign import assign_jointly
from cello1.solvers.base import Floats, OnDone, Response
from cello1.solvers.classical.expert import Expert
from cello1.solvers.classical.reasons import Evidence
from cello1.training.teacher.steps import Step, find_steps
from cello1.training.teacher.wording import AMONG_OTHERS, EACH_ONCE, Wording, listed

# Below this lead (log-score) a rival is discussed: odds of about seven to one.
_SURE = 2.0
_RIVAL_SHARE = 0.5  # of the plain cells, that name a rival
_NOISE = 0.25  # median leads of Gumbel noise at temperature 1: two or three cells change places
_FEWEST, _PLAIN_GENES, _HARD_GENES, _AGAINST, _LISTED_GENES = 2, 4, 3, 2, 3


def tell(
    puzzle: Puzzle,
    chosen: Sequence[int],
    scores: Floats,
    evidence: Evidence,
    rng: np.random.Generator,
) -> str:
    """Write the think block that leads to an assignment.

    Parameters
    ----------
    puzzle
        The puzzle; its answer is not used.
    chosen
        Position of the candidate that each cell gets, all different.
    scores
        Log-scores of every cell and candidate, shape (N, M): they give the order, the rivals and
        the revisions. To justify a known answer, bias them towards it first
        (:func:`bias_towards`).
    evidence
        Returns the genes of a cell that speak for one type against another.
    rng
        Random generator for the wording.
    """
    words = Wording(rng)
    lines = [words.opening(puzzle.context, len(puzzle.cells), len(puzzle.candidates))]
    lines += [_line(puzzle, step, evidence, words) for step in find_steps(scores, chosen)]
    lines.append(words.closing([puzzle.candidates[j] for j in chosen]))
    return "\n".join(lines)


def tell_listed(puzzle: Puzzle, chosen: Sequence[int], evidence: Evidence) -> str:
    """Give every cell's type in turn with the genes for it, in the words of `cello1 base`.

    Always in the same words, and nothing is revised: as much as a very small model can track.

    Parameters
    ----------
    puzzle, chosen, evidence
        As for :func:`tell`.
    """
    lines = []
    for i, (cell, j) in enumerate(zip(puzzle.cells, chosen, strict=True), start=1):
        cited = _cited(cell, puzzle.candidates[j], evidence)
        why = f": {cited}{AMONG_OTHERS}" if cited else "."
        lines.append(f"Cell {i} is {puzzle.candidates[j]}{why}")
    return "\n".join([*lines, ""])


def tell_drafted(puzzle: Puzzle, chosen: Sequence[int], scores: Floats, evidence: Evidence) -> str:
    """Note the two likeliest types of every cell in turn; then assign each type once.

    Each note depends on its own cell alone, and the assignment can use all notes: so a very small
    model can decide jointly without tracking an order.

    Parameters
    ----------
    puzzle, chosen, scores, evidence
        As for :func:`tell`; the scores rate each cell by itself, right or wrong.
    """
    lines, two_best = [], np.argsort(-scores, axis=1, kind="stable")[:, :2]
    for i, (cell, likely) in enumerate(zip(puzzle.cells, two_best, strict=True), start=1):
        first, second = (puzzle.candidates[j] for j in likely)
        cited = _cited(cell, first, evidence)
        why = f": {cited}{AMONG_OTHERS}" if cited else "."
        lines.append(f"Cell {i} is {first} or {second}{why}")
    lines.append(EACH_ONCE)
    lines += [f"Cell {i} is {puzzle.candidates[j]}." for i, j in enumerate(chosen, start=1)]
    return "\n".join([*lines, ""])


def _cited(cell: Sequence[str], label: str, evidence: Evidence) -> str:
    """List the genes of a cell that speak most for a type."""
    genes = [gene for gene in evidence(cell, label, None) if gene in cell]
    return listed(genes[:_LISTED_GENES])


def perturb_scores(scores: Floats, temperature: float, rng: np.random.Generator) -> Floats:
    """Add noise to scores, so that at temperature 1 two or three cells change places."""
    noise = temperature * _NOISE * _lead(scores)
    return np.asarray(scores + noise * rng.gumbel(size=scores.shape))


def bias_towards(scores: Floats, gold: Sequence[int]) -> Floats:
    """Raise the scores of an assignment just enough to make it the best one.

    All its entries are raised by the same amount, so the cells keep their order: what was sure
    stays sure, and what was wrong becomes a close call.
    """
    target = np.zeros_like(scores)
    target[np.arange(len(gold)), list(gold)] = 1.0
    spread = max(float(scores.std()), 1e-6)
    bonus = 0.0
    while assign_jointly(scores + bonus * target).tolist() != list(gold):
        bonus = max(2.0 * bonus, spread / 16)
    return np.asarray(scores + bonus * target)


class Teacher:
    """A solver that words the reasons of an expert.

    Parameters
    ----------
    expert
        Scores cells against candidates and knows the genes that decide.
    sample
        Which response: 0 is the best joint assignment, others are drawn around it.
    temperature
        Gumbel noise on the scores of these others, in units of a quarter of the puzzle's
        median lead.
    seed
        Seed of noise and wording.
    hint
        Justify the puzzle's own answer instead of finding one.
    order
        Order in which the cells are discussed: the surest first (:func:`tell`), as they are listed
        (:func:`tell_listed`), or as they are listed, in two passes (:func:`tell_drafted`).
    """

    def __init__(
        self,
        expert: Expert,
        *,
        sample: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        hint: bool = False,
        order: Order = "surest",
    ) -> None:
        self.expert, self.sample, self.hint, self.order = expert, sample, hint, order
        self.temperature, self.seed = temperature, seed
        self.name = expert.name
        self.settings: dict[str, Any] = {
            **expert.settings,
            "solver": f"teacher:{expert.name}",
            "sample": sample,
            "temperature": temperature,
            "seed": seed,
            "hint": hint,
            "order": order,
        }

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles one after the other."""
        for puzzle in puzzles:
            on_done(puzzle.id, self.answer(puzzle))

    def knows(self, label: str) -> Knowledge | None:
        """Return how a candidate is known; None for an expert that knows no types."""
        know = getattr(self.expert, "knows", None)
        return None if know is None else know(label)

    def answer(self, puzzle: Puzzle) -> Response:
        """Answer one puzzle.

        Raises
        ------
        InputError
            When a hint is asked for and the puzzle has no answer.
        """
        start = time.perf_counter()
        rng = np.random.default_rng([self.seed, self.sample, int(puzzle.id, 16)])
        scores = self.expert.scores(puzzle)
        if self.sample:
            scores = perturb_scores(scores, self.temperature, rng)
        seen = scores
        if self.hint:
            scores = bias_towards(scores, _gold(puzzle))
        chosen = assign_jointly(scores).tolist()
        if self.order == "listed":
            reasoning = tell_listed(puzzle, chosen, self.expert.evidence)
        elif self.order == "drafted":
            reasoning = tell_drafted(puzzle, chosen, seen, self.expert.evidence)
        else:
            reasoning = tell(puzzle, chosen, scores, self.expert.evidence, rng)
        text = response_text(reasoning, tuple(puzzle.candidates[j] for j in chosen))
        return Response(text, seconds=time.perf_counter() - start)


def _lead(scores: Floats) -> float:
    """Return the median lead of the best type over the second, which sets the scale of noise."""
    ranked = np.sort(scores, axis=1)
    return float(np.median(ranked[:, -1] - ranked[:, -2]))


def _gold(puzzle: Puzzle) -> list[int]:
    if puzzle.answer_keys is None:
        raise InputError(f"puzzle {puzzle.id} has no answer, so there is none to justify")
    return [puzzle.candidate_index[key] for key in puzzle.answer_keys]


def _line(puzzle: Puzzle, step: Step, evidence: Evidence, words: Wording) -> str:
    """Word one step with the genes that speak for it."""
    number, label = step.cell + 1, puzzle.candidates[step.label]
    if step.kind == "last":
        return words.last(number, label)
    rival = None if step.rival is None else puzzle.candidates[step.rival]
    if step.kind == "back_last" and rival is not None:
        return words.back(number, label, [], rival)
    if step.kind == "back" and rival is not None:
        return words.back(number, label, _pro(puzzle, step, evidence, words, rival), rival)
    if step.kind == "take" and step.other is not None:
        genes = _pro(puzzle, step, evidence, words, None)
        return words.take(number, label, genes, step.other + 1, step.better)
    if rival is not None and step.margin < _SURE:
        genes = _pro(puzzle, step, evidence, words, rival)
        listed = [g for g in evidence(puzzle.cells[step.cell], rival, label) if g not in genes]
        other = None if step.other is None else step.other + 1
        return words.hard(number, label, genes, rival, words.some(listed, 1, _AGAINST), other)
    named = rival if words.chance(_RIVAL_SHARE) else None
    return words.plain(number, label, _pro(puzzle, step, evidence, words, rival), named)


def _pro(
    puzzle: Puzzle, step: Step, evidence: Evidence, words: Wording, rival: str | None
) -> list[str]:
    """Choose the genes to cite for a type; all are in the list of the cell.

    Best are genes that speak for the type both in general and against the rival at hand.
    """
    cell, label = puzzle.cells[step.cell], puzzle.candidates[step.label]
    typical = evidence(cell, label, None)
    telling = evidence(cell, label, rival) if rival else typical
    genes = [gene for gene in telling if gene in typical] or telling or typical
    most = _HARD_GENES if step.margin < _SURE or step.kind != "settle" else _PLAIN_GENES
    return words.some([g for g in genes if g in cell], _FEWEST, most)
