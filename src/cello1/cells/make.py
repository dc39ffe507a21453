"""One file of cells -> its puzzles: keep, rank genes, group, draw.

The matrix is read once, in row chunks. The gene lists of all kept cells go to a temporary file;
only those of drawn cells come back, so memory does not grow with the number of cells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from cello1.cells.context import FIELDS, group_context, organism_of
from cello1.cells.draw import Draw, Drawn, Group, draw_puzzles
from cello1.cells.genes import NEGATIVE, UNREADABLE, Symbols, index_symbols, top_genes
from cello1.cells.matrix import row_chunks
from cello1.cells.obs import ONE_DONOR, POOLED, Cells, read_obs, term_of_type
from cello1.cells.read import Source, obs_names_node, open_source
from cello1.cells.split import deal_cell
from cello1.errors import InputError, brief
from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

Progress = Callable[[float], None]


@dataclass
class FileReport:
    """What became of one file.

    Attributes
    ----------
    status
        ``built``; ``no puzzles``: nothing wrong, but these settings yield none; ``failed``.
    message
        Why there are no puzzles and what would change that, or why the file failed.
    drops
        Rule -> cells dropped by it; with `used` they add up to `cells`.
    largest
        The largest N that any group can serve.
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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FileReport:
        """Read a report back; JSON has turned the numbers of `shortfall` into text."""
        shortfall = {int(n): count for n, count in values["shortfall"].items()}
        return cls(**{**values, "shortfall": shortfall})


def make_puzzles(
    path: Path, settings: BuildSettings, progress: Progress = lambda share: None
) -> tuple[list[Puzzle], FileReport]:
    """Make the puzzles of one file.

    Parameters
    ----------
    path
        An .h5ad file.
    settings
        How to make them.
    progress
        Called with the share of rows read.

    Raises
    ------
    InputError
        When the file cannot be used.
    """
    report = FileReport(str(path), path.stem)
    extra = tuple(settings.context_columns)
    with open_source(path, settings.layer) as source:
        cells = read_obs(source, settings, (*FIELDS, "organism", *extra))
        report.cells, report.drops = source.n_cells, dict(cells.drops)
        report.matrix, report.values = source.matrix.name, source.values
        report.symbols, report.batch_key = source.symbols_from, cells.batch_key
        symbols = index_symbols(source.symbols, settings.exclude_genes)
        with tempfile.TemporaryFile() as lists:
            expressed = _rank_all(source, cells, symbols, settings, lists, progress)
            _drop_shallow(cells, expressed, settings, report)
            groups, homes = _groups(source, cells, settings)
            report.used, report.groups = int(cells.keep.sum()), len(groups)
            report.donors = len({cells.group_keys[home][0] for home, _ in homes})
            drawn = draw_puzzles(
                source.dataset, groups, cells.type_names, term_of_type(cells), settings
            )
            report.largest = max(drawn.largest, default=0)
            report.shortfall, report.unknown_types = drawn.shortfall, drawn.unknown_types
            if not drawn.draws:
                _explain(report, cells, homes, drawn, settings)
                return [], report
            fetch = _Fetch(source, cells, symbols, settings, lists)
            puzzles = fetch.puzzles(drawn.draws, homes, report)
    report.puzzles = len(puzzles)
    return puzzles, report


def _rank_all(
    source: Source,
    cells: Cells,
    symbols: Symbols,
    settings: BuildSettings,
    lists: IO[bytes],
    progress: Progress,
) -> npt.NDArray[np.int32]:
    """Rank the genes of all kept cells into `lists`; return how many each expresses."""
    expressed = np.zeros(source.n_cells, dtype=np.int32)
    for chunk in row_chunks(source.matrix):
        rows = slice(chunk.start, chunk.start + len(chunk.indptr) - 1)
        wanted = cells.keep[rows]
        ranks, expressed[rows], faults = top_genes(chunk, symbols, wanted, settings.top_genes)
        if faults.any():
            row = int(np.argmax(faults > 0))
            _refuse(source, chunk.start + row, int(faults[row]))
        lists.write(ranks[wanted].tobytes())
        progress(rows.stop / source.n_cells)
    return expressed


def _refuse(source: Source, row: int, fault: int) -> None:
    kind = {UNREADABLE: "NaN, infinite or misplaced values", NEGATIVE: "negative values"}
    what = " and ".join(text for bit, text in kind.items() if fault & bit)
    name = obs_names_node(source.file)[row]
    name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    raise InputError(
        f"{source.matrix.name} holds {what} in row {row} (cell {brief(name)}); expected counts or "
        "log-normalised values: mend the matrix, or name another with --layer"
    )


def _drop_shallow(
    cells: Cells, expressed: npt.NDArray[np.int32], settings: BuildSettings, report: FileReport
) -> None:
    before = cells.keep.copy()
    empty = before & (expressed == 0)
    shallow = before & (expressed > 0) & (expressed < settings.min_genes)
    for rule, where in (
        ("no expressed gene", empty),
        (f"fewer than {settings.min_genes} expressed genes", shallow),
    ):
        if count := int(where.sum()):
            report.drops[rule] = count
    cells.keep[empty | shallow] = False
    if before.any() and not cells.keep.any():
        if empty.sum() == before.sum():
            raise InputError(
                f"every row of {report.matrix} is all zero; expected expression values: "
                "name another matrix with --layer"
            )
        raise InputError(
            f"no cell expresses {settings.min_genes} genes (the richest {int(expressed.max())}); "
            f"lower it with --min-genes {max(2, int(np.median(expressed[before])))} "
            "if so few genes were measured"
        )


def _groups(
    source: Source, cells: Cells, settings: BuildSettings
) -> tuple[list[Group], list[tuple[int, str | None]]]:
    """Collect the cells of every group by type; with a split by cell, of every part of it."""
    rows = np.flatnonzero(cells.keep)
    parts = np.zeros(len(rows), dtype="U10")
    if settings.split == "cell":
        names = obs_names_node(source.file)[:].astype(str)
        parts = np.array(
            [deal_cell(settings.seed, source.dataset, names[r], settings.fractions) for r in rows],
            dtype="U10",
        )
    groups, homes = [], []
    for home in np.unique(cells.groups[rows]).tolist():
        for part in np.unique(parts[cells.groups[rows] == home]).tolist():
            members = rows[(cells.groups[rows] == home) & (parts == part)]
            types = cells.types[members]
            by_type = {int(t): members[types == t] for t in np.unique(types)}
            key = "\x1e".join(str(p) for p in (*cells.group_keys[home], part))
            groups.append(Group(key, by_type))
            homes.append((home, part or None))
    return groups, homes


def _explain(
    report: FileReport,
    cells: Cells,
    homes: list[tuple[int, str | None]],
    drawn: Drawn,
    settings: BuildSettings,
) -> None:
    """Say why a file yields no puzzle, and what would change that."""
    report.status = "no puzzles"
    if not homes:
        rule = max(report.drops, key=lambda r: report.drops[r])
        report.message = f"no cell is left, {report.drops[rule]} dropped by '{rule}'"
        if rule.startswith("donor"):
            report.message += "; --pooled-donors keeps them as one group"
        elif rule.startswith("suspension"):
            report.message += "; --suspension-type any keeps them"
        elif rule.startswith("cell type"):
            report.message += "; name another column with --cell-type-key"
        return
    best = int(np.argmax(drawn.largest))
    largest, (home, _) = drawn.largest[best], homes[best]
    if largest < 2:
        raise InputError(
            f"every group of cells (donor, batch, tissue) has a single cell type, such as donor "
            f"{brief(cells.group_keys[home][0])}; a puzzle needs several: is --donor-key "
            f"{settings.donor_key} or --cell-type-key {settings.cell_type_key} the right column?"
        )
    if largest >= settings.n_min:
        report.message = f"too few other types in the file for {settings.distractors} distractors"
        return
    report.message = (
        f"no group has {settings.n_min} types that can share a puzzle; the richest, donor "
        f"{brief(cells.group_keys[home][0])}, has {largest}: lower --n-min to {largest}"
    )


class _Fetch:
    """Turns draws into puzzles, reading only what the drawn cells need."""

    def __init__(
        self,
        source: Source,
        cells: Cells,
        symbols: Symbols,
        settings: BuildSettings,
        lists: IO[bytes],
    ) -> None:
        self.source, self.cells, self.symbols, self.settings = source, cells, symbols, settings
        # Lists were written for the cells kept before shallow ones were dropped.
        self.slot = np.cumsum(cells.groups >= 0) - 1
        self.lists = lists
        self.organism = organism_of(source, cells)
        self.terms = term_of_type(cells)
        self.genes_meta = {
            "matrix": source.matrix.name,
            "values": source.values,
            "top": settings.top_genes,
            "excluded": list(settings.exclude_genes),
        }

    def puzzles(
        self, draws: list[Draw], homes: list[tuple[int, str | None]], report: FileReport
    ) -> list[Puzzle]:
        """Make all puzzles of the file."""
        needed = sorted({cell for draw in draws for cell in draw.cells})
        genes = {cell: self._genes(cell) for cell in needed}
        stored = obs_names_node(self.source.file)[np.array(needed)]
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in stored]
        ids = dict(zip(needed, names, strict=True))
        shared = {home: self._group_meta(home) for home in {homes[draw.group][0] for draw in draws}}
        puzzles = []
        for draw in draws:
            home, part = homes[draw.group]
            context, meta = shared[home]
            if part is not None:
                meta = {**meta, "split": "cell", "cell_split": part}
            elif self.settings.split == "puzzle":
                meta = {**meta, "split": "puzzle"}
            labels = [self.cells.type_names[t] for t in draw.types]
            puzzles.append(
                Puzzle(
                    context=context,
                    cells=tuple(genes[cell] for cell in draw.cells),
                    candidates=tuple(self.cells.type_names[t] for t in draw.candidates),
                    answer=tuple(labels),
                    meta={
                        **meta,
                        "cell_ids": [ids[cell] for cell in draw.cells],
                        "cell_terms": [self.terms.get(label) for label in labels],
                    },
                )
            )
        return puzzles

    def _genes(self, cell: int) -> tuple[str, ...]:
        k = self.settings.top_genes
        self.lists.seek(int(self.slot[cell]) * k * 4)
        ranks = np.frombuffer(self.lists.read(k * 4), dtype=np.int32)
        return tuple(self.symbols.names[r] for r in ranks.tolist() if r >= 0)

    def _group_meta(self, home: int) -> tuple[str, dict[str, Any]]:
        members = np.flatnonzero((self.cells.groups == home) & self.cells.keep)
        donor, batch, tissue = self.cells.group_keys[home]
        kind = self.cells.donor_kind[home]
        flags = {
            "pooled": kind == POOLED,
            "one_donor": kind == ONE_DONOR,
            "synthetic": self.cells.constant("is_synthetic", members) == "True",
        }
        meta = {
            "dataset": self.source.dataset,
            "donor_id": donor,
            "batch": batch,
            "tissue": tissue,
            "disease": self.cells.constant("disease", members),
            "genes": self.genes_meta,
            "prompt_version": PROMPT_VERSION,
            **{name: True for name, on in flags.items() if on},
        }
        context = group_context(self.cells, members, self.organism, self.settings.context_columns)
        return context, meta
