"""The figures of a report, drawn by matplotlib: for the page, and as files for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cello1.pages.style import INK, MUTED, RULE, SIZE, Plot, colour, figure_file, marker
from cello1.report.confusion import NO_LABEL, confusion
from cello1.report.dynamics import PANELS, Panel, TrainingLog
from cello1.report.gather import SolvedRun
from cello1.runs import write_atomic
from cello1.scoring.evaluate import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Accuracy = Literal["batch_accuracy", "cell_accuracy"]
_DODGE = 0.08  # of one step of N, so that intervals of runs do not overlap
_LENGTH_BINS = 30


def by_size(runs: Sequence[SolvedRun], which: Accuracy) -> Plot | None:
    """Plot accuracy against the number of cells; None when all puzzles are of one size."""
    drawn: dict[int, Mapping[str, Metrics]] = {}
    for i, run in enumerate(runs):
        if run.evaluation is not None and len(run.evaluation.by["n_cells"]) > 1:
            drawn[i] = run.evaluation.by["n_cells"]
    if not drawn:
        return None
    what = "Batches fully right" if which == "batch_accuracy" else "Cells right"

    def draw(axes: Axes) -> None:
        chance: dict[int, float] = {}
        for place, (i, groups) in enumerate(drawn.items()):
            shift = _DODGE * (place - (len(drawn) - 1) / 2)
            n = np.array(sorted(int(size) for size in groups))
            values = [getattr(groups[str(size)], which) for size in n]
            axes.vlines(n + shift, [v.low for v in values], [v.high for v in values],
                        color=colour(i), alpha=0.45, linewidth=1.6)  # fmt: skip
            axes.plot(n + shift, [v.estimate for v in values], color=colour(i), marker=marker(i))
            field = "chance_batch" if which == "batch_accuracy" else "chance_cell"
            chance |= {int(size): getattr(groups[str(size)], field) for size in n}
        sizes = sorted(chance)
        axes.plot(sizes, [chance[n] for n in sizes], color=MUTED, linestyle=(0, (2, 2)), lw=1.4)
        if chance[sizes[-1]] > 0.02:  # else it is the axis itself
            axes.annotate("chance", (sizes[-1], chance[sizes[-1]]), (0, 5), ha="right", color=MUTED,
                          textcoords="offset points", fontsize=10)  # fmt: skip
        axes.set_xticks(sizes if len(sizes) < 12 else sizes[:: len(sizes) // 8])
        axes.set_xlabel("cells in the puzzle, N")
        _shares(axes)

    said = "; ".join(
        f"{runs[i].name}: "
        + ", ".join(f"{100 * getattr(g[n], which).estimate:.0f} % at N = {n}" for n in g)
        for i, g in drawn.items()
    )
    names = {i: runs[i].name for i in drawn}
    key = "batch-by-n" if which == "batch_accuracy" else "cell-by-n"
    return Plot(key, f"{what}, by the number of cells", said, draw, names)


def reliability_plot(runs: Sequence[SolvedRun]) -> Plot | None:
    """Plot accuracy against confidence; None without confidences."""
    found = {i: run.calibration["cell"] for i, run in enumerate(runs) if run.calibration}
    if not found:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (2, 2)), lw=1.4)
        for i, cell in found.items():
            x = [b.confidence for b in cell.bins]
            low, high = zip(*((b.accuracy_low, b.accuracy_high) for b in cell.bins), strict=True)
            axes.vlines(x, low, high, color=colour(i), alpha=0.35, linewidth=1.6)
            axes.plot(x, [b.accuracy for b in cell.bins], color=colour(i), marker=marker(i), lw=1.4)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("confidence of the label")
        _shares(axes, x=True)

    said = "; ".join(
        f"{runs[i].name}: mean confidence {c.mean_confidence:.2f}, {c.accuracy:.2f} right, "
        f"calibration error {c.ece.estimate:.3f}"
        for i, c in found.items()
    )
    names = {i: runs[i].name for i in found}
    return Plot("reliability", "Labels right, by confidence", said, draw, names)


def coverage_plot(runs: Sequence[SolvedRun]) -> Plot | None:
    """Plot the accuracy of the most confident labels; None without confidences."""
    found = {i: run.calibration["cell"] for i, run in enumerate(runs) if run.calibration}
    if not found:
        return None

    def draw(axes: Axes) -> None:
        for i, cell in found.items():
            share, accuracy = zip(*cell.coverage, strict=True)
            axes.plot(share, accuracy, color=colour(i), marker=marker(i), markevery=(i % 4, 4))
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("surest labels kept")
        _shares(axes, x=True)

    said = "; ".join(
        f"{runs[i].name}: {100 * dict(c.coverage)[0.5]:.0f} % right in the surest half, "
        f"{100 * c.accuracy:.0f} % in all"
        for i, c in found.items()
    )
    names = {i: runs[i].name for i in found}
    return Plot("coverage", "Labels right among the surest", said, draw, names)


def length_plots(runs: Sequence[SolvedRun]) -> list[Plot]:
    """Plot the lengths of responses, in tokens if the solver counted them, else in words."""
    units: dict[str, dict[int, SolvedRun]] = {}
    for i, run in enumerate(runs):
        if run.evaluation is not None:
            units.setdefault(run.evaluation.overall.length_unit, {})[i] = run
    return [_length_plot(unit, units[unit]) for unit in sorted(units)]


def _length_plot(unit: str, runs: Mapping[int, SolvedRun]) -> Plot:
    def draw(axes: Axes) -> None:
        longest = max(s.length for run in runs.values() for s in run.scored)
        edges = np.linspace(0, max(1, longest) * 1.02, _LENGTH_BINS + 1)
        for i, run in runs.items():
            counts, _ = np.histogram([s.length for s in run.scored], edges)
            shares = counts / counts.sum()
            axes.stairs(shares, edges, color=colour(i), fill=True, alpha=0.16)
            axes.stairs(shares, edges, color=colour(i), linewidth=1.6)
        axes.set_xlabel(f"length in {unit}")
        _shares(axes, top=None)

    said = "; ".join(
        f"{run.name}: {np.mean([s.length for s in run.scored]):.0f} {unit} on average"
        for run in runs.values()
    )
    names = {i: run.name for i, run in runs.items()}
    size = (SIZE[0], 2.6)
    return Plot(f"length-{unit}", f"Length of the responses in {unit}", said, draw, names, size)


def dynamics_plots(logs: Sequence[TrainingLog], first: int = 0) -> list[Plot]:
    """Plot training dynamics, one figure per measure, the runs overlaid.

    Parameters
    ----------
    logs
        Training runs.
    first
        Number of the first of them in the report, for its colour.
    """
    plots = []
    for panel in PANELS:
        drawn = {first + i: log for i, log in enumerate(logs) if panel.key in log.curves}
        if drawn:
            plots.append(_dynamics(panel, drawn))
    return plots


def _dynamics(panel: Panel, logs: Mapping[int, TrainingLog]) -> Plot:
    def draw(axes: Axes) -> None:
        for i, log in logs.items():
            curve = log.curves[panel.key]
            few = len(curve.steps) <= 30
            if not few:
                axes.plot(curve.steps, curve.values, color=colour(i), lw=0.7, alpha=0.22,
                          rasterized=len(curve.steps) > 20_000)  # fmt: skip
            axes.plot(curve.steps, curve.values if few else curve.smooth, color=colour(i),
                      marker=marker(i) if few else None)  # fmt: skip
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        if panel.share:
            _shares(axes)

    said = "; ".join(
        f"{log.name}: from {c.values[0]:.3g} at step {c.steps[0]:.0f} to {c.smooth[-1]:.3g} at "
        f"step {c.steps[-1]:.0f}"
        for log in logs.values()
        for c in (log.curves[panel.key],)
    )
    names = {i: log.name for i, log in logs.items()}
    return Plot(f"training-{panel.key}", panel.title, said, draw, names, (SIZE[0], 3.0))


def confusion_plot(run: SolvedRun, order: Sequence[str]) -> Plot:
    """Plot what each type was mistaken for, ordered by the Cell Ontology."""
    found = confusion(run, order)
    columns = [*found.types, NO_LABEL]
    side = 2.5 + 0.3 * len(columns)

    def draw(axes: Axes) -> None:
        shares = found.counts / np.maximum(1, found.counts.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=55, ha="right", fontsize=9)
        axes.set_yticks(range(len(found.types)), found.types, fontsize=9)
        axes.grid(visible=False)
        axes.set(xlabel="given", ylabel="true")
        for row, column in np.argwhere(shares >= 0.05):
            ink = "white" if shares[row, column] > 0.55 else INK
            text = f"{100 * shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)

    title = f"What each type was taken for (% of its cells): {run.name}"
    return Plot(f"confusion-{run.name}", title, title, draw, {}, (side + 2.5, side))


def write_figures(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG."""
    written = []
    for plot in plots:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in plot.key)
        for kind in ("svg", "png"):
            written.append(folder / f"{name}.{kind}")
            write_atomic(written[-1], figure_file(plot, kind))
    return written


def _shares(axes: Axes, *, x: bool = False, top: float | None = 1.02) -> None:
    """Format an axis as per cent, from 0."""
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(-0.012 if top else 0, top)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    if x:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.spines["bottom"].set_color(RULE)
