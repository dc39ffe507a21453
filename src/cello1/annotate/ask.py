"""Ask a language model about batches of clusters, and count its votes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cello1.annotate.calibrate import Fit, fit_votes
from cello1.annotate.pool import Votes, count_votes
from cello1.annotate.prepare import Prepared
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.runs import Watch
from cello1.solvers.base import RemoteSolver, Solver
from cello1.solvers.run import read_solved, remarks, solve, unanswered

_log = logging.getLogger(__name__)
Records = Mapping[str, Mapping[str, Any]]


def ask_all(
    prepared: Prepared, folder: Path, watch: Watch, *, resumes: bool
) -> tuple[Votes, Records, Fit]:
    """Ask about all batches; return the votes, the answers, and the fit of the votes.

    `folder` holds the runs; `resumes` says that the user named it, so that a later call can resume.
    """
    plan = prepared.plan
    assert plan is not None

    def ask(puzzles: list[Puzzle], solver: Solver, name: str) -> Records:
        records, said = _ask(
            puzzles, solver, folder / name, prepared.learned, watch, resumes=resumes
        )
        prepared.notes.extend(said)
        return records

    where = prepared.solver.settings.get("base_url") or "this machine"
    level = logging.WARNING if prepared.sends else logging.INFO  # shown unless silenced
    _log.log(
        level,
        "%d batches of %d clusters go to %s on %s, which is told:%s", len(plan.puzzles),
        len(plan.clusters.names), prepared.solver.name, where,
        "".join(f"\n  {context}" for context in plan.contexts),
    )  # fmt: skip
    fitted = fit_votes(plan, prepared.folds, prepared.asked, prepared.solver, ask)
    records = ask(plan.puzzles, prepared.solver, "answers")
    units = [batch.clusters for batch in plan.batches]
    votes = count_votes(plan.batches, units, len(plan.clusters.names), plan.candidates, records)
    return votes, records, fitted


def _ask(
    puzzles: list[Puzzle],
    solver: Solver,
    folder: Path,
    learned: list[Path],
    watch: Watch,
    *,
    resumes: bool,
) -> tuple[Records, list[str]]:
    """Ask about batches in a run folder; those that an earlier call answered are not asked again.

    Returns the answers, and remarks on what is wrong with them.
    """
    path = folder / "puzzles.parquet"
    if path.exists() and [p.id for p in read_puzzles(path)] != [p.id for p in puzzles]:
        raise InputError(
            f"{folder.parent} holds an annotation of other data or with other settings; "
            "choose another run folder"
        )
    if not path.exists():
        write_puzzles(puzzles, path)
    solve(
        path, solver, folder, inputs=learned, watch=lambda n, of: watch(folder.name, n / max(1, of))
    )
    owed, failures = unanswered(folder)
    if owed:
        stopped = solver.stopped if isinstance(solver, RemoteSolver) else None
        why = stopped or (failures[0][0] if failures else "no answer")
        again = "run it again to go on" if resumes else "with a run folder it can go on"
        raise InputError(f"{owed} of {len(puzzles)} batches are unanswered ({why}); {again}")
    asked, records = read_solved(folder)
    return records, [f"{solver.name}: {line}" for line in remarks(asked, records)]


@contextmanager
def workspace(run: str | Path | None) -> Iterator[Path]:
    """Yield the folder for questions and answers: the one named, else a temporary one."""
    if run is not None:
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="cello1-") as folder:
        yield Path(folder)
