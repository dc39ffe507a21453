"""The reasons of the classical solvers: every gene cited is in the list of its cell.

They follow the way an expert solves a batch: the surest cells first, for each the deciding genes,
the strongest rival and why it was rejected, and finally the cells decided by elimination.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.base import Floats

# (genes of the cell, type, rival or None) -> genes that support the type, strongest first.
Evidence = Callable[[Sequence[str], str, str | None], list[str]]

_CITED = 4
_SURE, _OPEN = 0.9, 0.5


def explain(
    puzzle: Puzzle, chosen: Sequence[int], probability: Floats, evidence: Evidence, joint: bool
) -> str:
    """Explain an assignment.

    Parameters
    ----------
    puzzle
        The puzzle.
    chosen
        Position of the candidate given to each cell.
    probability
        Shape (N, M): one-to-one probabilities when `joint`, else independent rows.
    evidence
        Returns the genes of a cell that support one type against another.
    joint
        Whether cells were decided jointly; otherwise no type is ever taken by another cell.
    """
    order = sorted(range(len(chosen)), key=lambda i: (-probability[i, chosen[i]], i))
    how = (
        "I settle the surest cells first and give each type once."
        if joint
        else "I judge each cell by itself."
    )
    lines = [f"{puzzle.context.strip()} {len(order)} cells, {len(puzzle.candidates)} types. {how}"]
    holder: dict[int, int] = {}
    for i in order:
        left = [j for j in range(len(puzzle.candidates)) if j not in holder]
        if joint and left == [chosen[i]]:
            label = puzzle.candidates[chosen[i]]
            lines.append(f"Cell {i + 1}: only {label} is left, so it is {label} by elimination.")
        else:
            lines.append(_settle(puzzle, i, chosen[i], probability, evidence, holder))
        if joint:
            holder[chosen[i]] = i
    return "\n".join(lines)


def _settle(
    puzzle: Puzzle,
    i: int,
    j: int,
    probability: Floats,
    evidence: Evidence,
    holder: dict[int, int],
) -> str:
    """Write the line of one cell."""
    genes, label, p = puzzle.cells[i], puzzle.candidates[j], float(probability[i, j])
    rival = max(
        (k for k in range(len(puzzle.candidates)) if k != j), key=lambda k: (probability[i, k], -k)
    )
    other = puzzle.candidates[rival]
    why = evidence(genes, label, other) or evidence(genes, label, None)
    level = "is" if p >= _SURE else "is most likely" if p >= _OPEN else "could be"
    parts = [f"Cell {i + 1} {level} {label} (probability {p:.2f})"]
    parts.append(
        f": {_names(why)} in its list {'speaks' if len(why[:_CITED]) == 1 else 'speak'} for it."
        if why
        else ": no gene in its list singles it out."
    )
    against = evidence(genes, other, label)
    if rival in holder:
        parts.append(f" Its rival {other} is taken by cell {holder[rival] + 1}, which fits better.")
    elif against:
        parts.append(f" Next comes {other}, for which {_names(against[:2])} would speak, but less.")
    else:
        parts.append(f" Next comes {other}, for which no gene of the list speaks more.")
    return "".join(parts)


def _names(genes: Sequence[str]) -> str:
    cited = list(genes[:_CITED])
    return cited[0] if len(cited) == 1 else f"{', '.join(cited[:-1])} and {cited[-1]}"
