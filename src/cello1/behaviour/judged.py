"""Error types by a judge, and how far judge and rules agree with a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cello1.behaviour.check import Labelled
from cello1.behaviour.errors import ERRORS
from cello1.behaviour.judge import ask_judge, error_prompt, read_errors
from cello1.behaviour.measures import Measured
from cello1.puzzles.prompt import response_text
from cello1.scoring.evaluate import donors_of
from cello1.scoring.statistics import Interval, clustered_interval
from cello1.solvers.endpoint.solver import EndpointSolver
from cello1.terminal.tables import interval


@dataclass(frozen=True, slots=True)
class JudgedErrors:
    """The error types a judge gives the wrong cells of a run.

    Attributes
    ----------
    shares
        Error type -> share of the judged cells.
    cells, unread
        Wrong cells that were judged, and those about which the judge said nothing usable.
    agreement
        Rules against judge on the judged cells.
    """

    shares: dict[str, Interval]
    cells: int
    unread: int
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sources of error types agree.

    Attributes
    ----------
    alike
        Share of cells to which both give the same type.
    kappa
        Cohen's kappa; nan when each gives one and the same type throughout.
    cells, unread
        Cells compared, and cells that one of the two says nothing of.
    """

    alike: float
    kappa: float
    cells: int
    unread: int


def agree(pairs: Sequence[tuple[str, str]], unread: int = 0) -> Agreement:
    """Compare pairs of error types."""
    n = len(pairs)
    if not n:
        return Agreement(float("nan"), float("nan"), 0, unread)
    alike = sum(a == b for a, b in pairs) / n
    one, other = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    expected = sum(one[kind] * other[kind] for kind in one) / n**2
    kappa = (alike - expected) / (1 - expected) if expected < 1 else float("nan")
    return Agreement(alike, kappa, n, unread)


def judged_errors(
    measured: Sequence[Measured],
    judge: EndpointSolver,
    out: Path,
    *,
    inputs: Sequence[Path],
    watch: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> JudgedErrors:
    """Let a judge say why the wrong cells of a run are wrong.

    Parameters
    ----------
    measured
        The responses of the run, with the error types the rules give.
    judge, out, inputs, watch
        As in :func:`cello1.behaviour.judge.ask_judge`.
    seed
        Of the intervals, which resample donors.
    """
    wrong = [m for m in measured if m.errors]
    # A puzzle can recur among traces, so its place is part of the key.
    keys = [f"{m.puzzle.id}:{place}" for place, m in enumerate(wrong)]
    prompts = [
        error_prompt(
            key,
            m.puzzle,
            response_text(m.answer.reasoning, m.answer.labels),
            sorted(m.errors),
        )
        for key, m in zip(keys, wrong, strict=True)
    ]
    replies = ask_judge(judge, prompts, out, inputs=inputs, watch=watch)
    said = [read_errors(replies.get(key, ""), m.errors) for key, m in zip(keys, wrong, strict=True)]
    read = [(m, kinds) for m, kinds in zip(wrong, said, strict=True) if kinds]
    pairs = [(m.errors[cell], kind) for m, kinds in read for cell, kind in sorted(kinds.items())]
    unread = sum(len(m.errors) for m in wrong) - len(pairs)
    shares = {
        name: clustered_interval(
            [list(kinds.values()).count(name) / len(kinds) for _, kinds in read],
            donors_of([m.puzzle for m, _ in read]),
            weights=[len(kinds) for _, kinds in read],
            seed=seed,
        )
        for name in ERRORS
    }
    return JudgedErrors(shares, len(pairs), unread, agree(pairs, unread))


def judge_agreement(
    labelled: Sequence[Labelled], judge: EndpointSolver, out: Path, *, inputs: Sequence[Path]
) -> Agreement:
    """Compare a judge with the error types a person gave."""
    wrong = [item for item in labelled if item.labels["errors"]]
    prompts = [
        error_prompt(
            str(item.labels["id"]),
            item.puzzle,
            response_text(item.answer.reasoning, item.answer.labels),
            sorted(map(int, item.labels["errors"])),
        )
        for item in wrong
    ]
    replies = ask_judge(judge, prompts, out, inputs=inputs)
    pairs, unread = [], 0
    for item in wrong:
        true = {int(cell): kind for cell, kind in item.labels["errors"].items()}
        said = read_errors(replies.get(str(item.labels["id"]), ""), true)
        pairs += [(true[cell], kind) for cell, kind in said.items()]
        unread += len(true) - len(said)
    return agree(pairs, unread)


def judged_table(runs: Mapping[str, JudgedErrors]) -> RenderableType:
    """Show the judge's error types, run by run."""
    table = Table(title="error types by the judge", title_justify="left")
    table.add_column("share of judged cells")
    for name in runs:
        table.add_column(escape(name), justify="right")
    for error in ERRORS:
        shares = [run.shares[error] for run in runs.values()]
        table.add_row(error, *("-" if not s.n else interval(s) for s in shares))
    notes = [
        Text(
            f"{name}: {r.cells} cells judged, {r.unread} not; rules and judge agree on "
            f"{r.agreement.alike:.2f} (kappa {r.agreement.kappa:.2f})",
            style="dim",
        )
        for name, r in runs.items()
    ]
    return Group(table, *notes)
