"""The verb `annotate` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.cli.options import AsJson, complain, print_json
from cello1.errors import UseError
from cello1.recipes import AnnotateRecipe, AnnotateSettings, AnnotateSolveSettings


def annotate(
    files: Annotated[list[Path], typer.Argument(help="Your cells: .h5ad or .zarr.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The annotated copy to write; of several files, their folder."
        ),
    ],
    settings: AnnotateRecipe,
    groupby: Annotated[
        str | None, typer.Option(help="obs column of the clusters [found, or else computed].")
    ] = None,
    leiden: Annotated[
        float | None, typer.Option(help="Compute Leiden clusters at this resolution.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Text file, one cell type a line [those of the tissue].")
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="A candidate type; repeatable.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help=".h5ad whose cell types are the candidates.")
    ] = None,
    reference_key: Annotated[
        str, typer.Option(help="obs column of the types of the reference.")
    ] = "cell_type",
    tissue: Annotated[str | None, typer.Option(help="Tissue of the cells [as obs says].")] = None,
    organism: Annotated[str | None, typer.Option(help="human or mouse [as the data say].")] = None,
    beside: Annotated[
        str | None,
        typer.Option("--with", help="Pool a language model with the evidence of: atlas, markers."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML page to write as well; of several files, a folder.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV of all cells to write as well; of several files, a folder."),
    ] = None,
    puzzles: Annotated[
        Path | None,
        typer.Option(help="Folder of a build to learn from, or to fit the confidence on."),
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="HGNC table of alias and previous symbols.")
    ] = None,
    key_added: Annotated[str, typer.Option(help="Name of the result in obs and uns.")] = "cello1",
    run: Annotated[
        Path | None, typer.Option(help="Folder that keeps questions and answers [OUT.run].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every prompt; send and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Name the cell types of your data. Can be interrupted: rerun the same command to resume."""
    from cello1.annotate.data import open_data
    from cello1.annotate.files import KINDS, annotate_file, as_stored, check_out, read_reference
    from cello1.annotate.prepare import species
    from cello1.annotate.show import requests, show_annotation
    from cello1.annotate.table import opened
    from cello1.terminal.progress import telling, watching

    if len([source for source in (candidates, candidate or None, reference) if source]) > 1:
        raise UseError("give --candidates, --candidate or --reference, not several of them")
    several = len(files) > 1 or (out.is_dir() and out.suffix not in KINDS)
    if not several:
        check_out(files[0], out, key_added)
    offered: Any = candidates or candidate or None
    if reference is not None:
        offered = read_reference(reference, reference_key)
    told = settings.model_dump()
    solver = AnnotateSolveSettings(**{k: told[k] for k in AnnotateSolveSettings.model_fields})
    options = {k: told[k] for k in AnnotateSettings.model_fields} | {
        "groupby": groupby, "leiden": leiden, "candidates": offered, "solver": solver,
        "puzzles": puzzles, "key_added": key_added, "aliases": aliases, "tissue": tissue,
        "organism": organism, "beside": beside,
    }  # fmt: skip
    if dry_run:
        columns = (groupby, settings.donor_key, settings.batch_key)
        for file in files:
            with (
                as_stored(file, out) as stored,
                open_data(
                    stored, layer=settings.layer, organism=species(organism), columns=columns
                ) as data,
            ):
                for request in requests(data, options):
                    print_json(request)
        return
    if several:
        _annotate_many(files, out, report, labels, solver, options | {"run": run}, as_json)
        return
    with watching() as watch, telling():
        found = annotate_file(
            files[0], out, report=report, labels=labels, watch=watch,
            run=run or out.with_name(f"{out.name}.run"), **options,
        )  # fmt: skip
    if as_json:
        print_json(opened(found.uns))
    else:
        show_annotation(found.uns)
        typer.echo(f"written to {out}")


def _annotate_many(
    files: list[Path],
    out: Path,
    report: Path | None,
    labels: Path | None,
    solver: AnnotateSolveSettings,
    options: dict[str, Any],
    as_json: bool,
) -> None:
    """Annotate each file by itself; with the engine ray, they are its tasks and not the batches."""
    from cello1.annotate.files import annotate_files
    from cello1.terminal.progress import telling, watching

    ray = solver.engine == "ray"
    alone = solver.model_copy(update={"engine": "transformers", "address": None})
    with watching() as watch, telling():
        made = annotate_files(
            files, out, report=report, labels=labels, engine="ray" if ray else "local",
            address=solver.address, watch=watch,
            **options | {"solver": alone if ray else solver},
        )  # fmt: skip
    if as_json:
        print_json({str(copy): error for copy, error in made.items()})
    for copy, error in made.items():
        if error:
            complain(f"{copy.name}: {error}")
        elif not as_json:
            typer.echo(f"written to {copy}")
    if any(made.values()):
        raise typer.Exit(1)
