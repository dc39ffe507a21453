"""The verb `knowledge` of the command line."""

from __future__ import annotations

import json

from cello1.cli.options import AsJson, Out, print_json
from cello1.recipes import KnowledgeSettings


def knowledge(out: Out, settings: KnowledgeSettings, as_json: AsJson = False) -> None:
    """Write questions and answers from the atlas, for a model to learn before it reasons."""
    import typer

    from cello1.terminal.progress import watching
    from cello1.training.knowledge.knowledge import MANIFEST
    from cello1.training.knowledge.knowledge import knowledge as run_knowledge

    with watching() as watch:
        made = run_knowledge(out, settings, watch=lambda n, of: watch("questions", n / of))
    told = json.loads((out / MANIFEST).read_text("utf-8"))
    if as_json:
        print_json(told)
        return
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in told["kinds"].items())
    typer.echo(f"{told['questions']:,} questions on {len(told['types'])} types ({kinds})")
    if told["left_out"]:
        typer.echo(f"left out: {', '.join(told['left_out'])}")
    typer.echo(f"questions in {made}; next: cello1 sft RECIPE knowledge={made} --out RUN")
