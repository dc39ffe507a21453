"""Report whether `annotate` can use a file, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cello1.annotate.clusters import named_clusters
from cello1.annotate.data import TISSUE_COLUMNS, open_data
from cello1.annotate.prepare import human_symbols
from cello1.cells.h5ad.tenx import is_tenx, look_at_tenx
from cello1.errors import InputError

_NOTHING_KNOWN = (
    "obs has no clusters, so they would be computed",
    "obs names no tissue: give it with --tissue",
    "all cells count as one donor (--donor-key names a column)",
)


@dataclass(frozen=True)
class Prospect:
    """How `annotate` would use a file.

    Attributes
    ----------
    usable
        Whether it can be annotated as it is.
    found
        What it would use, line by line.
    problem
        Why it cannot be used and how to fix it; empty where it can.
    """

    usable: bool
    found: list[str] = field(default_factory=list)
    problem: str = ""

    def told(self) -> list[str]:
        """Return it as sentences."""
        if not self.usable:
            return [f"annotate cannot use this file: {self.problem}"]
        return [f"annotate can use this file: {'; '.join(self.found)}"]


def prospect(path: Path, layer: str | None = None, donor_key: str = "donor_id") -> Prospect:
    """Examine a file as `annotate` would, without reading its cells."""
    try:
        if is_tenx(path):
            matrix = look_at_tenx(path)
            kinds = ", ".join(f"{n:,} of {kind}" for kind, n in matrix.kinds.items())
            return Prospect(
                True,
                [
                    f"a matrix of Cell Ranger, {matrix.n_cells:,} cells, {kinds}; the result is an "
                    ".h5ad file of it",
                    *_NOTHING_KNOWN,
                ],
            )
        with open_data(path, layer=layer, columns=(donor_key,)) as data:
            notes: list[str] = []
            human_symbols(data, None, notes)
            clusters = named_clusters(data)
            tissues = data.constant(TISSUE_COLUMNS)
            found = [
                f"{data.n_cells:,} cells, {data.matrix} ({data.values})",
                clusters.note if clusters is not None and clusters.note else _NOTHING_KNOWN[0],
                f"tissue {', '.join(tissues[:3])}" + (", ..." if len(tissues) > 3 else "")
                if tissues
                else _NOTHING_KNOWN[1],
                f"donors in {donor_key}" if donor_key in data.obs else _NOTHING_KNOWN[2],
            ]
            return Prospect(True, [*found, *data.notes, *notes])
    except InputError as error:
        return Prospect(False, problem=str(error))
