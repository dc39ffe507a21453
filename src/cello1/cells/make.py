"""One file of cells -> its puzzles: keep, rank genes, group, draw.

The matrix is read once, in row chunks. The gene lists of all kept cells go to a temporary file;
only those of drawn cells come back, so memory does not grow with the number of cells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from cello1.cells.context import FIELDS
from cello1.cells.draw import Group, draw_puzzles
from cello1.cells.fetch import Fetch, Home
from cello1.cells.genes import Symbols, index_symbols
from cello1.cells.h5ad.matrix import row_chunks
from cello1.cells.h5ad.read import Source, open_source
from cello1.cells.obs import Cells, read_obs, term_of_type
from cello1.cells.rank import NEGATIVE, UNREADABLE, rank_chunks
from cello1.cells.report import FileReport, explain
from cello1.cells.split import deal_cell
from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

Progress = Callable[[float], None]


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
    with open_source(path, settings.layer) as source:
        extra = (*settings.context_columns, *(() if source.organism else ("organism",)))
        cells = read_obs(source, settings, (*FIELDS, *extra))
        report.cells, report.drops = source.n_cells, dict(cells.drops)
        report.matrix, report.values = source.matrix.name, source.values
        report.symbols, report.batch_key = source.symbols_from, cells.batch_key
        report.notes = [*source.genes.told(), *cells.notes]
        symbols = index_symbols(source.symbols, settings.exclude_genes)
        with tempfile.TemporaryFile() as lists:
            expressed = _rank_all(source, cells, symbols, settings, lists, progress)
            _drop_shallow(cells, expressed, settings, report)
            groups, homes = _groups(source, cells, settings)
            report.used, report.groups = int(cells.keep.sum()), len(groups)
            report.donors = len({(cells.studies[h], cells.group_keys[h][0]) for h, _ in homes})
            drawn = draw_puzzles(
                source.dataset, groups, cells.type_names, term_of_type(cells), settings
            )
            report.largest = max(drawn.largest, default=0)
            report.shortfall, report.unknown_types = drawn.shortfall, drawn.unknown_types
            if not drawn.draws:
                best = int(np.argmax(drawn.largest)) if homes else None
                explain(
                    report, None if best is None else cells.group_keys[homes[best][0]][0], settings
                )
                return [], report
            puzzles = Fetch(source, cells, symbols, settings, lists).puzzles(drawn.draws, homes)
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
    chunks = row_chunks(source.matrix, beat=lambda: progress(0.0))
    for done in rank_chunks(chunks, symbols, cells.keep, settings.top_genes):
        expressed[done.rows] = done.expressed
        if done.faults.any():
            row = int(np.argmax(done.faults > 0))
            _refuse(source, done.rows.start + row, int(done.faults[row]))
        lists.write(done.ranks[cells.keep[done.rows]].data)
        progress(done.rows.stop / source.n_cells)
    return expressed


def _refuse(source: Source, row: int, fault: int) -> None:
    kind = {UNREADABLE: "NaN, infinite or misplaced values", NEGATIVE: "negative values"}
    what = " and ".join(text for bit, text in kind.items() if fault & bit)
    (name,) = source.obs.names(slice(row, row + 1))
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
) -> tuple[list[Group], list[Home]]:
    """Collect the cells of every group by type; with a split by cell, of every part of it."""
    rows = np.flatnonzero(cells.keep)
    parts: list[tuple[str, npt.NDArray[np.intp]]] = [("", rows)]
    if settings.split == "cell":
        names = source.obs.names()
        dealt = np.array(
            [deal_cell(settings.seed, source.dataset, names[r], settings.fractions) for r in rows]
        )
        parts = [(str(part), rows[dealt == part]) for part in np.unique(dealt)]
    groups, homes = [], []
    for home in np.unique(cells.groups[rows]).tolist():
        for part, within in parts:
            members = within[cells.groups[within] == home]
            if not len(members):
                continue
            types = cells.types[members]
            by_type = {int(t): members[types == t] for t in np.unique(types)}
            study = () if cells.studies[home] is None else (cells.studies[home],)
            key = "\x1e".join(str(p) for p in (*cells.group_keys[home], part, *study))
            groups.append(Group(key, by_type))
            homes.append((home, part or None))
    return groups, homes
