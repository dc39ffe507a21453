"""Process files in parallel: each becomes a part on disk, and an error affects its file only.

A part is reused if it was made with the same settings from a file of the same content.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from cello1.cells.make import make_puzzles
from cello1.cells.report import FileReport
from cello1.cells.workers import Pool, ending_when_still
from cello1.engine import Engine, each_task
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import Stored, write_puzzles
from cello1.recipes import BuildSettings
from cello1.runs import Watch, write_json


@dataclass(frozen=True)
class Job:
    """One file to be made into puzzles.

    Attributes
    ----------
    path, content
        The file and the hash of its content.
    parts
        Folder of the parts.
    settings
        How to make puzzles.
    kept
        Whether to store a part; that of a single file would never be reused.
    """

    path: Path
    content: str
    parts: Path
    settings: BuildSettings
    kept: bool

    @property
    def table(self) -> Path:
        """Path of its puzzles, named by a hash of content and settings."""
        made_of = self.settings.model_dump_json() + self.content
        key = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        return self.parts / f"{self.path.stem}-{key}.parquet"

    @property
    def note(self) -> Path:
        """Path of its report."""
        return self.table.with_suffix(".json")

    def done(self) -> Part | None:
        """Return a part made earlier; its report is written last, so that the part is complete."""
        with suppress(OSError, ValueError):
            report = FileReport.from_json(json.loads(self.note.read_text("utf-8")))
            part = Part(report, Stored(self.table))
            if sum(map(len, Stored(self.table).tables())) == report.puzzles:
                return part
        return None


class Part(NamedTuple):
    """The report on one file, and its puzzles: in memory, or in the file of the part."""

    report: FileReport
    puzzles: list[Puzzle] | Stored


def run_job(job: Job, watch: Callable[[float], None]) -> Part:
    """Make one part; errors are reported for this file only."""
    try:
        puzzles, report = make_puzzles(job.path, job.settings, watch)
        if job.kept:
            write_puzzles(puzzles, job.table)
            write_json(job.note, asdict(report))
        return Part(report, Stored(job.table) if job.kept else puzzles)
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.strerror or error}"
    except MemoryError:
        message = "out of memory; use fewer --workers"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"unexpected {type(error).__name__} at {last.name}:{last.lineno}: {error}"
    return _failed(job, message)


def _failed(job: Job, message: str) -> Part:
    return Part(FileReport(str(job.path), job.path.stem, status="failed", message=message), [])


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    watch: Watch,
    engine: Engine = "local",
    address: str | None = None,
    *,
    may_end: bool = False,
) -> list[Part]:
    """Make all parts, with several workers if requested; return them in the order of the jobs.

    A worker whose file makes no progress is ended; without workers this process ends, if `may_end`.
    """
    parts = {job.path: part for job in jobs if (part := job.done()) is not None}
    todo = [job for job in jobs if job.path not in parts]
    workers = min(workers, len(todo))
    if engine == "ray":
        parts |= _run_on_ray(todo, address, watch)
    elif workers <= 1:
        for job in todo:
            with ending_when_still(job.path) if may_end else nullcontext(lambda: None) as beat:
                parts[job.path] = run_job(job, _told(watch, job.path.stem, beat))
            watch(job.path.stem, 1.0)
    else:
        with Pool(todo, workers, f"{__name__}:run_job") as pool:
            for job, part in pool.run(lambda job, share: watch(job.path.stem, share)):
                parts[job.path] = part if isinstance(part, Part) else _failed(job, part)
    return [parts[job.path] for job in jobs]


def _told(watch: Watch, name: str, beat: Callable[[], None]) -> Callable[[float], None]:
    def tell(share: float) -> None:
        beat()
        watch(name, share)

    return tell


def _run_on_ray(todo: Sequence[Job], address: str | None, watch: Watch) -> dict[Path, Part]:
    """Make parts as tasks of Ray; they are returned as files, which every machine must reach."""

    def work(job: Job) -> dict[str, str]:
        return {"report": json.dumps(asdict(run_job(job, lambda share: None).report))}

    parts: dict[Path, Part] = {}
    for place, row in each_task(work, todo, address):
        job, report = todo[place], FileReport.from_json(json.loads(row["report"]))
        part = Part(report, []) if report.status == "failed" else job.done()
        parts[job.path] = part or _failed(
            job, f"its part is not in {job.parts}, which every machine of the cluster must share"
        )
        watch(job.path.stem, 1.0)
    return parts
