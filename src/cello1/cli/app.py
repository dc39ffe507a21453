"""The command line: `cello1 VERB`. Thin: it reads options, calls one function, shows its result.

Exit status: 0 done, 1 the data or the world failed, 2 wrong use.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.annotate import annotate
from cello1.cli.behaviour import behaviour, rate
from cello1.cli.report import play, report
from cello1.cli.rl import rl
from cello1.cli.solve import AsJson, Out, Seed, evaluate, example, print_json, solve
from cello1.cli.training import base, cross, distill, simulate
from cello1.cli.tuning import merge, sft
from cello1.errors import InputError, UseError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Cell type annotation as a puzzle that is solved for the whole batch at once.",
)

Names = list[str] | None
app.command(epilog=example("cello1 solve puzzles --solver centroids --out runs/centroids"))(solve)
app.command(epilog=example("cello1 behaviour runs/sft runs/rl"))(behaviour)
app.command(epilog=example("cello1 rate runs/sft runs/rl --out rating"))(rate)
app.command("eval", epilog=example("cello1 eval runs/centroids runs/markers"))(evaluate)
app.command(epilog=example("cello1 annotate cells.h5ad -o labelled.h5ad --groupby leiden"))(
    annotate
)
app.command(epilog=example("cello1 report runs/centroids runs/markers -o report.html"))(report)
app.command(epilog=example("cello1 play puzzles --out runs/me --beside runs/centroids"))(play)
app.command(epilog=example("cello1 sft recipes/cell-o1-7b.yaml traces=t.parquet --out runs/sft"))(
    sft
)
app.command(epilog=example("cello1 rl recipes/mini-cpu.yaml model=runs/mini --out runs/rl"))(rl)
app.command(epilog=example("cello1 merge runs/sft --out models/tuned"))(merge)
app.command(epilog=example("cello1 simulate lung.parquet --out simulated"))(simulate)
app.command(epilog=example("cello1 cross puzzles/train.parquet --out practice.parquet"))(cross)
app.command(epilog=example("cello1 base recipes/mini-cpu.yaml --out runs/base"))(base)
app.command(epilog=example("cello1 distill puzzles --teacher centroids --out traces"))(distill)


@app.command(epilog=example("cello1 demo my_cells.h5ad --out demo"))
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
        print_json(figures)


@app.command(epilog=example("cello1 build lung.h5ad blood.h5ad --out puzzles --split donor"))
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
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import audit_table, files_table, show

    chosen = {k: v for k, v in given.items() if k in BuildSettings.model_fields and v is not None}
    base = read_recipe(recipe).build.model_dump()
    settings = checked(BuildSettings, base | {k: v for k, v in chosen.items() if v != []})
    with watching() as watch:
        made = run_build(files, out, settings, workers=workers or cpu_count() or 1, watch=watch)
    if as_json:
        reports = [asdict(report) for report in made.reports]
        print_json({"files": reports, "audit": made.audit.to_json(), "ok": made.ok})
    else:
        show(files_table(made.reports), audit_table(made.audit))
    failed = [file for file in made.reports if file.status == "failed"]
    for file in failed:
        _complain(f"{file.dataset}: {file.message}")
    if not made.ok:
        raise typer.Exit(1)


@app.command(epilog=example("cello1 audit puzzles"))
def audit(
    source: Annotated[Path, typer.Argument(help="Folder of a build, or files of splits.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further files of splits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks: shared donors, cells and gene lists. Fails if there are any."""
    from cello1.cells.audit import audit as run_audit
    from cello1.puzzles.table import read_puzzles, read_splits
    from cello1.terminal.tables import audit_table, show

    if source.is_dir() and not more:
        paths = read_splits(source)
    else:
        paths = {path.stem: path for path in (source, *(more or []))}
    findings = run_audit({name: read_puzzles(path) for name, path in paths.items()})
    if as_json:
        print_json(findings.to_json())
    else:
        show(audit_table(findings))
    if not findings.passed:
        raise typer.Exit(1)


@app.command(epilog=example("cello1 doctor my_cells.h5ad"))
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
    from cello1.terminal.tables import diagnosis_table, show

    settings = BuildSettings(donor_key=donor_key, cell_type_key=cell_type_key, batch_key=batch_key)
    found = examine(file, settings)
    if as_json:
        print_json(found.to_json())
    else:
        show(diagnosis_table(found))
    if found.report is None or not found.report.puzzles:
        raise typer.Exit(1)


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
