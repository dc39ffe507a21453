"""How far the confidences of runs can be believed, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cello1.scoring.calibration import Calibration
from cello1.terminal.tables import interval


def calibration_table(runs: Mapping[str, Mapping[str, Calibration]]) -> RenderableType:
    """Show runs side by side: calibration error, Brier score and risk-coverage area.

    Parameters
    ----------
    runs
        Name of the run -> what :func:`cello1.scoring.calibration.calibrate` found.
    """
    table = Table(title="confidence", title_justify="left")
    table.add_column("run")
    for column in (
        "T", "labels right", "confidence", "cell ECE", "by chance", "Brier", "AURC", "batch ECE",
        "by chance",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    notes = []
    for name, levels in runs.items():
        cell, batch = levels["cell"], levels.get("batch")
        temperature = "as is" if cell.temperature is None else f"{cell.temperature:.3g}"
        of_batch = ("none", "") if batch is None else _error(batch)
        table.add_row(
            escape(name), temperature, f"{cell.accuracy:.3f}", f"{cell.mean_confidence:.3f}",
            *_error(cell), f"{cell.brier:.3f}", f"{cell.aurc:.3f}", *of_batch,
        )  # fmt: skip
        left_out = []
        if cell.without_probabilities:
            left_out.append(f"{cell.without_probabilities} puzzles without probabilities")
        if cell.without_label:
            left_out.append(f"{cell.without_label} cells without a label on offer")
        if left_out:
            notes.append(Text(f"note: {name}: left out {', '.join(left_out)}", style="yellow"))
    units = sorted(
        {f"{c.ece.clusters} {c.ece.unit}s" for run in runs.values() for c in run.values()}
    )
    said = (
        "T: temperature; ECE: mean gap of confidence and accuracy, resampling "
        f"{' or '.join(units)}; by chance: what flawless confidences would show; "
        "labels right: each by itself, also where one was given twice"
    )
    return Group(table, Text(said, style="dim"), *notes)


def _error(found: Calibration) -> tuple[str, str]:
    return interval(found.ece), f"{found.ece_noise:.3f}"
