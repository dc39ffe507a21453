"""The verbs `solve` and `eval` of the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.errors import UseError

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def example(command: str) -> str:
    """Write the example under the help of a verb."""
    return f"Example: `{command}`"


def print_json(value: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def solve(
    puzzles: Annotated[Path, typer.Argument(help="Folder of a build, or one file of puzzles.")],
    out: Out,
    solver: Annotated[
        str,
        typer.Option(help="mini, chance, markers, centroids, hf:FOLDER_OR_NAME or openai:MODEL."),
    ] = "mini",
    split: Annotated[str, typer.Option(help="Which split of a folder to solve.")] = "test",
    alone: Annotated[bool, typer.Option("--alone", help="Decide each cell by itself.")] = False,
    markers: Annotated[
        Path | None, typer.Option(help="Marker table (PanglaoDB, ScType or CSV).")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Puzzles to learn from.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Puzzles to choose a model on.")] = None,
    valid: Annotated[
        bool, typer.Option("--valid", help="mini, hf: only valid answers can be written.")
    ] = False,
    decode: Annotated[
        str, typer.Option(help="mini, hf: generate text, or assign by likelihood.")
    ] = "generate",
    samples: Annotated[int, typer.Option(help="Answers per puzzle that vote.")] = 1,
    permute: Annotated[bool, typer.Option("--permute", help="Votes see other orders.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Of sampling [0; 1 for votes].")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Budget of a response.")] = 3_500,
    base_url: Annotated[str | None, typer.Option(help="openai: server, up to /v1.")] = None,
    in_flight: Annotated[int, typer.Option(help="openai: requests at a time.")] = 8,
    per_minute: Annotated[int | None, typer.Option(help="openai: requests a minute.")] = None,
    price_in: Annotated[float | None, typer.Option(help="USD per million tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="USD per million tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop at this many USD.")] = None,
    cache: Annotated[Path | None, typer.Option(help="openai: folder of paid answers.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="openai: show what would be sent, send nothing.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Answer puzzles. Killed and called again, it goes on where it was."""
    given = dict(locals())
    from cello1.puzzles.table import read_puzzles, read_splits
    from cello1.recipes import SolveSettings, checked
    from cello1.solvers.choose import choose_solver
    from cello1.solvers.run import solve as run_solve
    from cello1.terminal.progress import watching

    named = {k: v for k, v in given.items() if k in SolveSettings.model_fields}
    paths = {k: str(v) for k, v in named.items() if isinstance(v, Path)}
    settings = checked(SolveSettings, named | paths)
    if puzzles.is_dir() and not (puzzles / "dataset_info.json").exists():
        splits = read_splits(puzzles)
        train, validation = train or splits.get("train"), validation or splits.get("validation")
        if (found := splits.get(split, splits.get("all"))) is None:
            raise UseError(f"{puzzles} has no split {split!r}; it has {', '.join(splits)}")
        puzzles = found
    learned: dict[str, Path] = {}
    if solver == "centroids":
        if train is None:
            raise UseError("centroids learn from puzzles with answers: name a file with --train")
        learned = {"train": train} | ({} if validation is None else {"validation": validation})
    chosen = choose_solver(settings, **{k: read_puzzles(path) for k, path in learned.items()})
    if dry_run:
        _show_requests(chosen, puzzles)
        return
    with watching() as watch:
        run_solve(
            puzzles,
            chosen,
            out,
            inputs=list(learned.values()),
            watch=lambda n, of: watch("puzzles", n / max(1, of)),
        )
    _tell_outcome(chosen, out)


def _show_requests(solver: Any, puzzles: Path) -> None:
    """Print every prompt, then tokens and cost as far as they can be known beforehand."""
    from cello1.puzzles.table import read_puzzles

    if not hasattr(solver, "dry_run"):
        raise UseError("--dry-run is for openai:MODEL; other solvers send nothing to anyone")
    asked = read_puzzles(puzzles)
    for messages in solver.dry_run(asked):
        print_json(messages)
    print_json(solver.estimate(asked))


def _tell_outcome(solver: Any, out: Path) -> None:
    """Say what is owed and why, what was spent, and what comes next."""
    from cello1.solvers.run import unanswered

    owed, reasons = unanswered(out)
    for reason, count in reasons[:3]:
        typer.echo(f"{count} x {reason}", err=True)
    if spent := getattr(solver, "spent", 0.0):
        typer.echo(f"spent: {spent:.4f} USD")
    if owed:
        why = getattr(solver, "stopped", None) or "calls that failed are owed"
        typer.echo(f"error: {owed} puzzles are unanswered ({why}); run it again to go on", err=True)
        raise typer.Exit(1)
    typer.echo(f"answers of {solver.name} in {out}; next: cello1 eval {out}")


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is compared.")],
    puzzles: Annotated[Path | None, typer.Option(help="The puzzles, if they were moved.")] = None,
    calibrate_on: Annotated[
        list[Path] | None,
        typer.Option(help="Run of the same solver on validation puzzles; repeatable."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score runs: accuracies with 95 % intervals over donors, chance, paired differences."""
    from cello1.citations.evidence import cited_share
    from cello1.runs import write_json
    from cello1.scoring import evaluate as scoring
    from cello1.solvers.calibrated import run_calibration, temperatures
    from cello1.solvers.run import read_solved, token_counts
    from cello1.terminal import tables
    from cello1.terminal.calibration import calibration_table

    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    evaluations, scored, confidences, figures = {}, {}, {}, {}
    cited = {}
    fitted = temperatures(runs, calibrate_on or [])
    for name, run in zip(names, runs, strict=True):
        asked, records = read_solved(run, puzzles)
        texts, tokens = {i: r["text"] for i, r in records.items()}, token_counts(records)
        evaluations[name] = scoring.evaluate(asked, texts, tokens=tokens, seed=seed)
        scored[name] = scoring.score_all(asked, texts, tokens)
        measured = asdict(evaluations[name])
        if found := run_calibration(asked, records, fitted.get(run), seed=seed):
            confidences[name] = found
            measured["calibration"] = {level: asdict(c) for level, c in found.items()}
        if genes := cited_share(asked, texts, seed=seed):
            cited[name] = genes
            measured["cited_genes"] = asdict(genes)
        write_json(run / "metrics.json", measured)
        figures[name] = measured
    first = names[0]
    pairs = {
        f"{first} - {name}": scoring.compare(scored[first], scored[name], seed=seed)
        for name in names[1:]
    }
    if as_json:
        paired = {k: {m: asdict(p) for m, p in v.items()} | {"n": n} for k, (v, n) in pairs.items()}
        print_json({"runs": figures, "paired": paired})
        return
    tables.show(tables.scores_table(evaluations))
    if confidences:
        tables.show(calibration_table(confidences))
    if cited:
        tables.show(tables.citations_table(cited))
    if pairs:
        tables.show(tables.paired_table(pairs))
    for name, evaluation in evaluations.items():
        for by, groups in evaluation.by.items():
            if len(groups) > 1:
                tables.show(tables.breakdown_table(name, evaluation, by))
