"""Many files of cells -> a folder of puzzles: train, validation, test, and a proof of no leaks.

Each file is made by one process. Where there are several, each is kept as a part, so that an
interrupted build resumes. The bytes written do not depend on the number of workers or on
PYTHONHASHSEED.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cello1.cells.audit import Audit, audit
from cello1.cells.census import fetch, is_census
from cello1.cells.h5ad.kinds import check_place
from cello1.cells.h5ad.read import open_h5ad, open_table
from cello1.cells.jobs import Engine, Job, Part, run_jobs
from cello1.cells.report import FileReport
from cello1.cells.split import SPLITS, refuse_names, split_puzzles
from cello1.cells.workers import leave_unguarded_script
from cello1.errors import InputError
from cello1.puzzles.source import find_splits
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.recipes import BuildSettings
from cello1.recipes.census import CensusSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Run, Watch, sweep, write_json

LAST = "audit.json"


@dataclass(frozen=True)
class Build:
    """What a build made.

    Attributes
    ----------
    folder
        Where the puzzles lie.
    reports
        One per file, in the order of their names.
    audit
        The findings over all splits.
    """

    folder: Path
    reports: list[FileReport]
    audit: Audit

    @property
    def ok(self) -> bool:
        """No file failed and the audit passed (a split by puzzle leaks as was asked)."""
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
        A new folder, or one that holds an unfinished or the same build.
    settings, **changes
        How to make puzzles: :class:`cello1.recipes.BuildSettings` or a recipe, and its fields by
        keyword, such as ``n_min=5``.
    query
        Which cells of the Census are taken.
    workers
        Processes; one file each.
    engine, address
        ``ray`` makes a task of each file, on the cluster at an address or on this machine; files
        and folder must lie where every machine reaches them. The bytes are the same.
    watch
        Called with a data set and the share of its rows read.

    Returns
    -------
    Build
        Files that failed are reported in it; the puzzles of the others are there.

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
            return _finished(folder)
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
            parts = run_jobs(jobs, workers, watch, engine, address)
        finally:
            sweep(kept)  # what a worker was writing when it was ended
        reports = [part.report for part in parts]
        try:
            result = _assemble(folder, parts, settings)
        except InputError:
            if not (folder / LAST).exists():
                _write_reports(folder, reports)
            raise
        if not any(report.status == "failed" for report in reports):
            shutil.rmtree(kept)  # else they serve the next try
    return result


def _assemble(folder: Path, parts: Sequence[Part], settings: BuildSettings) -> Build:
    reports = [part.report for part in parts]
    puzzles = [puzzle for part in parts for puzzle in part.puzzles]
    if not puzzles:
        why = "; ".join(f"{r.dataset}: {r.message}" for r in reports)
        raise InputError(f"no puzzle could be built. {why}")
    splits = split_puzzles(puzzles, settings)
    findings = audit(splits)
    if findings.leaks and settings.split != "puzzle":
        shared = next(s for s in findings.shared if s.leaks)
        raise InputError(
            f"{shared.first} and {shared.second} would share cells although their donors differ "
            f"by name ({shared.example}): the same cells seem to stand in several files or under "
            "several donors; leave one of them out"
        )
    for name, members in splits.items():
        if members or name in SPLITS:
            write_puzzles(members, folder / f"{name}.parquet")
    for stale in {path.stem for path in folder.glob("*.parquet")} - set(splits):
        (folder / f"{stale}.parquet").unlink()
    # Only now: a build whose reports show a failure is tried again, with what it had in place.
    _write_reports(folder, reports)
    write_json(folder / LAST, findings.to_json())
    return Build(folder, reports, findings)


def _write_reports(folder: Path, reports: Sequence[FileReport]) -> None:
    write_json(folder / "build.json", [asdict(report) for report in reports])


def _reports(folder: Path) -> list[FileReport]:
    written = json.loads((folder / "build.json").read_text("utf-8"))
    return [FileReport.from_json(values) for values in written]


def _finished(folder: Path) -> Build:
    """Read back what an earlier, finished run of the same command made."""
    findings = audit({n: read_puzzles(path) for n, path in find_splits(folder).items()})
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
    """Refuse a context column that no file has: a file may lack it, a typing error hits all."""
    missing = set(settings.context_columns)
    for path in paths if missing else ():
        with suppress(InputError), open_h5ad(path) as file:
            missing -= set(open_table(file, "obs"))
    if missing:
        raise InputError(f"no file has the obs column(s) {', '.join(sorted(missing))} for context")


def _check_room(folder: Path) -> None:
    """Refuse a folder whose files are not ours to replace."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder to write to")
    if not (folder / "run.json").exists() and any(folder.glob("*.parquet")):
        raise InputError(f"{folder} holds .parquet files of other origin; choose another --out")
