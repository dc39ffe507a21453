"""The verb `rate` of the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cello1.cli.behaviour import BaseUrl, Judge, make_judge, responses_file
from cello1.cli.options import AsJson, Out, Puzzles, print_json
from cello1.errors import UseError
from cello1.recipes import RateSettings

if TYPE_CHECKING:
    from cello1.puzzles.puzzle import Puzzle


def rate(
    settings: RateSettings,
    first: Annotated[Path, typer.Argument(help="Run folder.")],
    second: Annotated[Path, typer.Argument(help="Run to compare it with, on the same puzzles.")],
    out: Out,
    choices: Annotated[
        list[Path] | None,
        typer.Option(help="Choices that a rater exported, to be counted; repeatable."),
    ] = None,
    judge: Judge = None,
    base_url: BaseUrl = None,
    puzzles: Puzzles = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs blindly: by a page for human raters, or by a judge that sees both orders."""
    if choices and judge:
        raise UseError("count the choices of people, or ask a judge; not both at once")
    from cello1.behaviour import preference, rating
    from cello1.behaviour.measures import read_responses
    from cello1.behaviour.show import preference_table
    from cello1.runs import run_names
    from cello1.terminal.progress import watching
    from cello1.terminal.tables import show

    most, seed = settings.most, settings.seed
    texts = {}
    asked: list[Puzzle] = []
    for name, run in zip(run_names([first, second]), (first, second), strict=True):
        responses = read_responses(run, puzzles)
        asked = list({p.id: p for p, _ in responses}.values())
        texts[name] = {p.id: str(record["text"]) for p, record in responses}
    one, other = texts
    shared = rating.common_puzzles(asked, texts[one], texts[other], most=most, seed=seed)
    if choices:
        (one, other), found = rating.count_choices(out, asked, choices, seed=seed)
        by = f"{len(choices)} rater{'s' if len(choices) > 1 else ''}"
    elif judge:
        from cello1.behaviour.judge import ask_judge

        prompts = preference.paired_prompts(shared, texts[one], texts[other])
        inputs = [responses_file(first), responses_file(second)]
        with watching() as watch:
            replies = ask_judge(
                make_judge(judge, base_url), prompts, out, inputs=inputs,
                watch=lambda n, of: watch("judge", n / max(1, of)),
            )  # fmt: skip
        found, by = preference.judged_preference(shared, replies, seed=seed), judge
    else:
        page = rating.write_page(out, shared, texts, seed=seed)
        typer.echo(
            f"{len(shared)} puzzles on {page}; keep {rating.KEY} from the raters; next: "
            f"cello1 rate {first} {second} --out {out} --choices choices-NAME.json"
        )
        return
    if as_json:
        print_json({"first": one, "second": other, "by": by, **asdict(found)})
        return
    show(preference_table(one, other, by, found))
