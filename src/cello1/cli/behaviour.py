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

Judge = Annotated[str | None, typer.Option(help="openai:MODEL that judges.")]
BaseUrl = Annotated[str | None, typer.Option(help="Server of the judge, up to /v1.")]
_JUDGE_TOKENS = 2_000


def behaviour(
    settings: BehaviourSettings,
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or files of traces; the first is compared.")
    ] = None,
    puzzles: Puzzles = None,
    check: Annotated[
        Path | None, typer.Option(help="Labelled responses: print how right each detector is.")
    ] = None,
    judge: Judge = None,
    base_url: BaseUrl = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Replies of the judge.")] = None,
    as_json: AsJson = False,
) -> None:
    """Study how runs reason: reflection, order, elimination, comparison, kinds of error."""
    if (not runs) == (check is None):
        raise UseError("name runs to study, or labelled responses with --check; not both")
    if (judge is None) != (out is None):
        raise UseError("a judge needs --judge openai:MODEL and --out for its replies")
    chosen = None if judge is None else make_judge(judge, base_url)
    if check is not None:
        _check(check, chosen, out, as_json)
        return
    from cello1.behaviour import judged as behaviour_judged
    from cello1.behaviour import measures as reasoning
    from cello1.behaviour.table import behaviour_table
    from cello1.runs import run_names, write_json
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import show

    summaries, measured, judged, seed = {}, {}, {}, settings.seed
    for name, run in zip(run_names(runs or []), runs or [], strict=True):
        measured[name], malformed = reasoning.measure(reasoning.read_responses(run, puzzles))
        summaries[name] = reasoning.summarize(measured[name], malformed, seed=seed)
        if run.is_dir():
            write_json(run / "behaviour.json", asdict(summaries[name]))
        if chosen is not None and out is not None:
            with watching() as watch:
                judged[name] = behaviour_judged.judged_errors(
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
        show(behaviour_judged.judged_table(judged))


def _check(path: Path, judge: EndpointSolver | None, out: Path | None, as_json: bool) -> None:
    """Print how right the detectors are, and a judge's agreement with the same labels."""
    from cello1.behaviour import check as behaviour_check
    from cello1.behaviour import judged as behaviour_judged

    labelled = behaviour_check.read_labels(path)
    parts: dict[str, list[behaviour_check.Labelled]] = {}
    for item in labelled:
        parts.setdefault(item.labels["part"], []).append(item)
    agreement = None
    if judge is not None and out is not None:
        agreement = behaviour_judged.judge_agreement(labelled, judge, out, inputs=[path])
    if as_json:
        found = {part: behaviour_check.check(items) for part, items in parts.items()}
        print_json(
            {
                "detectors": {p: {n: asdict(a) for n, a in f.items()} for p, f in found.items()},
                "judge": None if agreement is None else asdict(agreement),
            }
        )
        return
    typer.echo(behaviour_check.markdown(parts))
    if agreement is not None:
        typer.echo(
            f"\njudge and labels agree on {agreement.alike:.2f} of {agreement.cells} wrong cells "
            f"(Cohen's kappa {agreement.kappa:.2f}); {agreement.unread} not judged"
        )


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
