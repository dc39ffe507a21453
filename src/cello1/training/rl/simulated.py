"""Simulated puzzles to practise on: of all tissues and donors, as hard as those of strangers.

A data set has few donors, and a model that has read it gets the same reward for every response.
The practice of `cello1 base` never ends: cells of all its tables at any depth, with donor noise,
ambient RNA and unmeasured genes, and types under other names. Here its puzzles are written out in
the words of the prompt, some with simulated evidence of an atlas.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cello1.puzzles.prompt import Suggestion, with_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes.rl import PracticeSettings
from cello1.training.base.practice import Draft, Practice, Size, knowledge, supporting
from cello1.training.base.simulated import likeness, simulate
from cello1.training.base.sources import Floats32, Sources

_LISTED = 50  # genes of a cell
_STEP = (1 << 28) + 1  # far from any step that a base was trained on


def simulated_puzzles(settings: PracticeSettings) -> list[Puzzle]:
    """Simulate puzzles with answers, each of a donor of its own.

    Parameters
    ----------
    settings
        Where the sources are, how many puzzles, of what size, and how many with evidence.
        Puzzle i depends on the sources, the seed and i alone.

    Raises
    ------
    InputError
        When the sources cannot be read.
    """
    if settings.sources is None:
        return []
    practice = Practice(Sources.load(Path(settings.sources)), settings.seed)
    telling = knowledge(practice)[0] if settings.evidence else None
    alike = None if telling is None else likeness(telling)
    low, high = settings.cells
    made = []
    for i in range(settings.simulated):
        rng = np.random.default_rng([settings.seed, _STEP, i])
        draft = practice.draw(_STEP, i, Size(int(rng.integers(low, high + 1)), _LISTED, 0))
        puzzle = _puzzle(draft, practice, {"donor_id": f"simulated {settings.seed}-{i}"})
        if telling is not None and alike is not None and rng.random() < settings.evidence:
            puzzle = _told(puzzle, draft, practice, telling, alike, rng)
        made.append(puzzle)
    return made


def _puzzle(draft: Draft, practice: Practice, meta: dict[str, object]) -> Puzzle:
    cells = tuple(tuple(practice.genes[g] for g in cell) for cell in draft.cells)
    answer = tuple(draft.names[j] for j in draft.gold)
    return Puzzle(draft.context, cells, tuple(draft.names), answer, {**meta, "synthetic": True})


def _told(
    puzzle: Puzzle,
    draft: Draft,
    practice: Practice,
    telling: Floats32,
    alike: Floats32,
    rng: np.random.Generator,
) -> Puzzle:
    """Add the evidence that an atlas might give, with the genes that tell."""
    made = simulate(draft, alike, rng)
    cells = []
    for cell, suggested in zip(draft.cells, made.cells, strict=True):
        told = supporting(cell, draft.types, telling)
        cells.append(
            [
                Suggestion(draft.names[j], percent, tuple(practice.genes[g] for g in told[j]))
                for j, percent in suggested
            ]
        )
    known = {how: [draft.names[j] for j in places] for how, places in made.known.items()}
    return with_evidence(puzzle, cells, known)
