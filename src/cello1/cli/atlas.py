"""The verb `atlas` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cello1.cli.options import AsJson, print_json
from cello1.errors import UseError


def atlas(
    action: Annotated[
        Literal["build", "show", "types"],
        typer.Argument(help="Build one from a recipe, show a type, or list the types."),
    ],
    what: Annotated[
        list[str] | None,
        typer.Argument(help="build: YAML with a section `atlas`, key=value; show: a cell type."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="build: folder to write.")] = None,
    tissue: Annotated[str | None, typer.Option(help="show, types: of this tissue.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--atlas", help="show, types: a folder beside the embedded one.")
    ] = None,
    atlas_only: Annotated[bool, typer.Option("--atlas-only", help="The folder alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build an atlas of your own, or see what one knows: types, genes, sources."""
    if action == "build":
        _build(what or [], out, as_json)
        return
    from cello1.atlas import Atlas
    from cello1.atlas.show import describe, list_sources, list_types
    from cello1.terminal.atlas import sources_table, type_panel, types_table
    from cello1.terminal.tables import show

    if atlas_only and folder is None:
        raise UseError("--atlas-only needs --atlas FOLDER")
    known = Atlas.read(folder, only=atlas_only)
    if action == "types":
        if what:
            raise UseError(f"atlas types takes no argument, found {what[0]!r}; use --tissue")
        types = list_types(known, tissue)
        print_json(types) if as_json else show(types_table(types))
    elif not what:
        sources = list_sources(known)
        print_json(sources) if as_json else show(sources_table(sources))
    else:
        found = [describe(known, label, tissue=tissue) for label in what]
        print_json(found) if as_json else show(*(type_panel(one) for one in found))


def _build(what: list[str], out: Path | None, as_json: bool) -> None:
    from cello1.atlas.build import build_atlas
    from cello1.recipes import AtlasSettings
    from cello1.recipes.read import read_section
    from cello1.terminal.progress import watching

    if not what or "=" in what[0]:
        raise UseError("name a recipe: cello1 atlas build recipes/atlas.yaml --out FOLDER")
    if out is None:
        raise UseError("name the folder to write with --out")
    recipe = Path(what[0])
    settings = read_section(AtlasSettings, recipe, what[1:])
    with watching() as watch:
        matches = build_atlas(settings, out, recipe.parent, watch)
    if as_json:
        print_json([vars(match) for match in matches])
        return
    for match in matches:
        typer.echo(str(match))
    typer.echo(
        f"{len(matches)} sources in {out}; next: cello1 solve PUZZLES --solver atlas --atlas {out}"
    )
