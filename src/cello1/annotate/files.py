"""Files in and out for `cello1 annotate`: labels are added to a copy of the input.

Several files are annotated independently, one after the other or as tasks of a Ray cluster.
Finished files are recorded in the output folder, so that an interrupted call can be resumed.
"""

from __future__ import annotations

import csv
import shutil
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from cello1.annotate.data import Data, open_data
from cello1.annotate.prepare import species
from cello1.annotate.run import annotate_data
from cello1.annotate.table import Annotation
from cello1.cells.h5ad.kinds import check_place
from cello1.cells.h5ad.read import open_h5ad, open_table
from cello1.cells.h5ad.tenx import is_tenx, write_as_h5ad
from cello1.cells.h5ad.write import RESERVED, can_create, writable
from cello1.engine import Engine, each_task
from cello1.errors import InputError, UseError
from cello1.recipes import SolveSettings
from cello1.runs import Run, Watch, beside, file_hash, replacing

KINDS = (".h5ad", ".zarr")


def annotate_file(
    path: Path,
    out: Path,
    *,
    report: Path | None = None,
    labels: Path | None = None,
    watch: Watch = lambda what, share: None,
    **options: Any,
) -> Annotation:
    """Annotate a file; the result is a copy of it with the labels added.

    Parameters
    ----------
    path, out
        An .h5ad file or a .zarr store, and the copy to write, of the same kind; for a matrix of
        Cell Ranger (10x ``.h5``), an .h5ad file of it.
    report
        A page to write as well.
    labels
        A table of all cells to write as well: barcode, label, Cell Ontology id, confidence.
    watch
        Called with (what is being done, share done).
    **options
        As for :func:`cello1.tl.annotate`.

    Raises
    ------
    UseError
        When the copy would be of another kind, or the input itself.
    InputError
        When the data cannot be used, or the copy cannot be written.
    """
    check_out(path, out, options.get("key_added") or "cello1")
    with as_stored(path, out) as stored:
        found = _annotate(stored, report=report, labels=labels, watch=watch, **options)
        add_to_copy(stored, out, found)
    watch("writing", 1.0)
    return found


@contextmanager
def as_stored(path: Path, out: Path) -> Iterator[Path]:
    """Yield the file itself, or for a matrix of Cell Ranger a temporary .h5ad made of it."""
    if not is_tenx(path):
        yield path
        return
    with beside(out) as folder:
        made = folder / f"{path.stem}.h5ad"
        write_as_h5ad(path, made)
        yield made


def _annotate(
    path: Path, *, report: Path | None, labels: Path | None, watch: Watch, **options: Any
) -> Annotation:
    """Annotate a stored data set, and write the page and the table of cells."""
    columns = [options.get(k) for k in ("groupby", "donor_key", "batch_key")]
    columns += list(options.get("context_columns") or {})
    organism = species(options.get("organism"))
    with open_data(path, layer=options.get("layer"), organism=organism, columns=columns) as data:
        found = annotate_data(data, watch=watch, **options)
        watch("writing", 0.0)
        if labels is not None:
            write_labels(data, found, labels)
        if report is not None:
            from cello1.annotate.page import write_page

            write_page(data, found, report)
    return found


@dataclass(frozen=True)
class FileJob:
    """One of many files to be annotated.

    Attributes
    ----------
    path, out
        The file, and the copy to write.
    report, labels
        Page and table to write as well, or None.
    options
        As for :func:`cello1.tl.annotate`.
    """

    path: Path
    out: Path
    report: Path | None
    labels: Path | None
    options: Mapping[str, Any]


def annotate_files(
    paths: Sequence[Path],
    out: Path,
    *,
    report: Path | None = None,
    labels: Path | None = None,
    engine: Engine = "local",
    address: str | None = None,
    watch: Watch = lambda what, share: None,
    **options: Any,
) -> dict[Path, str | None]:
    """Annotate files independently into a folder; files that an earlier call finished are skipped.

    Parameters
    ----------
    paths
        .h5ad files or .zarr stores.
    out
        Folder of the copies, named like the files.
    report, labels
        Folders of pages and tables to write as well.
    engine, address
        ``ray`` runs each file as a task, on the cluster at an address or on this machine; every
        machine must be able to reach files and folders. The labels are the same.
    watch
        Called with (file name, share done).
    **options
        As for :func:`cello1.tl.annotate`, except that `run` holds a folder for each file.

    Returns
    -------
    dict
        Copy -> None, or why it failed; the other files are annotated all the same.

    Raises
    ------
    UseError
        When two files have the same name, or a copy would replace its input.
    InputError
        When the folder holds annotations made with other settings.
    """
    if out.suffix in KINDS or (out.exists() and not out.is_dir()):
        raise UseError(f"--out is {out}; expected a folder for {len(paths)} files")
    jobs = [_job(path, out, report, labels, options) for path in paths]
    for a, b in combinations(jobs, 2):
        if a.out == b.out:
            raise UseError(f"{a.path} and {b.path} have one name; annotate them into two folders")
    for job in jobs:
        if not is_tenx(job.path):
            check_place(job.path)
        check_out(job.path, job.out, options.get("key_added") or "cello1")
    told = {k: _plain_option(v) for k, v in options.items() if k != "run"}
    failed: dict[Path, str | None] = {}
    with Run(out, command="annotate", config=told, inputs=[]) as folder:
        keys = {job.out: f"{job.out.name} {file_hash(job.path)}" for job in jobs}
        finished = folder.finished()
        todo = [job for job in jobs if keys[job.out] not in finished or not job.out.exists()]
        for job, error in _annotate_all(todo, engine, address, watch):
            failed[job.out] = error or None
            record = {"id": keys[job.out]}
            folder.append(record | {"failure": error} if error else record)
            watch(job.path.name, 1.0)
    return {job.out: failed.get(job.out) for job in jobs}


def _job(
    path: Path,
    out: Path,
    report: Path | None,
    labels: Path | None,
    options: Mapping[str, Any],
) -> FileJob:
    run = Path(options.get("run") or out) / f"{path.name}.run"
    return FileJob(
        path,
        out / (path.name if path.suffix in KINDS else f"{path.stem}.h5ad"),
        report and report / f"{path.stem}.html",
        labels and labels / f"{path.stem}.csv",
        {**options, "run": run},
    )


def _annotate_all(
    jobs: Sequence[FileJob], engine: Engine, address: str | None, watch: Watch
) -> Iterator[tuple[FileJob, str]]:
    """Yield each job when it is done, with the reason if it failed."""
    if engine == "ray":

        def work(job: FileJob) -> dict[str, str]:
            return {"error": _try(job, lambda what, share: None)}

        for place, row in each_task(work, jobs, address):
            yield jobs[place], row["error"]
        return
    for job in jobs:
        name = job.path.name
        yield job, _try(job, lambda what, share, name=name: watch(name, 0.0))  # type: ignore[misc]


def _try(job: FileJob, watch: Watch) -> str:
    """Annotate one file; return why it failed, or an empty string."""
    try:
        annotate_file(
            job.path, job.out, report=job.report, labels=job.labels, watch=watch, **job.options
        )
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}"
    except MemoryError:
        return "out of memory"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"unexpected {type(error).__name__} at {last.name}:{last.lineno}: {error}"
    return ""


def _plain_option(value: Any) -> Any:
    """Return an option as JSON, to detect calls with other options."""
    if isinstance(value, SolveSettings):
        return value.model_dump(mode="json", exclude={"engine", "address"})
    if isinstance(value, pd.Series):
        return sorted(map(str, value.dropna().unique()))
    if isinstance(value, Path):
        return {"path": str(value), "content": file_hash(value)} if value.exists() else str(value)
    return value


def check_out(path: Path, out: Path, key: str) -> None:
    """Check that the copy can be written, before the work starts.

    Raises
    ------
    UseError
        When it would be of another kind, or the input itself.
    InputError
        When nothing can be written there.
    """
    kind = ".h5ad" if is_tenx(path) else path.suffix
    if out.suffix not in KINDS or out.suffix != kind:
        wanted = kind if kind in KINDS else ".h5ad or .zarr"
        why = ", as the input does" if kind == path.suffix else ""
        raise UseError(f"--out is {out}; expected a name that ends in {wanted}{why}")
    if out.resolve() == path.resolve():
        raise UseError(f"--out is {out}, the input itself; expected another name")
    if key in RESERVED or "/" in key or not key:
        raise UseError(f"the result cannot be named {key!r}; choose another key_added")
    if out.suffix == ".h5ad" or not out.exists():
        can_create(out)


def add_to_copy(path: Path, out: Path, found: Annotation) -> None:
    """Copy a file and add an annotation to it; `out` appears whole or not at all."""
    if path.suffix == ".zarr":
        _add_to_zarr(path, out, found)
        return
    with replacing(out) as temporary:
        shutil.copyfile(path, temporary)
        with writable(temporary, "r+") as file:
            _add(file, found)


def _add_to_zarr(path: Path, out: Path, found: Annotation) -> None:
    import zarr

    with beside(out) as part:
        new = part / "new"
        shutil.copytree(path, new)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = zarr.open_group(store=str(new), mode="r+", use_consolidated=False)
            _add(group, found)
            zarr.consolidate_metadata(str(new))
        if out.exists():
            out.rename(part / "old")
        new.rename(out)


def _add(store: Any, found: Annotation) -> None:
    """Write the new columns of obs and the element of uns into an open copy."""
    from anndata.io import write_elem

    obs = store["obs"]
    order = [str(name) for name in np.asarray(obs.attrs.get("column-order", [])).tolist()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, values in found.columns().items():
            if name in obs:
                del obs[name]
            write_elem(obs, name, _plain(values))
            if name not in order:
                order.append(name)
        is_zarr = not isinstance(store, h5py.Group)
        obs.attrs["column-order"] = order if is_zarr else np.array(order, dtype=object)
        if "uns" not in store:
            write_elem(store, "uns", {})
        if found.key in store["uns"]:
            del store["uns"][found.key]
        write_elem(store["uns"], found.key, found.uns)


def _plain(values: Any) -> Any:
    """Return categories as plain strings, which every reader of .h5ad supports."""
    if not isinstance(values, pd.Categorical):
        return values
    names = pd.Index(values.categories.astype(object), dtype=object)
    return pd.Categorical.from_codes(values.codes, names)


def write_labels(data: Data, found: Annotation, path: Path) -> None:
    """Write a table of all cells as CSV that R and Seurat can read."""
    columns = found.columns()
    key = found.key
    named = {
        "label": columns[key],
        "ontology_term_id": columns[f"{key}_ontology_term_id"],
        "confidence": columns[f"{key}_confidence"],
        "coarse": columns[f"{key}_coarse"],
        "fine": columns[f"{key}_fine"],
    }
    names = np.append(np.array(found.clusters.names, dtype=object), "")
    table = pd.DataFrame({"cluster": names[found.clusters.codes], **named}, index=data.cell_names())
    table.index.name = "barcode"
    text = StringIO()
    table.to_csv(text, float_format="%.6g", quoting=csv.QUOTE_MINIMAL)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8")


def read_reference(path: Path, key: str) -> Any:
    """Read the cell types of a reference, without its matrix.

    Raises
    ------
    InputError
        When it has no such column.
    """
    with open_h5ad(path) as file:
        obs = open_table(file, "obs")
        if key not in obs:
            named = ", ".join(sorted(obs)[:30]) or "no columns"
            raise InputError(f"{path} has no obs column {key!r}; obs has {named}: name another")
        return pd.Series(obs.column(key))
