"""The report: one self-contained HTML page that opens from disk and makes no network request.

Everything from data or a model reaches the page as text: through templates that escape, through
figures whose text is escaped, or as compressed data that a script turns into text nodes. The page
has a content security policy that allows its own script and style and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from cello1.errors import InputError, UseError
from cello1.pages.style import Plot, inline_svg
from cello1.pages.templating import pack, page_of
from cello1.recipes import ReportSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.report import figures
from cello1.report.browser import asked, browser_data, draw_puzzles
from cello1.report.confusion import confusion, ontology_order, type_accuracy
from cello1.report.gather import Gathered, SolvedRun, gather
from cello1.runs import write_atomic
from cello1.scoring.evaluate import compare
from cello1.scoring.statistics import Interval, Paired

MOST_BYTES = 15_000_000
BREAKDOWNS = {"tissue": "Tissue", "disease": "Disease", "dataset": "Data set"}
Prices = Mapping[str, tuple[float, float]]


class Published(NamedTuple):
    """One model of arXiv 2506.02911 on the test split of CellPuzzles.

    Different puzzles and cells than ours, so never in one table with them. Mean response length
    in tokens; the rest are fractions.
    """

    model: str
    length: float
    cell: float
    batch: float
    format: float
    unique: float


# Puzzles of 8 to 15 cells, about 10 on average.
N_PUBLISHED = 1_095
PUBLISHED = (
    Published("Cell-o1", 1145.6, 0.6849, 0.3288, 0.9826, 0.9824),
    Published("Llama3.1-8B tuned on answers", 71.9, 0.6411, 0.2969, 0.9078, 0.9071),
    Published("Qwen2.5-7B tuned on answers", 70.9, 0.6179, 0.2475, 0.9443, 0.9404),
    Published("o1", 906.6, 0.6479, 0.1900, 1.0, 0.9997),
    Published("o3-mini", 1130.2, 0.5804, 0.1352, 1.0, 1.0),
    Published("GPT-4o", 1087.0, 0.4248, 0.0283, 0.9817, 0.8179),
    Published("Llama3.3-70B-Instruct", 1006.8, 0.2573, 0.0064, 0.9973, 0.8321),
    Published("GPT-4o-mini", 779.9, 0.2581, 0.0027, 0.9918, 0.6565),
    Published("Qwen2.5-7B-Instruct", 879.8, 0.1353, 0.0, 0.9425, 0.4528),
    Published("Llama3.1-8B-Instruct", 2264.9, 0.0050, 0.0, 0.0393, 0.0190),
)


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
        :class:`cello1.recipes.ReportSettings`, or its fields by keyword. Figures are always
        of all puzzles, however few can be browsed.

    Raises
    ------
    InputError
        When a run cannot be read.
    UseError
        When a price is given for an unknown run.
    """
    asked_for = resolve(ReportSettings, settings, changes)
    found = gather(runs, puzzles, seed=asked_for.seed)
    names = [run.name for run in found.solved]
    if unknown := sorted(set(prices or {}) - set(names)):
        raise UseError(f"a price is given for {unknown[0]!r}; the runs are {', '.join(names)}")
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
        shown = draw_puzzles(every, most, seed)
        data = pack(browser_data(found.solved, shown)) if shown else ""
        page = page_of("report", **values, data=data, n_shown=len(shown))
        if len(page.encode()) <= MOST_BYTES or len(shown) <= 1:
            return page
        spare = len(page.encode()) - len(data)
        most = max(1, int(0.95 * len(shown) * (MOST_BYTES - spare) / len(data)))


def _values(found: Gathered, prices: Prices, seed: int) -> dict[str, Any]:
    """Return everything the template shows, except the puzzles."""
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
        "n_published": N_PUBLISHED,
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
