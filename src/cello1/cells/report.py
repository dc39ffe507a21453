"""The report of `build` on one file, and its explanations."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from cello1.errors import InputError, brief
from cello1.recipes import BuildSettings


class Drop(StrEnum):
    """Why a cell is dropped: the rules of :attr:`FileReport.drops` that an option can relax."""

    NOT_PRIMARY = "not primary data"
    SUSPENSION = "suspension type other than"  # the type follows
    NO_TYPE = "cell type unknown"
    NO_DONOR = "donor unknown or pooled"


@dataclass
class FileReport:
    """The result for one file.

    Attributes
    ----------
    status
        ``built``; ``no puzzles``: no error, but these settings yield none; ``failed``.
    message
        Why there are no puzzles and how to get some, or why the file failed.
    drops
        Rule -> cells dropped by it; with `used` they add up to `cells`.
    notes
        Caveats: columns that are no genes, donors with similar names, a column that was not used
        as batch.
    largest
        The largest N that any group allows.
    """

    path: str
    dataset: str
    status: Literal["built", "no puzzles", "failed"] = "built"
    message: str = ""
    cells: int = 0
    used: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    matrix: str = ""
    values: str = ""
    symbols: str = ""
    batch_key: str | None = None
    donors: int = 0
    groups: int = 0
    largest: int = 0
    puzzles: int = 0
    shortfall: dict[int, int] = field(default_factory=dict)
    unknown_types: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FileReport:
        """Read a report back; JSON stores the integer keys of `shortfall` as text."""
        shortfall = {int(n): count for n, count in values["shortfall"].items()}
        return cls(**{**values, "shortfall": shortfall})


def explain(report: FileReport, donor: str | None, settings: BuildSettings) -> None:
    """Explain why a file yields no puzzle, and how to get some.

    Parameters
    ----------
    report
        Is completed; `largest` says how many types the richest group has.
    donor
        The donor of that group, or None when no cell is left.
    settings
        Settings of the build.

    Raises
    ------
    InputError
        When no setting would help, because every group has a single type.
    """
    report.status = "no puzzles"
    if donor is None:
        rule = max(report.drops, key=lambda r: report.drops[r])
        report.message = f"no cell is left, {report.drops[rule]} dropped by '{rule}'"
        if rule == Drop.NO_DONOR:
            report.message += "; --pooled-donors keeps them as one group"
        elif rule == f"{Drop.SUSPENSION} {settings.suspension_type}":
            report.message += "; --suspension-type any keeps them"
        elif rule == Drop.NO_TYPE:
            report.message += "; name another column with --cell-type-key"
    elif report.largest < 2:
        keys = [f"--donor-key {settings.donor_key}", f"--cell-type-key {settings.cell_type_key}"]
        if report.batch_key is not None:
            keys.insert(1, f"--batch-key {report.batch_key}")
        raise InputError(
            f"every group of cells (donor, batch, tissue) has a single cell type, such as donor "
            f"{brief(donor)}; a puzzle needs several: is {', '.join(keys[:-1])} or {keys[-1]} the "
            "right column?"
        )
    elif report.largest >= settings.n_min:
        report.message = f"too few other types in the file for {settings.distractors} distractors"
    else:
        report.message = (
            f"no group has {settings.n_min} types that can share a puzzle; the richest, donor "
            f"{brief(donor)}, has {report.largest}: lower --n-min to {report.largest}"
        )
