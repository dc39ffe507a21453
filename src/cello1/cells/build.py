"""Build a folder of puzzles from files of cells: train, validation, test, and an audit of leaks.

Each file is processed by one process. With several files, the puzzles of each are stored as a part,
so that an interrupted build can be resumed. The bytes written do not depend on the number of
workers or on PYTHONHASHSEED.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cello1.cells.audit import Audit, audit
from cello1.cells.census import fetch, is_census
from cello1.cells.h5ad.kinds import check_place
from cello1.cells.h5ad.read import open_h5ad, open_table
from cello1.cells.jobs import Job, Part, run_jobs
from cello1.cells.report import FileReport
from cello1.cells.split import (
    SPLITS,
    Traits,
    deal,
    refuse_names,
    split_names,
    split_puzzles,
    traits,
)
from cello1.cells.workers import leave_unguarded_script
from cello1.engine import Engine
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_splits
from cello1.puzzles.table import ROWS, Stored, TableWriter, write_puzzles
from cello1.recipes import BuildSettings
from cello1.recipes.census import CensusSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Run, Watch, replacing, sweep, write_json

LAST = "audit.json"


@dataclass(frozen=True)
class Build:
    """The result of a build.

    Attributes
    ----------
    folder
        Folder of the puzzles.
    reports
        One per file, sorted by name.
    audit
        The audit of all splits.
    """

    folder: Path
    reports: list[FileReport]
    audit: Audit

    @property
    def ok(self) -> bool:
        """Whether no file failed and the audit passed (a split by puzzle may leak)."""
        failed = any(report.status == "failed" for report in self.reports)
        return not failed and not self.audit.gold_failures


@takes(BuildSettings)
def build(
    files: Sequence[str | Path],
    out: str | Path,
    settings: BuildSettings | str | Path | None = None,
    *,
    query: CensusSettings | None = None,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    watch: Watch = lambda dataset, share: None,
    may_end: bool = False,
    **changes: Any,
) -> Build:
    """Build puzzles from .h5ad files, or from the CELLxGENE Census, into a folder.

    Parameters
    ----------
    files
        The files; each is a data set named by its stem. ``census:`` stands for the Census,
        ``census:URI`` for a copy of it or another SOMA experiment; the cells that are drawn from
        it are kept in the folder ``cells``.
    out
        A new folder, or one that holds an unfinished build or this one.
    settings, **changes
        How to make puzzles: :class:`cello1.recipes.BuildSettings` or a recipe, and its fields by
        keyword, such as ``n_min=5``.
    query
        Query for cells of the Census.
    workers
        Number of processes; each handles one file at a time.
    engine, address
        ``ray`` runs each file as a task, on the cluster at an address or on this machine; every
        machine must be able to reach files and folder. The bytes are the same.
    watch
        Called with (data set, share of its rows read).
    may_end
        End this process, with a message, when a file makes no progress for five minutes: for
        commands. Stalled workers are ended in any case.

    Returns
    -------
    Build
        With a report on each file that failed; the puzzles of the others are written.

    Raises
    ------
    InputError
        When no file yields a puzzle, the splits cannot be made, the splits leak, or `out` holds
        something else.
    """
    leave_unguarded_script()
    settings = resolve(BuildSettings, settings, changes)
    refuse_names(settings)
    folder, query = Path(out), query or CensusSettings()
    _check_room(folder)
    asked = sorted({str(file) for file in files if is_census(file)})
    extracts = [
        path
        for source in asked
        for path in fetch(source, query, folder / "cells", settings.seed, watch)
    ]
    paths = _distinct([*(file for file in files if not is_census(file)), *extracts])
    _check_context(paths, settings)
    config = settings.model_dump(mode="json")
    if asked:
        config |= {"census": {"sources": asked, **query.model_dump(mode="json")}}
    with Run(folder, command="build", config=config, inputs=paths, finished_by=LAST) as run:
        if (folder / LAST).exists() and not any(r.status == "failed" for r in _reports(folder)):
            return _finished(folder, workers)
        for leftover in folder.glob(".*.part"):
            leftover.unlink()
        kept = folder / ".parts"
        if kept.is_symlink():
            raise InputError(f"{kept} is a symbolic link; expected a folder of ours: remove it")
        kept.mkdir(exist_ok=True)
        sweep(kept)
        several = len(paths) > 1 or engine == "ray"
        jobs = [Job(path, run.inputs[str(path)], kept, settings, several) for path in paths]
        try:
            parts = run_jobs(jobs, workers, watch, engine, address, may_end=may_end)
        finally:
            sweep(kept)  # temporary files of workers that were ended
        reports = [part.report for part in parts]
        try:
            result = _assemble(folder, parts, settings, workers, watch)
        except InputError:
            if not (folder / LAST).exists():
                _write_reports(folder, reports)
            raise
        if not any(report.status == "failed" for report in reports):
            shutil.rmtree(kept)  # otherwise they are kept for the next run
    return result


def _assemble(
    folder: Path, parts: Sequence[Part], settings: BuildSettings, workers: int, watch: Watch
) -> Build:
    reports = [part.report for part in parts]
    if not any(report.puzzles for report in reports):
        why = "; ".join(f"{r.dataset}: {r.message}" for r in reports)
        raise InputError(f"no puzzle could be built. {why}")
    stored = [part.puzzles for part in parts if isinstance(part.puzzles, Stored)]
    if stored:
        findings, written = deal_stored(folder, stored, settings, workers, watch)
    else:
        held = [puzzle for part in parts for puzzle in part.puzzles]
        findings, written = deal_held(folder, held, settings)
    for stale in {path.stem for path in folder.glob("*.parquet")} - written:
        (folder / f"{stale}.parquet").unlink()
    # Written last: a build whose reports show a failure is rerun with its parts in place.
    _write_reports(folder, reports)
    write_json(folder / LAST, findings.to_json())
    return Build(folder, reports, findings)


def deal_held(
    folder: Path, puzzles: Sequence[Puzzle], settings: BuildSettings
) -> tuple[Audit, set[str]]:
    """Split, audit and write puzzles that are in memory; return the audit and the splits."""
    splits = split_puzzles(puzzles, settings)
    findings = audit(splits)
    _refuse_leaks(findings, settings)
    written = {name for name, members in splits.items() if members or name in SPLITS}
    for name in splits:
        if name in written:
            write_puzzles(splits[name], folder / f"{name}.parquet")
    return findings, written


def deal_stored(
    folder: Path, parts: Sequence[Stored], settings: BuildSettings, workers: int, watch: Watch
) -> tuple[Audit, set[str]]:
    """Split, write and audit puzzles in chunks, for data that do not fit in memory.

    A first pass reads what the split depends on, a second copies the rows, a third audits them.

    Parameters
    ----------
    folder
        Folder of the splits; they are moved there after the audit.
    parts
        Parquet files of puzzles.
    settings
        Settings of the split.
    workers
        Number of processes of the audit.
    watch
        Called with (what is being done, share done), where there are many puzzles.

    Returns
    -------
    Audit
        The audit.
    set of str
        The splits that were written.

    Raises
    ------
    InputError
        When the splits cannot be made, or leak.
    """
    counts: Counter[Traits] = Counter()
    numbers: dict[Traits, int] = {}
    kinds = array("i")
    for part in parts:
        for table in part.tables(["id", "n_cells", "meta"]):
            for row in table.to_pylist():
                meta = json.loads(row["meta"] or "{}")
                kind = traits(row["id"], meta, row["n_cells"], settings)
                counts[kind] += 1
                kinds.append(numbers.setdefault(kind, len(numbers)))
    place = deal(counts, settings)
    names = split_names(settings)
    targets = np.array([names.index(place[kind]) for kind in numbers])[kinds]
    sizes = np.bincount(targets, minlength=len(names)).tolist()
    written = {n: size for n, size in zip(names, sizes, strict=True) if size or n in SPLITS}
    drafts = {name: folder / ".parts" / f"{name}.parquet" for name in written}

    def tell(what: str, share: float) -> None:
        if len(targets) > ROWS:
            watch(what, share)

    try:
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(TableWriter(stack.enter_context(replacing(path))))
                for name, path in drafts.items()
            }
            done = 0
            for part in parts:
                for table in part.tables():
                    here = targets[done : done + len(table)]
                    for i, name in enumerate(names):
                        if (here == i).any():
                            writers[name].write(table.filter(here == i))
                    done += len(table)
                    tell("splitting", done / len(targets))
        findings = audit(
            {name: Stored(drafts[name]) if name in drafts else [] for name in names},
            workers,
            lambda share: tell("auditing", share),
        )
        _refuse_leaks(findings, settings)
        if findings.sizes != dict(zip(names, sizes, strict=True)):
            raise InputError(f"{folder} does not read back as it was written; is the disk sound?")
        for name, path in drafts.items():
            path.replace(folder / f"{name}.parquet")
    finally:
        for path in drafts.values():
            path.unlink(missing_ok=True)
    return findings, set(written)


def _refuse_leaks(findings: Audit, settings: BuildSettings) -> None:
    if findings.leaks and settings.split != "puzzle":
        shared = next(s for s in findings.shared if s.leaks)
        raise InputError(
            f"{shared.first} and {shared.second} would share cells although their donors differ "
            f"by name ({shared.example}): the same cells seem to stand in several files or under "
            "several donors; leave one of them out"
        )


def _write_reports(folder: Path, reports: Sequence[FileReport]) -> None:
    write_json(folder / "build.json", [asdict(report) for report in reports])


def _reports(folder: Path) -> list[FileReport]:
    written = json.loads((folder / "build.json").read_text("utf-8"))
    return [FileReport.from_json(values) for values in written]


def _finished(folder: Path, workers: int) -> Build:
    """Return the result of an earlier, finished run of the same command."""
    findings = audit({n: Stored(path) for n, path in find_splits(folder).items()}, workers)
    return Build(folder, _reports(folder), findings)


def _distinct(files: Sequence[str | Path]) -> list[Path]:
    if not files:
        raise InputError("no file given; expected one or more .h5ad files")
    paths = sorted({Path(file) for file in files}, key=lambda path: (path.stem, str(path)))
    for a, b in pairwise(paths):
        if a.stem == b.stem:
            raise InputError(
                f"{a} and {b} have one name, but a data set is known by its file's name; rename one"
            )
    for path in paths:
        check_place(path)
    return paths


def _check_context(paths: Sequence[Path], settings: BuildSettings) -> None:
    """Refuse a context column that no file has, probably a typo; single files may lack it."""
    missing = set(settings.context_columns)
    for path in paths if missing else ():
        with suppress(InputError), open_h5ad(path) as file:
            missing -= set(open_table(file, "obs"))
    if missing:
        raise InputError(f"no file has the obs column(s) {', '.join(sorted(missing))} for context")


def _check_room(folder: Path) -> None:
    """Refuse a folder with files that no build has written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder to write to")
    if not (folder / "run.json").exists() and any(folder.glob("*.parquet")):
        raise InputError(f"{folder} holds .parquet files of other origin; choose another --out")
