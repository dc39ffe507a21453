"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cello1.cells.audit import Audit
from cello1.cells.doctor import Diagnosis
from cello1.cells.report import FileReport
from cello1.citations.evidence import CitedShare
from cello1.scoring.evaluate import Evaluation, Metrics
from cello1.scoring.statistics import Interval, Paired

BREAKDOWN_TITLES = {"n_cells": "by N", "tissue": "by tissue", "disease": "by disease"}


def files_table(reports: Sequence[FileReport]) -> RenderableType:
    """Show what became of every file, and every dropped cell."""
    table = _table(
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
        table.add_row(*map(escape, row), Text("\n".join(said), style=style))
    return table


def audit_table(audit: Audit) -> RenderableType:
    """Show the findings of an audit, and its verdict."""
    parts: list[RenderableType] = []
    sizes = ", ".join(f"{name} {n:,}" for name, n in audit.sizes.items())
    by_n = ", ".join(f"{n}: {count:,}" for n, count in audit.n_histogram.items())
    common = list(audit.type_counts.items())
    table = _table("audit", "finding")
    table.add_row("puzzles", sizes)
    table.add_row("by number of cells", by_n)
    table.add_row(
        "cell types",
        escape(
            f"{len(common)}; most frequent {_counts(common[:3])}; rarest {_counts(common[-3:])}"
        ),
    )
    for s in audit.shared:
        what = ", ".join(
            f"{'?' if n is None else n} {kind}"
            for kind, n in (("donors", s.donors), ("cells", s.cells), ("gene lists", s.gene_lists))
        )
        line = f"{what}" + (
            f" (such as {s.example}; {s.tainted} puzzles touched)" if s.leaks else ""
        )
        table.add_row(f"{s.first} & {s.second} share", escape(line))
    table.add_row("repeated puzzles", str(audit.duplicates))
    wrong = len(audit.gold_failures)
    table.add_row("gold answers that do not score 1", str(wrong))
    parts.append(table)
    parts += [Text(f"note: {mark}", style="yellow") for mark in audit.marks]
    if audit.leaks:
        parts.append(Text(f"{audit.leaks} LEAK(S) between splits", style="bold red"))
    elif audit.passed:
        parts.append(Text("0 leaks; every gold answer scores 1", style="green"))
    return Group(*parts)


def scores_table(evaluations: Mapping[str, Evaluation]) -> RenderableType:
    """Show runs side by side, each figure with its 95 % interval."""
    table = _table(
        "run", "puzzles >", "cell-level (macro) >", "micro >", "chance >", "batch-level >",
        "chance >", "format >", "unique >", "length >",
    )  # fmt: skip
    for name, evaluation in evaluations.items():
        table.add_row(escape(name), *_metrics_row(evaluation.overall))
    parts: list[RenderableType] = [table]
    first = next(iter(evaluations.values())).overall
    units = _units(first.batch_accuracy, first.cell_accuracy)
    parts.append(Text(f"intervals: 95 %, resampling {units}", style="dim"))
    notes = sorted({note for e in evaluations.values() for note in e.notes})
    parts += [Text(f"note: {note}", style="yellow") for note in notes]
    for name, evaluation in evaluations.items():
        said = "; ".join(f"{n} x {kind}" for kind, n in evaluation.complaints.items())
        parts += [Text(f"{name}: {said}", style="dim")] if said else []
    return Group(*parts)


def breakdown_table(name: str, evaluation: Evaluation, by: str) -> RenderableType:
    """Show one run by N, tissue, disease or data set, with chance beside it."""
    table = _table(
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
            escape(value), str(m.n), interval(m.cell_accuracy), f"{m.chance_cell:.3f}",
            interval(m.batch_accuracy), f"{m.chance_batch:.2g}",
        )  # fmt: skip
    return table


def paired_table(comparisons: Mapping[str, tuple[Mapping[str, Paired], int]]) -> RenderableType:
    """Show differences between runs over the puzzles both answered."""
    table = _table(
        "difference", "puzzles >", "cell-level >", "batch-level >", "only one exact", "McNemar p >"
    )
    for name, (metrics, n) in comparisons.items():
        batch = metrics["batch_accuracy"]
        table.add_row(
            escape(name), str(n), interval(metrics["cell_accuracy"].difference, signed=True),
            interval(batch.difference, signed=True), f"{batch.only_a} : {batch.only_b}",
            f"{batch.mcnemar_p:.2g}",
        )  # fmt: skip
    return table


def citations_table(cited: Mapping[str, CitedShare]) -> RenderableType:
    """Show how many of the genes that reasons cite are in the list of their cell."""
    table = _table("reasons", "cited genes that are there >", "cited >", "citing nothing >")
    for name, found in cited.items():
        table.add_row(escape(name), interval(found.share), f"{found.cited:,}", f"{found.silent:,}")
    return table


def diagnosis_table(found: Diagnosis) -> RenderableType:
    """Show what `doctor` found, each problem with its mend."""
    table = _table("doctor", found.path)
    for name, text in {**found.matrices, **found.columns}.items():
        table.add_row(name, escape(text))
    if found.donors:
        listed = list(found.donors.items())[:12]
        more = len(found.donors) - len(listed)
        table.add_row(
            "types per donor",
            escape(", ".join(f"{d}: {t} ({c:,} cells)" for d, (c, t) in listed))
            + (f", {more} more donors" if more else ""),
        )
    parts: list[RenderableType] = [table]
    if found.report is not None:
        table.add_row("ranks genes by", f"{found.report.matrix} ({found.report.values})")
        table.add_row("symbols from", found.report.symbols)
        parts.append(files_table([found.report]))
    parts += [Text(f"problem: {problem}", style="yellow") for problem in found.problems]
    if not found.problems:
        parts.append(Text("no problems found", style="green"))
    return Group(*parts)


def interval(value: Interval, *, signed: bool = False) -> str:
    """Write an estimate with its interval: `.329 [.301, .357]`."""
    form = "+.3f" if signed else ".3f"
    return f"{value.estimate:{form}} [{value.low:{form}}, {value.high:{form}}]"


def show(*parts: RenderableType) -> None:
    """Print to standard output, as wide as needed when that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for part in parts:
        console.print(part)


def _metrics_row(m: Metrics) -> list[str]:
    return [
        str(m.n), interval(m.cell_accuracy), f"{m.cell_accuracy_micro.estimate:.3f}",
        f"{m.chance_cell:.3f}", interval(m.batch_accuracy), f"{m.chance_batch:.2g}",
        f"{m.format_validity.estimate:.3f}", f"{m.uniqueness.estimate:.3f}",
        f"{m.length:.0f} {m.length_unit}",
    ]  # fmt: skip


def _units(*intervals: Interval) -> str:
    unit = next((i.unit for i in intervals if i.unit != "exact"), "puzzle")
    return f"{intervals[0].clusters} {unit}s" if unit == "donor" else "puzzles"


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        right = column.endswith(" >")
        table.add_column(column.removesuffix(" >"), justify="right" if right else "left")
    return table


def _counts(items: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in items)


def _ranges(numbers: list[int]) -> str:
    """Write sorted integers shortly: 8, 10-12."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
