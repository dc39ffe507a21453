"""How runs reason, and which is preferred, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cello1.behaviour.errors import ERRORS
from cello1.behaviour.measures import MEASURES, SIGNED, Summary
from cello1.behaviour.preference import Preference
from cello1.scoring.statistics import FEW_CLUSTERS, Interval
from cello1.terminal.tables import interval

_MEANING = {
    "self_reflection": "a type given earlier is changed",
    "curriculum": "says it settles sure cells first, or puts a cell off",
    "elimination": "a type is given because the others are taken",
    "comparison": "cells are weighed against each other",
    "reordered": "cells are not settled in the order of the list",
    "discussed": "share of cells for which a reason is given",
    "agreement": "share of the reasoning's conclusions the answer keeps",
    "consistent": "the answer keeps all of them",
    "order_right": "tau-b: right cells settled earlier (+) or later (-)",
    "order_clear": "tau-b: clear cells settled earlier (+) or later (-)",
}


def behaviour_table(
    summaries: Mapping[str, Summary], differences: Mapping[str, Mapping[str, Interval]]
) -> RenderableType:
    """Show runs side by side, each measure with its 95 % interval, then paired differences.

    Parameters
    ----------
    summaries
        Name of the run -> its behaviours.
    differences
        Name of the difference -> measure -> interval.
    """
    table = Table(title="behaviour", title_justify="left")
    table.add_column("measure")
    for name in (*summaries, *differences):
        table.add_column(escape(name), justify="right")
    table.add_column("what it is")
    for measure in MEASURES:
        signed = measure in SIGNED
        row = [_written(s.measures[measure], signed) for s in summaries.values()]
        row += [_written(d[measure], True) for d in differences.values()]
        table.add_row(measure.replace("_", " "), *row, _MEANING[measure])
    table.add_section()
    for error in ERRORS:
        row = [_written(s.errors[error], False) for s in summaries.values()]
        table.add_row(f"wrong: {error}", *row, *[""] * len(differences), "share of wrong cells")
    notes = []
    for name, s in summaries.items():
        note = f"{name}: {s.responses:,} responses, {s.malformed:,} malformed and left out; "
        note += f"{s.wrong_cells:,} wrong cells; how clear a cell is says {s.margin_source}"
        notes.append(Text(note, style="dim"))
    drawn = [i for s in summaries.values() for i in s.measures.values() if i.unit == "donor"]
    units = f"{drawn[0].clusters} donors" if drawn else "puzzles"
    if drawn and drawn[0].clusters < FEW_CLUSTERS:
        units += " (so few tend to give too narrow ones)"
    said = f"intervals: 95 %, resampling {units}; every rule's precision: docs/behaviour.md"
    return Group(table, Text(said, style="dim"), *notes)


def preference_table(first: str, second: str, by: str, found: Preference) -> RenderableType:
    """Show how often the first run is preferred to the second."""
    table = Table(title=f"{escape(first)} against {escape(second)}", title_justify="left")
    for column in ("by", "puzzles", "preferred", "wins", "ties", "losses", "unread"):
        table.add_column(column, justify="left" if column == "by" else "right")
    table.add_row(
        escape(by), str(found.share.n), interval(found.share), str(found.wins), str(found.ties),
        str(found.losses), str(found.unread),
    )  # fmt: skip
    said = "preferred: win 1, tie 1/2, loss 0; .5 is even"
    if found.agreement is not None:
        said += f"; same verdict again (other order or other rater): {found.agreement:.2f}"
    if found.first_shown is not None:
        said += f"; the one shown first wins {found.first_shown:.2f} of those decided"
    return Group(table, Text(said, style="dim"))


def _written(value: Interval, signed: bool) -> str:
    return "-" if not value.n else interval(value, signed=signed)
