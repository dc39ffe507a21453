"""The command line: `cello1 VERB`. Thin: it reads options, calls one function, shows its result.

Exit status: 0 done, 1 the data or the world failed, 2 wrong use.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.errors import InputError, UseError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Cell type annotation as a puzzle that is solved for the whole batch at once.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Names = list[str] | None


def _example(command: str) -> str:
    return f"Example: `{command}`"


@app.command(epilog=_example("cello1 demo my_cells.h5ad --out demo"))
def demo(
    file: Annotated[Path | None, typer.Argument(help="Your own .h5ad; default: built-in.")] = None,
    out: Out = Path("cello1-demo"),
    donor_key: Annotated[str, typer.Option(help="obs column of the donor.")] = "donor_id",
    cell_type_key: Annotated[str, typer.Option(help="obs column of the type.")] = "cell_type",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Build, audit, solve and score real cells, end to end, in under a minute."""
    from cello1.demo import demo as run_demo

    figures = run_demo(out, file, donor_key=donor_key, cell_type_key=cell_type_key, seed=seed)
    if as_json:
        _print_json(figures)


@app.command(epilog=_example("cello1 build lung.h5ad blood.h5ad --out puzzles --split donor"))
def build(
    files: Annotated[list[Path], typer.Argument(help=".h5ad files of annotated cells.")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option(help="YAML with a section `build`.")] = None,
    n_min: Annotated[int | None, typer.Option(help="Fewest cells in a puzzle [8].")] = None,
    n_max: Annotated[int | None, typer.Option(help="Most cells in a puzzle [15].")] = None,
    per_n: Annotated[int | None, typer.Option(help="Puzzles per N and file [40].")] = None,
    distractors: Annotated[int | None, typer.Option(help="Candidates that fit none [0].")] = None,
    candidate_order: Annotated[str | None, typer.Option(help="shuffled or sorted.")] = None,
    nested_types: Annotated[
        str | None, typer.Option(help="A type and its ancestor in one puzzle: apart or allowed.")
    ] = None,
    top_genes: Annotated[int | None, typer.Option(help="Genes listed per cell [50].")] = None,
    min_genes: Annotated[
        int | None, typer.Option(help="Drop cells with fewer expressed genes [50].")
    ] = None,
    exclude_genes: Annotated[
        Names, typer.Option(help="mitochondrial, ribosomal, pseudogene; repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="donor, dataset, tissue, disease, cell, puzzle or none.")
    ] = None,
    test_donors: Annotated[
        Names, typer.Option("--test-donor", help="Donor to test on; repeatable.")
    ] = None,
    validation_donors: Annotated[
        Names, typer.Option("--validation-donor", help="Donor to validate on; repeatable.")
    ] = None,
    unseen_diseases: Annotated[
        Names, typer.Option("--unseen-disease", help="Hold a disease out whole; repeatable.")
    ] = None,
    donor_key: Annotated[str | None, typer.Option(help="obs column of the donor.")] = None,
    cell_type_key: Annotated[str | None, typer.Option(help="obs column of the type.")] = None,
    batch_key: Annotated[str | None, typer.Option(help="obs column of the batch.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="X, raw.X or a layer; default: the first with counts.")
    ] = None,
    suspension_type: Annotated[
        str | None, typer.Option(help="Kind of suspension to keep, or any [cell].")
    ] = None,
    pooled_donors: Annotated[
        bool | None, typer.Option("--pooled-donors", help="Keep unnamed donors as one group.")
    ] = None,
    one_donor: Annotated[
        bool | None, typer.Option("--one-donor", help="Take a file without donors as one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice [0].")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes [one per core].", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Build puzzles from annotated cells, split them without leaks, and prove it."""
    given = dict(locals())
    from os import cpu_count

    from cello1.cells.build import build as run_build
    from cello1.recipes import BuildSettings, checked, read_recipe
    from cello1.reports.progress import watching
    from cello1.reports.tables import audit_table, files_table, show

    chosen = {k: v for k, v in given.items() if k in BuildSettings.model_fields and v is not None}
    base = read_recipe(recipe).build.model_dump()
    settings = checked(BuildSettings, base | {k: v for k, v in chosen.items() if v != []})
    with watching() as watch:
        made = run_build(files, out, settings, workers=workers or cpu_count() or 1, watch=watch)
    if as_json:
        reports = [asdict(report) for report in made.reports]
        _print_json({"files": reports, "audit": made.audit.to_json(), "ok": made.ok})
    else:
        show(files_table(made.reports), audit_table(made.audit))
    failed = [report for report in made.reports if report.status == "failed"]
    for report in failed:
        _complain(f"{report.dataset}: {report.message}")
    if not made.ok:
        raise typer.Exit(1)


@app.command(epilog=_example("cello1 audit puzzles"))
def audit(
    source: Annotated[Path, typer.Argument(help="Folder of a build, or files of splits.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further files of splits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks: shared donors, cells and gene lists. Fails if there are any."""
    from cello1.cells.audit import audit as run_audit
    from cello1.cells.build import read_splits
    from cello1.puzzles.table import read_puzzles
    from cello1.reports.tables import audit_table, show

    if source.is_dir() and not more:
        paths = read_splits(source)
    else:
        paths = {path.stem: path for path in (source, *(more or []))}
    findings = run_audit({name: read_puzzles(path) for name, path in paths.items()})
    if as_json:
        _print_json(findings.to_json())
    else:
        show(audit_table(findings))
    if not findings.passed:
        raise typer.Exit(1)


@app.command(epilog=_example("cello1 solve puzzles --solver centroids --out runs/centroids"))
def solve(
    puzzles: Annotated[Path, typer.Argument(help="Folder of a build, or one file of puzzles.")],
    solver: Annotated[str, typer.Option(help="chance, markers or centroids.")],
    out: Out,
    split: Annotated[str, typer.Option(help="Which split of a folder to solve.")] = "test",
    alone: Annotated[bool, typer.Option("--alone", help="Decide each cell by itself.")] = False,
    markers: Annotated[
        Path | None, typer.Option(help="Marker table (PanglaoDB, ScType or CSV).")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Puzzles to learn from.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Puzzles to choose a model on.")] = None,
    seed: Seed = 0,
) -> None:
    """Answer puzzles. Killed and called again, it goes on where it was."""
    from cello1.cells.build import ALL, read_splits
    from cello1.puzzles.table import read_puzzles
    from cello1.reports.progress import watching
    from cello1.solvers.run import classical_solver
    from cello1.solvers.run import solve as run_solve

    if puzzles.is_dir():
        splits = read_splits(puzzles)
        train, validation = train or splits.get("train"), validation or splits.get("validation")
        if (found := splits.get(split, splits.get(ALL))) is None:
            raise UseError(f"{puzzles} has no split {split!r}; it has {', '.join(splits)}")
        puzzles = found
    learns = solver == "centroids"
    if learns and train is None:
        raise UseError("centroids learn from puzzles with answers: name a file with --train")
    inputs = [path for path in (train, validation) if learns and path is not None]
    chosen = classical_solver(
        solver,
        joint=not alone,
        seed=seed,
        markers=markers,
        train=read_puzzles(train) if learns and train is not None else (),
        validation=read_puzzles(validation) if learns and validation is not None else (),
    )
    with watching() as watch:
        run_solve(
            puzzles,
            chosen,
            out,
            inputs=inputs,
            watch=lambda n, of: watch("puzzles", n / max(1, of)),
        )
    typer.echo(f"answers of {chosen.name} in {out}; next: cello1 eval {out}")


@app.command("eval", epilog=_example("cello1 eval runs/centroids runs/markers"))
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is compared.")],
    puzzles: Annotated[Path | None, typer.Option(help="The puzzles, if they were moved.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score runs: accuracies with 95 % intervals over donors, chance, paired differences."""
    from cello1.reports import tables
    from cello1.runs import write_json
    from cello1.scoring import evaluate as scoring
    from cello1.solvers.run import read_solved, token_counts

    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    evaluations, scored = {}, {}
    for name, run in zip(names, runs, strict=True):
        asked, records = read_solved(run, puzzles)
        texts, tokens = {i: r["text"] for i, r in records.items()}, token_counts(records)
        evaluations[name] = scoring.evaluate(asked, texts, tokens=tokens, seed=seed)
        scored[name] = scoring.score_all(asked, texts, tokens)
        write_json(run / "metrics.json", asdict(evaluations[name]))
    first = names[0]
    pairs = {
        f"{first} - {name}": scoring.compare(scored[first], scored[name], seed=seed)
        for name in names[1:]
    }
    if as_json:
        paired = {k: {m: asdict(p) for m, p in v.items()} | {"n": n} for k, (v, n) in pairs.items()}
        _print_json({"runs": {n: asdict(e) for n, e in evaluations.items()}, "paired": paired})
        return
    tables.show(tables.scores_table(evaluations))
    if pairs:
        tables.show(tables.paired_table(pairs))
    for name, evaluation in evaluations.items():
        for by, groups in evaluation.by.items():
            if len(groups) > 1:
                tables.show(tables.breakdown_table(name, evaluation, by))


@app.command(epilog=_example("cello1 doctor my_cells.h5ad"))
def doctor(
    file: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    donor_key: Annotated[str, typer.Option(help="obs column of the donor.")] = "donor_id",
    cell_type_key: Annotated[str, typer.Option(help="obs column of the type.")] = "cell_type",
    batch_key: Annotated[str | None, typer.Option(help="obs column of the batch.")] = None,
    as_json: AsJson = False,
) -> None:
    """Examine a file: what was found, what build would do, each problem with its mend."""
    from cello1.cells.doctor import examine
    from cello1.recipes import BuildSettings
    from cello1.reports.tables import diagnosis_table, show

    settings = BuildSettings(donor_key=donor_key, cell_type_key=cell_type_key, batch_key=batch_key)
    found = examine(file, settings)
    if as_json:
        _print_json(found.to_json())
    else:
        show(diagnosis_table(found))
    if found.report is None or not found.report.puzzles:
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _complain(message: str) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def main() -> None:
    """Run the command line; every error a user can cause ends in one line."""
    try:
        app()
    except UseError as error:
        _complain(str(error))
        sys.exit(2)
    except InputError as error:
        _complain(str(error))
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("stopped; the same command goes on where it was")
        sys.exit(130)
