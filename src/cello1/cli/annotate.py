"""The verb `annotate` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.cli.options import AsJson, print_json
from cello1.errors import UseError
from cello1.recipes import AnnotateSettings, AnnotateSolveSettings


def annotate(
    file: Annotated[Path, typer.Argument(help="Your cells, an .h5ad file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The annotated .h5ad to write.")],
    settings: AnnotateSettings,
    solver: AnnotateSolveSettings,
    groupby: Annotated[str | None, typer.Option(help="obs column of the clusters.")] = None,
    leiden: Annotated[
        float | None, typer.Option(help="Compute Leiden clusters at this resolution.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Text file, one cell type on each line.")
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="A candidate type; repeatable.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help=".h5ad whose cell types are the candidates.")
    ] = None,
    reference_key: Annotated[str, typer.Option(help="Its obs column of types.")] = "cell_type",
    puzzles: Annotated[
        Path | None, typer.Option(help="Folder of a build: to learn from, to fit confidence on.")
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="HGNC table of alias and previous symbols.")
    ] = None,
    key_added: Annotated[str, typer.Option(help="Name of the result.")] = "cello1",
    run: Annotated[
        Path | None, typer.Option(help="Folder of questions and answers [OUT.run].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every prompt; send and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label the clusters of a data set together. Can be interrupted: rerun to resume."""
    from cello1.annotate.files import read_cells, read_reference, write_cells
    from cello1.annotate.run import annotate as run_annotate
    from cello1.annotate.show import contexts, requests, show_annotation
    from cello1.terminal.progress import watching

    if len([source for source in (candidates, candidate or None, reference) if source]) > 1:
        raise UseError("give --candidates, --candidate or --reference, not several of them")
    if out.suffix != ".h5ad" or out.resolve() == file.resolve():
        raise UseError(f"--out is {out}; expected another .h5ad file than the input")
    adata = read_cells(file)
    offered: Any = candidates or candidate or None
    if reference is not None:
        offered = read_reference(reference, reference_key)
    options = settings.model_dump() | {
        "groupby": groupby, "leiden": leiden, "candidates": offered, "solver": solver,
        "puzzles": puzzles, "key_added": key_added, "aliases": aliases,
    }  # fmt: skip
    if dry_run:
        for request in requests(adata, options):
            print_json(request)
        return
    with watching() as watch:
        run_annotate(
            adata,
            **options,
            run=run or out.with_name(f"{out.name}.run"),
            watch=watch,
            say=lambda plan, solver: typer.echo(contexts(plan, solver), err=True),
        )
    write_cells(adata, out)
    if as_json:
        from cello1.annotate.table import read_uns

        print_json(read_uns(adata, key_added))
    else:
        show_annotation(adata, key_added)
        typer.echo(f"written to {out}")
