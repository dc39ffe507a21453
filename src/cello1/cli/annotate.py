"""The verb `annotate` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cello1.cli.solve import AsJson, Seed, print_json
from cello1.errors import UseError

Labels = list[str] | None


def annotate(
    file: Annotated[Path, typer.Argument(help="Your cells, an .h5ad file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The annotated .h5ad to write.")],
    groupby: Annotated[str | None, typer.Option(help="obs column of the clusters.")] = None,
    leiden: Annotated[
        float | None, typer.Option(help="Compute Leiden clusters at this resolution.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Text file, one cell type on each line.")
    ] = None,
    candidate: Annotated[Labels, typer.Option(help="A type on offer; repeatable.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help=".h5ad whose cell types are the candidates.")
    ] = None,
    reference_key: Annotated[str, typer.Option(help="Its obs column of types.")] = "cell_type",
    solver: Annotated[
        str, typer.Option(help="markers, centroids, mini, hf:FOLDER_OR_NAME or openai:MODEL.")
    ] = "markers",
    puzzles: Annotated[
        Path | None, typer.Option(help="Folder of a build: to learn from, to fit confidence on.")
    ] = None,
    markers: Annotated[Path | None, typer.Option(help="Marker table.")] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="HGNC table of alias and previous symbols.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Label each cluster, or each cell.")] = "cluster",
    rank: Annotated[
        str, typer.Option(help="What stands for a cluster: cells, pseudobulk or specific.")
    ] = "cells",
    batches: Annotated[int | None, typer.Option(help="Per cluster [20] or cell [3].")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Clusters in a batch at most [half of them].")
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Every type at most once.")] = False,
    min_confidence: Annotated[float, typer.Option(help="Below it: unknown.")] = 0.0,
    unknown_types: Annotated[
        bool, typer.Option("--unknown-types", help="Allow types outside the Cell Ontology.")
    ] = False,
    key_added: Annotated[str, typer.Option(help="Name of the result.")] = "cello1",
    donor_key: Annotated[str, typer.Option(help="obs column of the donor.")] = "donor_id",
    batch_key: Annotated[str | None, typer.Option(help="obs column of the batch.")] = None,
    layer: Annotated[str | None, typer.Option(help="X, raw.X or a layer [counts].")] = None,
    valid: Annotated[bool, typer.Option("--valid", help="hf: only valid answers.")] = False,
    decode: Annotated[str, typer.Option(help="hf: generate, or assign.")] = "generate",
    base_url: Annotated[str | None, typer.Option(help="openai: server, up to /v1.")] = None,
    in_flight: Annotated[int, typer.Option(help="openai: requests at a time.")] = 8,
    price_in: Annotated[float | None, typer.Option(help="USD per million tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="USD per million tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop at this many USD.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of questions and answers [OUT.run].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every prompt; send and write nothing.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Label the clusters of a data set together. Killed and called again, it goes on."""
    given = dict(locals())
    from cello1.annotate.files import read_cells, read_reference, write_cells
    from cello1.annotate.run import annotate as run_annotate
    from cello1.annotate.show import contexts, requests, show_annotation
    from cello1.recipes import SolveSettings, checked
    from cello1.recipes.annotate import AnnotateSettings
    from cello1.terminal.progress import watching

    if len([source for source in (candidates, candidate or None, reference) if source]) > 1:
        raise UseError("give --candidates, --candidate or --reference, not several of them")
    if out.suffix != ".h5ad" or out.resolve() == file.resolve():
        raise UseError(f"--out is {out}; expected another .h5ad file than the input")
    chosen = checked(SolveSettings, _fields(SolveSettings, given))
    adata = read_cells(file)
    offered: Any = candidates or candidate or None
    if reference is not None:
        offered = read_reference(reference, reference_key)
    options = _fields(AnnotateSettings, given) | {
        "groupby": groupby, "leiden": leiden, "candidates": offered, "solver": chosen,
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


def _fields(section: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Take what belongs to a section of settings; what was left at None has its default."""
    found = {k: v for k, v in given.items() if k in section.model_fields and v is not None}
    return {k: str(v) if isinstance(v, Path) else v for k, v in found.items()}
