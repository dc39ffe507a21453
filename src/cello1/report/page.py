"""The report: one HTML page that holds all it needs, opens from disk and asks no network.

All that came from data or a model reaches the page as text: through templates that escape, through
figures whose text is escaped, or as compressed data that a script turns into text nodes. The page
carries a content security policy that allows its own script and style and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cello1.errors import InputError, UseError
from cello1.pages.style import Plot, inline_svg
from cello1.pages.templating import pack, page_of
from cello1.recipes import ReportSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.report import figures
from cello1.report.browser import asked, browser_data, sample
from cello1.report.confusion import confusion, ontology_order, type_accuracy
from cello1.report.gather import Gathered, SolvedRun, gather
from cello1.report.published import PUBLISHED, PUZZLES
from cello1.runs import write_atomic
from cello1.scoring.evaluate import compare
from cello1.scoring.statistics import Interval, Paired

MOST_BYTES = 15_000_000
BREAKDOWNS = {"tissue": "Tissue", "disease": "Disease", "dataset": "Data set"}
Prices = Mapping[str, tuple[float, float]]


@takes(ReportSettings)
def report(
    runs: Sequence[Path],
    out: Path,
    settings: ReportSettings | None = None,
    *,
    puzzles: Path | None = None,
    figures_to: Path | None = None,
    prices: Prices | None = None,
    **changes: Any,
) -> Path:
    """Write the report of some runs.

    Parameters
    ----------
    runs
        Folders of `solve`, which are compared, and of `base`, `sft` or `rl`, whose training is
        shown. The first solved run is the one the others are compared with.
    out
        The page.
    puzzles
        Where the puzzles are now, if they were moved.
    figures_to
        A folder for the figures as SVG and PNG files.
    prices
        Run -> USD per million prompt and completion tokens.
    settings, **changes
        :class:`cello1.recipes.ReportSettings`, or its fields by keyword. However few puzzles can
        be browsed, all figures are of all puzzles.

    Raises
    ------
    InputError
        When a run cannot be read.
    UseError
        When a price is given for a run that is not there.
    """
    asked_for = resolve(ReportSettings, settings, changes)
    found = gather(runs, puzzles, seed=asked_for.seed)
    names = [run.name for run in found.solved]
    if odd := sorted(set(prices or {}) - set(names)):
        raise UseError(f"a price is given for {odd[0]!r}; the runs are {', '.join(names)}")
    write_atomic(out, render(found, prices or {}, asked_for.most_puzzles, asked_for.seed).encode())
    if figures_to is not None:
        figures.write_figures(_all_plots(found), figures_to)
    return out


def render(found: Gathered, prices: Prices, most_puzzles: int, seed: int) -> str:
    """Return the page; fewer puzzles are shown if it would grow beyond `MOST_BYTES`."""
    values = _values(found, prices, seed)
    every = asked(found.solved)
    most = most_puzzles
    while True:
        shown = sample(every, most, seed)
        data = pack(browser_data(found.solved, shown)) if shown else ""
        page = page_of("report", **values, data=data, n_shown=len(shown))
        if len(page.encode()) <= MOST_BYTES or len(shown) <= 1:
            return page
        spare = len(page.encode()) - len(data)
        most = max(1, int(0.95 * len(shown) * (MOST_BYTES - spare) / len(data)))


def _values(found: Gathered, prices: Prices, seed: int) -> dict[str, Any]:
    """Compute all that the template shows besides the puzzles."""
    solved, logs = found.solved, found.logs
    answered = [run for run in solved if run.evaluation is not None]
    notes = sorted({n for run in answered if run.evaluation for n in run.evaluation.notes})
    order = ontology_order(label for p in asked(solved) for label in p.candidates)
    names = [*(run.name for run in solved), *(log.name for log in logs)]
    return {
        "solved": solved,
        "answered": answered,
        "logs": logs,
        "numbers": {name: i for i, name in enumerate(names)},
        "headline": _headline(answered),
        "n_puzzles": len(asked(solved)),
        "donors": sorted({str(p.meta["donor_id"]) for p in asked(solved) if "donor_id" in p.meta}),
        "paired": _paired(answered, seed),
        "published": PUBLISHED,
        "n_published": PUZZLES,
        "sizes": _drawn([figures.by_size(solved, "batch_accuracy"),
                         figures.by_size(solved, "cell_accuracy")]),
        "by_size": _falls(answered),
        "breakdowns": _breakdowns(answered),
        "types": [(t, [type_accuracy(run, t, seed) for run in answered]) for t in order],
        "confusions": [(run, confusion(run, order)) for run in answered],
        "confidence": _drawn([figures.reliability_plot(solved), figures.coverage_plot(solved)]),
        "lengths": _drawn(figures.length_plots(solved)),
        "dynamics": _drawn(figures.dynamics_plots(logs, len(solved))),
        "costs": {run.name: _cost(run, prices) for run in solved},
        "notes": notes,
        "version": metadata.version("cello1"),
    }  # fmt: skip


def _headline(answered: Sequence[SolvedRun]) -> SolvedRun | None:
    """Return the run with most batches right."""
    return max(
        answered,
        key=lambda r: r.evaluation.overall.batch_accuracy.estimate if r.evaluation else 0.0,
        default=None,
    )


def _paired(
    answered: Sequence[SolvedRun], seed: int
) -> list[tuple[str, str, dict[str, Paired] | None, int]]:
    """Compare the first run with each other one; None where they share no puzzle."""
    rows: list[tuple[str, str, dict[str, Paired] | None, int]] = []
    for other in answered[1:]:
        first = answered[0]
        try:
            measured, n = compare(first.scored, other.scored, seed=seed)
        except InputError:
            rows.append((first.name, other.name, None, 0))
        else:
            rows.append((first.name, other.name, measured, n))
    return rows


def _falls(answered: Sequence[SolvedRun]) -> list[tuple[str, str, Interval, str, Interval]]:
    """Return (run, smallest N, accuracy there, largest N, accuracy there)."""
    rows = []
    for run in answered:
        groups = run.evaluation.by["n_cells"] if run.evaluation else {}
        if len(groups) > 1:
            small, large = next(iter(groups)), next(reversed(groups))
            ends = groups[small].batch_accuracy, groups[large].batch_accuracy
            rows.append((run.name, small, ends[0], large, ends[1]))
    return rows


def _breakdowns(
    answered: Sequence[SolvedRun],
) -> list[tuple[str, list[tuple[str, list[Interval | None]]]]]:
    """Return (kind, [(group, batch accuracy of every run)]), for kinds with several groups."""
    tables = []
    for kind, title in BREAKDOWNS.items():
        groups = [r.evaluation.by.get(kind, {}) if r.evaluation else {} for r in answered]
        values = sorted({value for group in groups for value in group})
        if len(values) > 1:
            rows = [(v, [g[v].batch_accuracy if v in g else None for g in groups]) for v in values]
            tables.append((title, rows))
    return tables


def _cost(run: SolvedRun, prices: Prices) -> float | None:
    """Return USD, or None where no price was given or tokens were not counted."""
    prompt, completion = run.tokens("prompt_tokens"), run.tokens("completion_tokens")
    if run.name not in prices or prompt is None or completion is None:
        return None
    price_in, price_out = prices[run.name]
    return (prompt * price_in + completion * price_out) / 1e6


def _drawn(plots: Sequence[Plot | None]) -> list[tuple[Plot, Markup]]:
    # Markup is safe here: matplotlib escaped every text it wrote.
    return [(plot, Markup(inline_svg(plot))) for plot in plots if plot is not None]


def _all_plots(found: Gathered) -> list[Plot]:
    solved = found.solved
    order = ontology_order(label for p in asked(solved) for label in p.candidates)
    plots = [
        figures.by_size(solved, "batch_accuracy"),
        figures.by_size(solved, "cell_accuracy"),
        figures.reliability_plot(solved),
        figures.coverage_plot(solved),
        *figures.length_plots(solved),
        *(figures.confusion_plot(run, order) for run in solved if run.scored),
        *figures.dynamics_plots(found.logs, len(solved)),
    ]
    return [plot for plot in plots if plot is not None]
