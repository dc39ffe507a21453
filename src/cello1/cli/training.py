"""The verbs `simulate`, `cross`, `base` and `distill` of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cello1.cli.solve import AsJson, Out, Seed, print_json
from cello1.cli.tuning import within
from cello1.errors import UseError


def simulate(
    tables: Annotated[list[Path], typer.Argument(help="Mean profiles, genes x types, or CSV.")],
    out: Out,
    cell_types: Annotated[
        Path | None, typer.Option(help="CSV: profile, column, cell_type, keep, tissue, disease.")
    ] = None,
    donors: Annotated[int, typer.Option(help="Donors per table.", min=1)] = 8,
    cells_per_type: Annotated[int, typer.Option(help="Cells per donor and type.", min=1)] = 20,
    seed: Seed = 0,
) -> None:
    """Simulate cells of named types from mean profiles, one .h5ad per table, marked synthetic."""
    from cello1.cells.simulate import described, read_profiles
    from cello1.cells.simulate import simulate as run_simulate
    from cello1.terminal.progress import watching

    out.mkdir(parents=True, exist_ok=True)
    with watching() as watch:
        for number, table in enumerate(sorted(tables), start=1):
            made = out / f"{table.stem}.h5ad"
            profiles = read_profiles(table, cell_types)
            cells = run_simulate(
                profiles.loc[:, ~profiles.columns.duplicated()],
                donors=donors,
                cells_per_type=cells_per_type,
                seed=seed,
                obs=described(table, cell_types),
                name=f"{table.stem}-",
            )
            part = made.with_suffix(".part")
            cells.write_h5ad(part)
            part.replace(made)
            watch("tables", number / len(tables))
    typer.echo(f"{len(tables)} files in {out}; next: cello1 build {out}/*.h5ad")


def cross(
    puzzles: Annotated[list[Path], typer.Argument(help="Files of puzzles with answers.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, such as x.parquet.")],
    count: Annotated[int, typer.Option(help="New puzzles, from each file as many.", min=1)] = 4_000,
    ambient: Annotated[
        float, typer.Option(help="Share of genes from other cells of the donor.", min=0, max=1)
    ] = 0.0,
    seed: Seed = 0,
) -> None:
    """Make new puzzles whose cells are crossed of cells of one type: practice for training."""
    from cello1.puzzles.table import read_puzzles, write_puzzles
    from cello1.terminal.progress import watching
    from cello1.training.base.cross import cross_puzzles

    shares = [count // len(puzzles) + (i < count % len(puzzles)) for i in range(len(puzzles))]
    made = []
    with watching() as watch:
        for done, (path, share) in enumerate(zip(puzzles, shares, strict=True), start=1):
            made += cross_puzzles(read_puzzles(path), share, seed, ambient)
            watch("files", done / len(puzzles))
    write_puzzles(made, out)
    typer.echo(f"{len(made)} puzzles in {out}; next: cello1 distill {out}, cello1 rl")


def base(
    recipe: Annotated[Path, typer.Argument(help="YAML with a section `base`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings: puzzles='[FILE, FILE]' hidden=128 ...")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("base"),
    seed: Annotated[int | None, typer.Option(help="Of weights and data.", min=0)] = None,
) -> None:
    """Train a small model from scratch. Killed and called again, it goes on where it was."""
    from cello1.recipes import read_recipe
    from cello1.terminal.progress import watching
    from cello1.training.base.base import base as run_base

    given = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, within("base", given)).base
    with watching() as watch:
        made = run_base(settings, out, watch=watch)
    typer.echo(f"base model: {made}; next: cello1 distill, cello1 sft RECIPE model={made}")


def distill(
    puzzles: Annotated[Path, typer.Argument(help="Folder of a build, or one file of puzzles.")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option(help="YAML with a section `distill`.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="markers, centroids, hf:NAME or openai:MODEL [centroids]."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Of the teacher, as in solve: base_url=URL, price_in=2; repeatable."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Most responses per puzzle [8].")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the samples [1].")] = None,
    target: Annotated[
        int | None, typer.Option(help="Stop at so many solved puzzles; resample the unsolved.")
    ] = None,
    hint: Annotated[
        bool | None, typer.Option("--hint", help="The teacher sees the answer and justifies it.")
    ] = None,
    min_true_genes: Annotated[
        float | None, typer.Option(help="Share of cited genes that must be in their cell.")
    ] = None,
    min_words: Annotated[int | None, typer.Option(help="Fewest words of reasoning.")] = None,
    max_words: Annotated[int | None, typer.Option(help="Most words of reasoning.")] = None,
    no_early_answer: Annotated[
        bool | None,
        typer.Option("--no-early-answer", help="Refuse answers before the reasoning."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="shortest, longest, random or best_supported [shortest].")
    ] = None,
    per_puzzle: Annotated[int | None, typer.Option(help="Most traces per puzzle [1].")] = None,
    train: Annotated[
        Path | None, typer.Option(help="Centroids learn from these [other donors' puzzles].")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Puzzles to choose a model on.")] = None,
    split: Annotated[str, typer.Option(help="Which split of a folder to ask.")] = "train",
    seed: Annotated[int | None, typer.Option(help="Of every random choice [0].", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Let a teacher answer puzzles and keep what is right as traces. Resumes when killed."""
    given = dict(locals())
    from cello1.puzzles.table import read_splits
    from cello1.recipes import checked, read_recipe
    from cello1.recipes.training import DistillSettings
    from cello1.terminal.acceptance import acceptance_table
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import show
    from cello1.training.distill.distill import TRACES
    from cello1.training.distill.distill import distill as run_distill

    named = {k: v for k, v in given.items() if k in DistillSettings.model_fields and v is not None}
    section = read_recipe(recipe).distill.model_dump()
    options = section["options"] | _options(option or [])
    settings = checked(DistillSettings, section | named | {"options": options})
    teacher, target = settings.teacher, settings.target
    if puzzles.is_dir() and not (puzzles / "dataset_info.json").exists():
        splits = read_splits(puzzles)
        if teacher == "centroids":
            validation = validation or splits.get("validation")
        if (found := splits.get(split, splits.get("all"))) is None:
            raise UseError(f"{puzzles} has no split {split!r}; it has {', '.join(splits)}")
        puzzles = found
    with watching() as watch:
        made = run_distill(
            puzzles,
            out,
            settings,
            train=train,
            validation=validation,
            watch=lambda n, of: watch("traces" if target else "responses", n / max(1, of)),
        )
    if as_json:
        print_json(made.metrics)
    else:
        show(acceptance_table(made.metrics))
    if made.owed:
        typer.echo(
            f"error: {made.owed} responses are owed ({made.why}); run it again to go on", err=True
        )
        raise typer.Exit(1)
    if target is not None and made.metrics["traces"] and made.metrics["solved"] < target:
        typer.echo(f"note: {made.metrics['solved']} of {target} puzzles solved", err=True)
    if not as_json:
        typer.echo(f"traces in {out / TRACES}")


def _options(given: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are YAML, as in recipes."""
    options = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UseError(f"--option {pair!r} must look like base_url=http://localhost:8000/v1")
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UseError(f"--option {pair!r} is no YAML: {error}") from error
    return options
