"""A person as a solver: the human baseline that arXiv 2506.02911 lacks.

Each answer is stored at once in a run like any solver's, so `cello1 eval` and `cello1 report`
compare the person with the solvers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from cello1.errors import InputError
from cello1.play.server import serve
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import PlaySettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Run, file_hash, read_records, run_names
from cello1.scoring.score import Score, score
from cello1.solvers.base import Response
from cello1.solvers.run import read_solved, record_of

MOST_NOTES = 5_000
_MOST_SECONDS = 10_000_000


@takes(PlaySettings)
def play(
    puzzles: Path,
    out: Path,
    settings: PlaySettings | None = None,
    *,
    beside: Sequence[Path] = (),
    ready: Callable[[str], None] = lambda url: None,
    **changes: Any,
) -> None:
    """Let a person solve puzzles in a page, until the server is stopped.

    Parameters
    ----------
    puzzles
        A file of puzzles with answers.
    out
        The run folder; further sessions ask puzzles not yet answered.
    settings, **changes
        :class:`cello1.recipes.PlaySettings`, or its fields by keyword. The order of the puzzles
        depends on the seed alone; with a `host` other than this machine, others can play.
    beside
        Runs of solvers on the same puzzles, for comparison.
    ready
        Called with the address of the page.

    Raises
    ------
    InputError
        When puzzles have no answers, or all are answered.
    """
    chosen = resolve(PlaySettings, settings, changes)
    asked = list({p.id: p for p in read_puzzles(puzzles)}.values())
    if any(p.answer is None for p in asked):
        raise InputError(f"{puzzles} has puzzles without answers, which cannot be scored")
    solvers = {
        name: _scores(*read_solved(run))
        for name, run in zip(run_names(beside), beside, strict=True)
    }
    config = {
        "puzzles": file_hash(puzzles),
        "solver": "human",
        "player": chosen.player,
        "seed": chosen.seed,
    }
    with Run(out, command="solve", config=config, inputs=[puzzles]) as run:
        game = Game(run, asked, solvers, number=chosen.number, seed=chosen.seed)
        serve(game, chosen.host, chosen.port, ready)


class Game:
    """The state of one session.

    Parameters
    ----------
    run
        Where answers are stored.
    puzzles
        All puzzles.
    solvers
        Name -> puzzle id -> score.
    number, seed
        How many puzzles to ask, and the seed of their order.

    Raises
    ------
    InputError
        When no puzzle is left.
    """

    def __init__(
        self,
        run: Run,
        puzzles: Sequence[Puzzle],
        solvers: Mapping[str, Mapping[str, Score]],
        *,
        number: int,
        seed: int,
    ) -> None:
        self.run, self.solvers = run, solvers
        done = run.finished()
        order = random.Random(seed).sample(list(puzzles), len(puzzles))
        self.pending = {p.id: p for p in [p for p in order if p.id not in done][:number]}
        if not self.pending:
            raise InputError(
                f"all {len(puzzles)} puzzles are answered; see cello1 eval {run.folder}"
            )
        mine = {r["id"]: r for r in read_records(run.folder) if "failure" not in r}
        self.scores = _scores(puzzles, mine)
        self.lock = Lock()

    def questions(self) -> list[dict[str, Any]]:
        """Return what the page asks; it does not reveal the answers."""
        return [
            {
                "id": puzzle.id,
                "context": puzzle.context.strip(),
                "cells": [list(genes) for genes in puzzle.cells],
                "candidates": list(puzzle.candidates),
            }
            for puzzle in self.pending.values()
        ]

    def answer(self, given: Any) -> dict[str, Any]:
        """Take one answer, store it, and return how good it is.

        Parameters
        ----------
        given
            Data sent by the page: `id`, `labels` (index of a candidate for every cell), `seconds`,
            and optionally `notes`.

        Raises
        ------
        InputError
            When it does not answer an open puzzle.
        """
        if not isinstance(given, dict):
            raise InputError("an answer is an object with id, labels, seconds and notes")
        with self.lock:
            puzzle = self.pending.get(str(given.get("id")))
            if puzzle is None:
                raise InputError("this puzzle is answered already, or was never asked")
            text = response_text(_notes(given), _labels(puzzle, given.get("labels")))
            response = Response(text, seconds=_seconds(given), finish_reason="stop")
            self.run.append(record_of(puzzle.id, response))
            del self.pending[puzzle.id]
            self.scores[puzzle.id] = made = score(puzzle, text)
            return {
                "right": list(made.right),
                "answer": [puzzle.candidate_index[key] for key in puzzle.answer_keys or ()],
                "solvers": [
                    {"name": name, "right": sum(s[puzzle.id].right), "of": len(puzzle.cells)}
                    for name, s in self.solvers.items()
                    if puzzle.id in s
                ],
                "standing": self.standing(),
            }

    def standing(self) -> list[dict[str, Any]]:
        """Return everyone's scores on the puzzles the person answered, the person first."""
        rows = []
        for name, scores in {"you": self.scores, **self.solvers}.items():
            shared = [scores[i] for i in self.scores if i in scores]
            if shared:
                rows.append({
                    "name": name,
                    "puzzles": len(shared),
                    "batches": sum(s.exact for s in shared),
                    "cells": sum(s.cell_accuracy for s in shared) / len(shared),
                })  # fmt: skip
        return rows


def _scores(puzzles: Sequence[Puzzle], records: Mapping[str, Any]) -> dict[str, Score]:
    return {p.id: score(p, records[p.id]["text"]) for p in puzzles if p.id in records}


def _labels(puzzle: Puzzle, given: Any) -> tuple[str, ...]:
    n, m = len(puzzle.cells), len(puzzle.candidates)
    valid = isinstance(given, list) and all(type(j) is int and 0 <= j < m for j in given)
    if not valid or len(given) != n or len(set(given)) < n:
        raise InputError(f"expected {n} different types, one for every cell")
    return tuple(puzzle.candidates[j] for j in given)


def _seconds(given: Mapping[str, Any]) -> float:
    value = given.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("seconds must be a number")
    try:
        seconds = float(value)
    except OverflowError:  # an integer beyond all floats
        seconds = math.inf
    if not 0 <= seconds <= _MOST_SECONDS:
        raise InputError(f"seconds must lie between 0 and {_MOST_SECONDS:,}")
    return seconds


def _notes(given: Mapping[str, Any]) -> str:
    """Return the person's reasons, in which tags cannot break the format."""
    notes = str(given.get("notes") or "")[:MOST_NOTES].encode("utf-8", "replace").decode()
    return notes.replace("<", "\N{FULLWIDTH LESS-THAN SIGN}")
