"""The verb `export` of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cello1.cli.options import Out
from cello1.errors import UseError

Kind = Literal["gguf", "hub", "lm-eval", "openai-batch", "trl"]
DType = Literal["float32", "bfloat16", "float16"]


def export(
    kind: Annotated[Kind, typer.Argument(help="Tool or format to export for.")],
    source: Annotated[
        Path,
        typer.Argument(help="Puzzles; for gguf a model (mini, folder, hub name), for hub either."),
    ],
    out: Out,
    split: Annotated[
        str, typer.Option(help="Which split of a folder; hub takes all of them.")
    ] = "test",
    repo: Annotated[str | None, typer.Option(help="hub: owner/name of the repository.")] = None,
    licence: Annotated[str, typer.Option(help="hub: licence of the puzzles.")] = "cc-by-4.0",
    runs: Annotated[
        list[Path] | None,
        typer.Option("--run", help="hub: evaluated run of the model, for its card. Repeatable."),
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="hub: upload it, after asking.")] = False,
    model: Annotated[
        str | None, typer.Option(help="openai-batch: name of the model that is asked.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="lm-eval, openai-batch: most tokens of a response.", min=1)
    ] = 3_500,
    opened: Annotated[
        bool, typer.Option("--opened", help="lm-eval: the model's template ends in <think>.")
    ] = False,
    dtype: Annotated[
        DType | None, typer.Option(help="gguf: type of the weights; by default that of the model.")
    ] = None,
) -> None:
    """Export puzzles or a model in the form that other tools read."""
    if kind == "gguf":
        from cello1.interop.gguf import export_gguf

        size = export_gguf(source, out, dtype=dtype)
        typer.echo(f"{size:,} parameters in {out}; next: llama-server --model {out}")
        return
    if kind == "hub":
        if repo is None:
            raise UseError("a repository needs its name: --repo owner/name")
        _hub(source, out, repo, licence, runs or [])
        if push:
            _push(source, out, repo)
        return
    from cello1.puzzles.source import find_puzzles
    from cello1.puzzles.table import read_puzzles

    puzzles = read_puzzles(find_puzzles(source, split=split))
    if kind == "lm-eval":
        from cello1.interop.lm_eval import TASK, export_lm_eval

        export_lm_eval(puzzles, out, max_new_tokens=max_new_tokens, opened=opened)
        then = f"lm_eval --include_path {out} --tasks {TASK} --apply_chat_template --model hf ..."
    elif kind == "openai-batch":
        from cello1.interop.openai_batch import export_openai_batch

        if model is None:
            raise UseError("a batch file names the model that is asked: --model NAME")
        export_openai_batch(puzzles, out, model=model, max_new_tokens=max_new_tokens)
        then = f"cello1 solve {source} --from-batch ANSWERS.jsonl --out runs/batch"
    else:
        from cello1.interop.trl import export_trl

        export_trl(puzzles, out)
        then = "trl grpo --reward_funcs cello1.interop.trl.batch --dataset_name ..."
    typer.echo(f"{len(puzzles)} puzzles in {out}; next: {then}")


def _hub(source: Path, out: Path, repo: str, licence: str, runs: list[Path]) -> None:
    from cello1.interop.hub import export_model, export_puzzles, metrics_of
    from cello1.puzzles.source import find_splits
    from cello1.puzzles.table import read_puzzles

    if (source / "config.json").is_file():
        export_model(source, out, repo=repo, results=metrics_of(runs))
        typer.echo(f"model repository {repo} in {out}")
        return
    splits = {name: read_puzzles(path) for name, path in find_splits(source).items()}
    today = datetime.now(UTC).date().isoformat()
    findings = export_puzzles(splits, out, repo=repo, licence=licence, published=today)
    sizes = ", ".join(f"{name} {len(puzzles):,}" for name, puzzles in splits.items())
    typer.echo(f"data set repository {repo} in {out}: {sizes}; leaks: {findings.leaks}")


def _push(source: Path, out: Path, repo: str) -> None:
    from cello1.interop.hub import push

    kind = "model" if (source / "config.json").is_file() else "dataset"
    if not typer.confirm(f"Upload {out} to {repo} on the Hugging Face hub, for others to see?"):
        raise typer.Exit(1)
    typer.echo(push(out, repo, kind))
