"""Results as tables for the terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable

from cello1.cells.audit import Audit
from cello1.cells.census import DataSet
from cello1.cells.doctor import Diagnosis
from cello1.cells.report import FileReport
from cello1.citations.evidence import CitedShare
from cello1.scoring.calibration import Calibration
from cello1.scoring.evaluate import Evaluation, Metrics
from cello1.scoring.statistics import Interval, Paired
from cello1.terminal.text import text

BREAKDOWN_TITLES = {"n_cells": "by N", "tissue": "by tissue", "disease": "by disease"}
_ACCEPTANCE_TITLES = {"n_cells": "N", "tissue": "tissue", "cell_type": "puzzles with"}
_PIPED_WIDTH = 160


class Table:
    """A table that shows texts literally and fits any terminal.

    If its figures do not fit side by side, every row becomes a block of lines, so that nothing is
    cut off.

    Parameters
    ----------
    columns
        Names of the columns; one that ends in `` >`` holds figures, which are right-aligned and
        never wrapped.
    title
        Over the table.
    """

    def __init__(self, *columns: object, title: str | None = None) -> None:
        self.columns = [str(column).removesuffix(" >") for column in columns]
        self.figures = [str(column).endswith(" >") for column in columns]
        self.title = title
        self.rows: list[tuple[object, ...] | None] = []

    def add_row(self, *cells: object) -> None:
        """Add a row; missing cells at its end stay empty."""
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draw a line under the rows so far."""
        self.rows.append(None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what Rich prints."""
        wide = self._wide()
        fits = Measurement.get(console, options.update(width=10_000), wide).minimum
        yield wide if fits <= options.max_width else self._narrow()

    def _wide(self) -> RichTable:
        table = RichTable(title=self.title and text(self.title), title_justify="left")
        for name, figures in zip(self.columns, self.figures, strict=True):
            table.add_column(
                text(name.replace(" (", "\n(") if figures else name),
                justify="right" if figures else "left",
                no_wrap=figures,
                overflow="fold",
                min_width=None if figures else min(12, max(map(len, [name, *self._column(name)]))),
            )
        for row in self.rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*map(text, row))
        return table

    def _column(self, name: str) -> list[str]:
        at = self.columns.index(name)
        return [str(row[at]) for row in self.rows if row is not None and len(row) > at]

    def _narrow(self) -> RichTable:
        """Write every row as lines of (column, cell)."""
        table = RichTable(title=self.title and text(self.title), title_justify="left")
        table.show_header = False
        table.add_column(ratio=2, overflow="fold")
        table.add_column(ratio=5, overflow="fold")
        for row in self.rows:
            table.add_section()
            for name, cell in zip(self.columns, row or (), strict=False):
                if str(cell):
                    table.add_row(text(name), text(cell))
        return table


def files_table(reports: Sequence[FileReport]) -> RenderableType:
    """Show the outcome of every file, and why cells were dropped."""
    table = Table(
        "data set", "cells >", "used >", "donors >", "values", "puzzles >", "what happened"
    )
    for r in reports:
        drops = "; ".join(f"{count:,} {rule}" for rule, count in r.drops.items())
        said = [r.message] if r.message else []
        said += [f"dropped: {drops}"] if drops else []
        if r.puzzles and r.shortfall:
            said.append(f"fewer puzzles than asked for at N = {_ranges(list(r.shortfall))}")
        if r.unknown_types:
            said.append(f"{len(r.unknown_types)} types not in the Cell Ontology")
        style = "red" if r.status == "failed" else "yellow" if r.status == "no puzzles" else ""
        values = f"{r.values} ({r.matrix})" if r.values else ""
        row = (r.dataset, f"{r.cells:,}", f"{r.used:,}", str(r.donors), values, f"{r.puzzles:,}")
        table.add_row(*row, text("\n".join(said), style))
    return table


def census_table(
    found: Sequence[DataSet], n_min: int, every: bool = False, most: int = 20
) -> list[RenderableType]:
    """Show the data sets that a query finds in the Census: the largest, or all."""
    table = Table("data set", "cells >", "donors >", "types >", "drawn >", f"{n_min}+ types >")
    shown = found if every else sorted(found, key=lambda data: (-data.cells, data.id))[:most]
    for data in shown:
        rich = sum(types >= n_min for types in data.donors.values())
        numbers = (data.cells, len(data.donors), data.types, len(data.drawn), rich)
        table.add_row(data.id, *(f"{number:,}" for number in numbers))
    parts: list[RenderableType] = [table]
    if len(shown) < len(found):
        parts.append(text(f"{len(found) - len(shown)} more: see them with --list-datasets"))
    drops = Counter[str]()
    for data in found:
        drops.update(data.drops)
    total = sum(data.cells for data in found)
    drawn = sum(len(data.drawn) for data in found)
    parts.append(text(f"{len(found)} data sets, {total:,} cells, {drawn:,} would be read"))
    if drops:
        left = "; ".join(f"{count:,} {rule}" for rule, count in sorted(drops.items()))
        parts.append(text(f"left out: {left}", "yellow"))
    rich = sum(types >= n_min for data in found for types in data.donors.values())
    said = f"{rich:,} donors have {n_min} types or more and can give puzzles"
    parts.append(text(said, "green" if rich else "red"))
    return parts


def audit_table(audit: Audit) -> RenderableType:
    """Show the findings of an audit, and its verdict."""
    parts: list[RenderableType] = []
    sizes = ", ".join(f"{name} {n:,}" for name, n in audit.sizes.items())
    by_n = ", ".join(f"{n}: {count:,}" for n, count in audit.n_histogram.items())
    common = list(audit.type_counts.items())
    table = Table("audit", "finding")
    table.add_row("puzzles", sizes)
    table.add_row("by number of cells", by_n)
    table.add_row(
        "cell types",
        f"{len(common)}; most frequent {_counts(common[:3])}; rarest {_counts(common[-3:])}",
    )
    for s in audit.shared:
        what = ", ".join(
            f"{'an unknown number of' if n is None else n} {kind}"
            for kind, n in (("donors", s.donors), ("cells", s.cells), ("gene lists", s.gene_lists))
        )
        line = f"{what}" + (
            f" (such as {s.example}; {s.tainted} puzzles touched)" if s.leaks else ""
        )
        table.add_row(f"{s.first} & {s.second} share", line)
    table.add_row("repeated puzzles", str(audit.duplicates))
    wrong = len(audit.gold_failures)
    table.add_row("gold answers that do not score 1", str(wrong))
    parts.append(table)
    parts += [text(f"note: {mark}", "yellow") for mark in audit.marks]
    if audit.leaks:
        parts.append(text(f"{audit.leaks} LEAK(S) between splits", "bold red"))
    elif audit.unknown:
        told = " and ".join(audit.unknown)
        parts.append(
            text(
                f"leaks unknown: the puzzles do not tell their {told}; no gene list is shared",
                "yellow",
            )
        )
    elif audit.passed and not audit.shared:
        parts.append(text("one split: nothing to leak to; every gold answer scores 1", "green"))
    elif audit.passed:
        parts.append(text("0 leaks; every gold answer scores 1", "green"))
    return Group(*parts)


def scores_table(evaluations: Mapping[str, Evaluation]) -> RenderableType:
    """Show runs side by side, each figure with its 95 % interval."""
    table = Table(
        "run", "puzzles >", "cell-level (macro) >", "micro >", "chance >", "batch-level >",
        "chance >", "format >", "unique >", "length >",
    )  # fmt: skip
    for name, evaluation in evaluations.items():
        table.add_row(name, *_metrics_row(evaluation.overall))
    parts: list[RenderableType] = [table]
    first = next(iter(evaluations.values())).overall
    units = _units(first.batch_accuracy, first.cell_accuracy)
    parts.append(text(f"intervals: 95 %, resampling {units}", "dim"))
    notes = sorted({note for e in evaluations.values() for note in e.notes})
    parts += [text(f"note: {note}", "yellow") for note in notes]
    for name, evaluation in evaluations.items():
        said = "; ".join(f"{n} x {kind}" for kind, n in evaluation.complaints.items())
        parts += [text(f"{name}: {said}", "dim")] if said else []
        parts += [text(line, "yellow") for line in _tolerant(name, evaluation)]
    return Group(*parts)


def breakdown_table(name: str, evaluation: Evaluation, by: str) -> RenderableType:
    """Show one run by N, tissue, disease or data set, with chance beside it."""
    table = Table(
        BREAKDOWN_TITLES.get(by, f"by {by}"),
        "puzzles >",
        "cell-level >",
        "chance >",
        "batch-level >",
        "chance >",
        title=name,
    )
    for value, m in evaluation.by[by].items():
        table.add_row(
            value, str(m.n), interval(m.cell_accuracy), f"{m.chance_cell:.3f}",
            interval(m.batch_accuracy), f"{m.chance_batch:.2g}",
        )  # fmt: skip
    return table


def paired_table(comparisons: Mapping[str, tuple[Mapping[str, Paired], int]]) -> RenderableType:
    """Show differences between runs over the puzzles both answered."""
    table = Table(
        "difference", "puzzles >", "cell-level >", "batch-level >", "only one exact", "McNemar p >"
    )
    for name, (metrics, n) in comparisons.items():
        batch = metrics["batch_accuracy"]
        table.add_row(
            name, str(n), interval(metrics["cell_accuracy"].difference, signed=True),
            interval(batch.difference, signed=True), f"{batch.only_a} : {batch.only_b}",
            f"{batch.mcnemar_p:.2g}",
        )  # fmt: skip
    return table


def citations_table(cited: Mapping[str, CitedShare]) -> RenderableType:
    """Show how many of the genes cited in reasons are in the list of their cell."""
    table = Table(
        "reasons", "cited genes that are there >", "cited >", "only expected >", "citing nothing >"
    )
    for name, found in cited.items():
        table.add_row(
            name,
            interval(found.share),
            f"{found.cited:,}",
            f"{found.expected:,}",
            f"{found.silent:,}",
        )
    return table


def calibration_table(runs: Mapping[str, Mapping[str, Calibration]]) -> RenderableType:
    """Show runs side by side: calibration error, Brier score and risk-coverage area.

    Parameters
    ----------
    runs
        Name of the run -> what :func:`cello1.scoring.calibration.calibrate` found.
    """
    table = Table(
        "run", "T >", "labels right >", "confidence >", "cell ECE >", "by chance >", "Brier >",
        "AURC >", "batch ECE >", "by chance >", title="confidence",
    )  # fmt: skip
    notes = []
    for name, levels in runs.items():
        cell, batch = levels["cell"], levels.get("batch")
        temperature = "as is" if cell.temperature is None else f"{cell.temperature:.3g}"
        of_batch = ("none", "") if batch is None else _calibration_error(batch)
        table.add_row(
            name, temperature, f"{cell.accuracy:.3f}", f"{cell.mean_confidence:.3f}",
            *_calibration_error(cell), f"{cell.brier:.3f}", f"{cell.aurc:.3f}", *of_batch,
        )  # fmt: skip
        left_out = []
        if cell.without_probabilities:
            left_out.append(f"{cell.without_probabilities} puzzles without probabilities")
        if cell.without_label:
            left_out.append(f"{cell.without_label} cells without a label on offer")
        if left_out:
            notes.append(text(f"note: {name}: left out {', '.join(left_out)}", "yellow"))
    units = sorted(
        {f"{c.ece.clusters} {c.ece.unit}s" for run in runs.values() for c in run.values()}
    )
    said = (
        "T: temperature; ECE: mean gap of confidence and accuracy, resampling "
        f"{' or '.join(units)}; by chance: what flawless confidences would show; "
        "labels right: each by itself, also where one was given twice"
    )
    return Group(table, text(said, "dim"), *notes)


def acceptance_table(metrics: Mapping[str, Any]) -> RenderableType:
    """Show acceptance overall and by N, tissue and type, and a summary of the traces.

    Parameters
    ----------
    metrics
        As :func:`cello1.training.distill.acceptance.acceptance` returns them.
    """
    table = Table("", "puzzles >", "solved >", "accepted >", title=f"teacher: {metrics['teacher']}")
    table.add_row("all", *_acceptance_row(metrics))
    for what, groups in metrics["by"].items():
        table.add_section()
        for group, found in groups.items():
            table.add_row(f"{_ACCEPTANCE_TITLES[what]} {group}", *_acceptance_row(found))
    return Group(table, text(_acceptance_summary(metrics), "dim"))


def diagnosis_table(found: Diagnosis) -> RenderableType:
    """Show what `doctor` found, with a fix for each problem."""
    table = Table("doctor", found.path)
    for name, said in {**found.matrices, **found.columns}.items():
        table.add_row(name, said)
    if found.donors:
        listed = list(found.donors.items())[:12]
        more = len(found.donors) - len(listed)
        table.add_row(
            "types per donor",
            ", ".join(f"{d}: {t} ({c:,} cells)" for d, (c, t) in listed)
            + (f", {more} more donors" if more else ""),
        )
    parts: list[RenderableType] = [table]
    if found.report is not None:
        table.add_row("ranks genes by", f"{found.report.matrix} ({found.report.values})")
        table.add_row("symbols from", found.report.symbols)
        parts.append(files_table([found.report]))
    parts += [text(f"problem: {problem}", "yellow") for problem in found.problems]
    if not found.problems:
        parts.append(text("no problems found", "green"))
    return Group(*parts)


def interval(value: Interval, *, signed: bool = False) -> str:
    """Write an estimate with its interval: `.329 [.301, .357]`."""
    form = "+.3f" if signed else ".3f"
    return f"{value.estimate:{form}} [{value.low:{form}}, {value.high:{form}}]"


def show(*parts: RenderableType) -> None:
    """Print to standard output, as wide as the terminal or COLUMNS, else 160 characters."""
    console = Console()
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console = Console(width=_PIPED_WIDTH)
    for part in parts:
        console.print(text(part) if isinstance(part, str) else part)


def _metrics_row(m: Metrics) -> list[str]:
    return [
        str(m.n), interval(m.cell_accuracy), f"{m.cell_accuracy_micro.estimate:.3f}",
        f"{m.chance_cell:.3f}", interval(m.batch_accuracy), f"{m.chance_batch:.2g}",
        f"{m.format_validity.estimate:.3f}", f"{m.uniqueness.estimate:.3f}",
        f"{m.length:.0f} {m.length_unit}",
    ]  # fmt: skip


def _tolerant(name: str, evaluation: Evaluation) -> list[str]:
    """Say how many responses cannot be read, and the result of a tolerant reading."""
    t, n = evaluation.tolerant, evaluation.overall.n
    if not t.unreadable and not t.repairs:
        return []
    overlooked = "; ".join(f"{count} x {repair}" for repair, count in t.repairs.items())
    return [
        f"note: {name}: {t.unreadable} of {n} responses are not in the exact format and score 0; "
        f"read tolerantly, {t.still_unreadable} stay unreadable, cell-level "
        f"{t.cell_accuracy:.3f}, batch-level {t.batch_accuracy:.3f}"
        + (f" (overlooked: {overlooked})" if overlooked else "")
    ]


def _units(*intervals: Interval) -> str:
    unit = next((i.unit for i in intervals if i.unit != "exact"), "puzzle")
    return f"{intervals[0].clusters} {unit}s" if unit == "donor" else "puzzles"


def _counts(items: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in items)


def _ranges(numbers: list[int]) -> str:
    """Abbreviate integers as ranges: 8, 10-12."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _calibration_error(found: Calibration) -> tuple[str, str]:
    return interval(found.ece), f"{found.ece_noise:.3f}"


def _acceptance_row(found: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{found['puzzles']:,}", f"{found['solved']:,}", _percent(found["acceptance"])


def _acceptance_summary(metrics: Mapping[str, Any]) -> str:
    rejected = ", ".join(f"{count:,} {kind}" for kind, count in metrics["rejected"].items())
    parts = [
        f"{metrics['responses']:,} responses, {_percent(metrics['response_acceptance'])} accepted",
        f"rejected: {rejected or 'none'}",
        f"{metrics['traces']:,} traces{' (with hint)' if metrics['hint'] else ''}",
    ]
    if metrics["words"] is not None:
        parts.append(f"{metrics['words']:.0f} words each")
    if metrics["true_citations"] is not None:
        parts.append(
            f"{_percent(metrics['true_citations'])} of {metrics['citations']:,} cited genes true"
        )
    if metrics["cost"]["usd"] is not None:
        parts.append(f"{metrics['cost']['usd']:.4f} USD")
    return "; ".join(parts)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
