"""The verb `solve` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cello1.cli.options import SOURCE, Out, Revision, print_json
from cello1.errors import UseError
from cello1.recipes import SolveSettings
from cello1.recipes.solve import SPLIT

if TYPE_CHECKING:
    from cello1.solvers.base import Solver


def solve(
    puzzles: Annotated[Path, typer.Argument(help=SOURCE)],
    out: Out,
    settings: SolveSettings,
    split: Annotated[
        str, typer.Option(help="Which split to solve, where there are several.")
    ] = SPLIT,
    revision: Revision = None,
    train: Annotated[
        Path | None, typer.Option(help="centroids: puzzles to learn from [those of the folder].")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="centroids: puzzles to choose a model on.")
    ] = None,
    from_batch: Annotated[
        Path | None,
        typer.Option(help="Read the answers from this batch file; see cello1 export."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="openai: show what would be sent, send nothing.")
    ] = False,
) -> None:
    """Answer puzzles. Can be interrupted: rerun the same command to resume."""
    from cello1.puzzles.prompt import has_evidence
    from cello1.puzzles.table import read_puzzles
    from cello1.solvers.base import known_partly
    from cello1.solvers.choose import choose_for
    from cello1.solvers.run import solve as run_solve
    from cello1.terminal.progress import watching

    if from_batch is not None:
        from cello1.interop.openai_batch import BatchFile

        answers = BatchFile(from_batch)
        run_solve(puzzles, answers, out, split=split)
        _tell_outcome(answers, out)
        return
    if settings.solver is None:
        typer.echo(f"solver: {settings.who}, because {settings.default.because}", err=True)
    chosen = choose_for(
        puzzles, settings, split=split, revision=revision, train=train, validation=validation
    )
    if dry_run:
        _show_requests(chosen.solver, chosen.puzzles)
        return
    asked = read_puzzles(chosen.puzzles)
    candidates = {c for puzzle in asked for c in puzzle.candidates}
    if settings.evidence is None and (told := sum(map(has_evidence, asked))):
        typer.echo(
            f"note: {told} of {len(asked)} rows come with evidence, which is left out; "
            "--evidence atlas tells it",
            err=True,
        )
    if (partly := known_partly(chosen.solver, candidates)) is not None:
        typer.echo(f"note: {partly}", err=True)
    with watching() as watch:
        run_solve(
            chosen.puzzles,
            chosen.solver,
            out,
            inputs=chosen.learned,
            watch=lambda n, of: watch("puzzles", n / max(1, of)),
        )
    _tell_outcome(chosen.solver, out)


def _show_requests(solver: Solver, puzzles: Path) -> None:
    """Print every prompt, then tokens and cost as far as they can be known beforehand."""
    from cello1.puzzles.prompt import without_evidence
    from cello1.puzzles.table import read_puzzles
    from cello1.solvers.base import RemoteSolver

    if not isinstance(solver, RemoteSolver):
        raise UseError("--dry-run is for openai:MODEL; other solvers send nothing to anyone")
    asked = [without_evidence(puzzle) for puzzle in read_puzzles(puzzles)]
    for messages in solver.dry_run(asked):
        print_json(messages)
    print_json(solver.estimate(asked))


def _tell_outcome(solver: Solver, out: Path) -> None:
    """Say what is unanswered and why, what was spent, and what comes next."""
    from cello1.solvers.base import RemoteSolver
    from cello1.solvers.run import read_solved, remarks, unanswered

    owed, reasons = unanswered(out)
    for reason, count in reasons[:3]:
        typer.echo(f"{count} x {reason}", err=True)
    remote = solver if isinstance(solver, RemoteSolver) else None
    for line in [*(remote.told if remote else ()), *remarks(*read_solved(out))]:
        typer.echo(f"note: {line}", err=True)
    if remote is not None and remote.spent:
        typer.echo(f"spent: {remote.spent:.4f} USD")
    if owed:
        why = (remote and remote.stopped) or "failed calls are asked again"
        typer.echo(
            f"error: {owed} puzzles are unanswered ({why}); rerun the same command to resume",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"answers of {solver.name} in {out}; next: cello1 eval {out}")
