"""The verb `behaviour` of the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cello1.cli.options import AsJson, Puzzles, print_json
from cello1.errors import UseError
from cello1.recipes import BehaviourSettings

if TYPE_CHECKING:
    from cello1.solvers.endpoint.solver import EndpointSolver

Judge = Annotated[str | None, typer.Option(help="openai:MODEL to use as a judge.")]
BaseUrl = Annotated[str | None, typer.Option(help="Server of the judge, up to /v1.")]
_JUDGE_TOKENS = 2_000


def behaviour(
    settings: BehaviourSettings,
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, or files of traces; the others are compared with the first."),
    ],
    puzzles: Puzzles = None,
    judge: Judge = None,
    base_url: BaseUrl = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the replies of the judge.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Study how runs reason: reflection, order, elimination, comparison, kinds of error."""
    if (judge is None) != (out is None):
        raise UseError("a judge needs --judge openai:MODEL and --out for its replies")
    chosen = None if judge is None else make_judge(judge, base_url)
    from cello1.behaviour import judge as judging
    from cello1.behaviour import measures as reasoning
    from cello1.behaviour.show import behaviour_table, judged_table
    from cello1.runs import run_names, write_json
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import show

    summaries, measured, judged, seed = {}, {}, {}, settings.seed
    for name, run in zip(run_names(runs), runs, strict=True):
        measured[name], malformed = reasoning.measure(reasoning.read_responses(run, puzzles))
        summaries[name] = reasoning.summarize(measured[name], malformed, seed=seed)
        if run.is_dir():
            write_json(run / "behaviour.json", asdict(summaries[name]))
        if chosen is not None and out is not None:
            with watching() as watch:
                judged[name] = judging.judged_errors(
                    measured[name], chosen, out / name, inputs=[responses_file(run)],
                    watch=lambda n, of: watch("judge", n / max(1, of)), seed=seed,
                )  # fmt: skip
    first, *others = measured
    deltas = {
        f"{first} - {name}": reasoning.differences(measured[first], measured[name], seed=seed)
        for name in others
    }
    if as_json:
        print_json(
            {
                "runs": {name: asdict(s) for name, s in summaries.items()},
                "differences": {n: {m: asdict(i) for m, i in d.items()} for n, d in deltas.items()},
                "judged": {name: asdict(j) for name, j in judged.items()},
            }
        )
        return
    show(behaviour_table(summaries, deltas))
    if judged:
        show(judged_table(judged))


def make_judge(name: str, base_url: str | None) -> EndpointSolver:
    """Return the judge that an option names."""
    kind, _, model = name.partition(":")
    if kind != "openai" or not model:
        raise UseError(f"no judge {name!r}; expected openai:MODEL, with --base-url for a server")
    from cello1.solvers.endpoint.solver import EndpointSolver

    return EndpointSolver(model, base_url=base_url, max_new_tokens=_JUDGE_TOKENS)


def responses_file(run: Path) -> Path:
    """Return the file in which the responses of a run are, for the record of what was judged."""
    inside = [run / "reasoning.parquet", run / "responses.jsonl"]
    return next((path for path in inside if path.exists()), run)
