"""Examine a file as `build` would: what was found, what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cello1.cells.h5ad.categories import are_unnamed, categorical
from cello1.cells.h5ad.elements import attribute, is_null, shape_of
from cello1.cells.h5ad.read import open_h5ad, open_table
from cello1.cells.make import make_puzzles
from cello1.cells.obs import BATCH_COLUMNS
from cello1.cells.report import FileReport
from cello1.errors import InputError
from cello1.recipes import BuildSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes

FIELDS = ("organism", "tissue", "disease", "assay", "suspension_type", "is_primary_data")


@dataclass
class Diagnosis:
    """The findings of `cello1 doctor` on one file.

    Attributes
    ----------
    matrices
        Name -> storage format and shape.
    columns
        obs column of interest -> its most frequent values with counts.
    donors
        Donor -> (cells, cell types) as build would use them.
    report
        Report of a trial build, or None when build would refuse the file.
    problems
        Each with its fix.
    """

    path: str
    matrices: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    donors: dict[str, tuple[int, int]] = field(default_factory=dict)
    report: FileReport | None = None
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return asdict(self)


@takes(BuildSettings)
def examine(
    path: Path,
    settings: BuildSettings | str | Path | None = None,
    *,
    beat: Callable[[], None] = lambda: None,
    **changes: Any,
) -> Diagnosis:
    """Examine one file; problems are collected, not raised.

    Parameters
    ----------
    path
        An .h5ad file.
    settings, **changes
        Settings of the build.
    beat
        Called regularly while there is progress.
    """
    settings = resolve(BuildSettings, settings, changes)
    found = Diagnosis(str(path))
    try:
        with open_h5ad(path) as file:
            _look(file, settings, found)
        puzzles, found.report = make_puzzles(path, settings, lambda share: beat())
    except InputError as error:
        found.problems.append(str(error))
        return found
    if found.report.status == "no puzzles":
        found.problems.append(found.report.message)
    if found.report.values == "normalised":
        found.problems.append(
            f"{found.report.matrix} holds normalised values and no raw counts were found; gene "
            "ranks are still right, unless values were scaled per gene"
        )
    found.problems.extend(found.report.notes)
    if found.report.unknown_types:
        found.problems.append(
            "the Cell Ontology does not know "
            f"{', '.join(found.report.unknown_types)}; whether they are nested in others cannot "
            "be checked: rename them to ontology labels if you can"
        )
    named = {p.meta["donor_id"] for p in puzzles}
    if settings.split == "donor" and 0 < len(named) < 3:
        found.problems.append(
            f"{len(named)} donor(s) can give puzzles, too few to split by donor; use more files, "
            "--split none or --split cell"
        )
    return found


def _look(file: Any, settings: BuildSettings, found: Diagnosis) -> None:
    """Describe matrices and columns."""
    nodes = {"X": file.get("X"), "raw.X": file.get("raw/X", file.get("raw.X"))}
    layers = file.get("layers", {})
    nodes |= {f"layers[{name}]": layers[name] for name in sorted(layers)}
    for name, node in nodes.items():
        if node is not None and not is_null(node):
            kind = attribute(node, "encoding-type") or attribute(node, "h5sparse_format")
            size = " x ".join(f"{n:,}" for n in shape_of(node) or ())
            found.matrices[name] = f"{kind or 'unknown encoding'}, {size or 'unknown shape'}"
    obs = open_table(file, "obs")
    keys = (settings.donor_key, settings.cell_type_key, *FIELDS, *BATCH_COLUMNS)
    read = {name: categorical(obs, name) for name in dict.fromkeys(keys) if name in obs}
    for name, values in read.items():
        counts = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
        order = np.argsort(-counts, kind="stable")
        top = [f"{values.categories[i]} ({counts[i]:,})" for i in order[:5].tolist()]
        missing = [f"nothing ({n:,})"] if (n := int((values.codes < 0).sum())) else []
        more = f", {len(counts) - 5} more" if len(counts) > 5 else ""
        found.columns[name] = ", ".join(top + missing) + more
    if settings.donor_key in read and settings.cell_type_key in read:
        donors, types = read[settings.donor_key], read[settings.cell_type_key]
        known = ~are_unnamed(types)
        for code, donor in enumerate(donors.categories):
            mine = (donors.codes == code) & known
            found.donors[str(donor)] = (int(mine.sum()), len(np.unique(types.codes[mine])))
    found.columns["cells"] = f"{len(obs):,}"
