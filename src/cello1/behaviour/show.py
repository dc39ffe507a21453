"""Tables for the terminal: how runs reason, and which is preferred."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from cello1.behaviour.detect import ERRORS
from cello1.behaviour.judge import JudgedErrors
from cello1.behaviour.measures import MEASURES, SIGNED, Summary
from cello1.behaviour.preference import Preference
from cello1.scoring.statistics import FEW_CLUSTERS, Interval
from cello1.terminal.tables import Table, interval
from cello1.terminal.text import text

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
    runs = [f"{name} >" for name in (*summaries, *differences)]
    table = Table("measure", *runs, "what it is", title="behaviour")
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
        notes.append(text(note, "dim"))
    drawn = [i for s in summaries.values() for i in s.measures.values() if i.unit == "donor"]
    units = f"{drawn[0].clusters} donors" if drawn else "puzzles"
    if drawn and drawn[0].clusters < FEW_CLUSTERS:
        units += " (so few tend to give too narrow ones)"
    said = f"intervals: 95 %, resampling {units}; every rule's precision: docs/behaviour.md"
    return Group(table, text(said, "dim"), *notes)


def preference_table(first: str, second: str, by: str, found: Preference) -> RenderableType:
    """Show how often the first run is preferred to the second."""
    table = Table(
        "by", "puzzles >", "preferred >", "wins >", "ties >", "losses >", "unread >",
        title=f"{first} against {second}",
    )  # fmt: skip
    table.add_row(
        by, str(found.share.n), interval(found.share), str(found.wins), str(found.ties),
        str(found.losses), str(found.unread),
    )  # fmt: skip
    said = "preferred: win 1, tie 1/2, loss 0; .5 is even"
    if found.agreement is not None:
        said += f"; same verdict again (other order or other rater): {found.agreement:.2f}"
    if found.first_shown is not None:
        said += f"; the one shown first wins {found.first_shown:.2f} of those decided"
    return Group(table, text(said, "dim"))


def judged_table(runs: Mapping[str, JudgedErrors]) -> RenderableType:
    """Show the judge's error types, run by run."""
    names = [f"{name} >" for name in runs]
    table = Table("share of judged cells", *names, title="error types by the judge")
    for error in ERRORS:
        shares = [run.shares[error] for run in runs.values()]
        table.add_row(error, *("-" if not s.n else interval(s) for s in shares))
    notes = [
        text(
            f"{name}: {r.cells} cells judged, {r.unread} not; rules and judge agree on "
            f"{r.agreement.alike:.2f} (kappa {r.agreement.kappa:.2f})",
            "dim",
        )
        for name, r in runs.items()
    ]
    return Group(table, *notes)


def _written(value: Interval, signed: bool) -> str:
    return "-" if not value.n else interval(value, signed=signed)
