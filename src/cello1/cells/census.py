"""Cells of the CELLxGENE Census, or of any SOMA experiment with its schema.

A query is written as one small `.h5ad` file per data set, which is read, filtered and ranked like
any other: the Census gives the same lists as the files it was built from. Cells are drawn from obs
alone, so that only the drawn rows of X are downloaded, however large the tissue. Rows are streamed
in blocks; memory grows with the number of drawn cells, not with the number of cells searched.

The extracts are kept in a folder named by a hash of their content; an interrupted query resumes
with the first missing data set.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.cells.h5ad.categories import is_unnamed
from cello1.cells.h5ad.write import writable
from cello1.errors import InputError, UseError
from cello1.recipes.census import CensusSettings
from cello1.runs import Watch, replacing

if TYPE_CHECKING:
    import pyarrow as pa
    import tiledbsoma as soma

PREFIX = "census:"
# Columns of the CELLxGENE schema that are read; a SOMA experiment may lack some.
COLUMNS = (
    "assay", "cell_type", "cell_type_ontology_term_id", "development_stage", "disease",
    "donor_id", "organism", "self_reported_ethnicity", "sex", "suspension_type", "tissue",
    "tissue_general", "tissue_type",
)  # fmt: skip
NEEDED = ("cell_type", "dataset_id", "donor_id")
# Labels of the Census that are not cell types.
NO_TYPE = ("cell", "unknown")
ROWS = 4_096
_TRIES = 5


@dataclass(frozen=True)
class DataSet:
    """The cells of one data set that match a query.

    Attributes
    ----------
    id
        Its id in the Census.
    cells
        Number of cells that pass the filter.
    donors
        Donor -> number of its types, among usable cells.
    types
        Number of types among usable cells.
    drops
        Rule -> number of cells dropped by it.
    drawn
        Ids (``soma_joinid``) of the drawn cells, sorted.
    """

    id: str
    cells: int
    donors: dict[str, int]
    types: int
    drops: dict[str, int]
    drawn: npt.NDArray[np.int64] = field(repr=False)


def is_census(source: str | Path) -> bool:
    """Return whether a source names the Census, not a file."""
    return str(source).startswith(PREFIX)


def fetch(
    source: str,
    settings: CensusSettings,
    folder: Path,
    seed: int,
    watch: Watch = lambda name, share: None,
) -> list[Path]:
    """Run a query and write its extracts; see :func:`look_up` and :func:`extract`."""
    found = look_up(source, settings, seed, lambda share: watch("looking through obs", share))
    return extract(source, settings, found, folder, seed, watch)


def look_up(
    source: str, settings: CensusSettings, seed: int, watch: Callable[[float], None] | None = None
) -> list[DataSet]:
    """Find the cells of a query and draw some of each donor and type, without reading X.

    Parameters
    ----------
    source
        ``census:`` for the public Census, ``census:URI`` for a copy of it or a SOMA experiment.
    settings
        Release, filter, organism, and number of cells to draw.
    seed
        Seed of the draw; whether a cell is drawn does not depend on other data sets.
    watch
        Called with the share of rows searched.

    Raises
    ------
    InputError
        When the source cannot be opened, lacks a column, or has no matching cell.
    UseError
        When the filter cannot be read.
    """
    with _experiment(source, settings) as experiment:
        return _draw(experiment, settings, seed, watch or (lambda share: None))


def extract(
    source: str,
    settings: CensusSettings,
    found: Sequence[DataSet],
    folder: Path,
    seed: int,
    watch: Watch = lambda name, share: None,
) -> list[Path]:
    """Write the drawn cells of every data set as an `.h5ad` file; existing extracts are kept.

    Parameters
    ----------
    source, settings, seed
        As for :func:`look_up`.
    found
        The result of :func:`look_up`.
    folder
        Where the extracts go: one folder per set of drawn cells, so that the file's name is the
        data set's.
    watch
        Called with a data set and the share of its cells that is read.
    """
    paths = []
    for data in found:
        if not len(data.drawn):
            continue
        made_of = [settings.census, source, settings.organism, data.id, seed, data.drawn.tolist()]
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
        path = folder / key / f"{data.id}.h5ad"
        if not path.exists():
            _retry(source, settings, data, path, watch)
        watch(data.id, 1.0)
        paths.append(path)
    if not paths:
        raise InputError("no cell of the query can be used; loosen --where")
    return paths


def _retry(
    source: str,
    settings: CensusSettings,
    data: DataSet,
    path: Path,
    watch: Watch,
) -> None:
    """Write one extract, with retries after growing delays when the connection breaks."""
    for attempt in range(_TRIES):
        try:
            with _experiment(source, settings) as experiment:
                _write(experiment, settings, data, path, lambda share: watch(data.id, share))
            return
        except OSError:  # of this machine: retrying does not help with a full disk
            raise
        except Exception as error:
            if isinstance(error, InputError | UseError):
                raise
            if attempt == _TRIES - 1:
                raise InputError(
                    f"{data.id}: reading the Census failed {_TRIES} times "
                    f"({_reason(error)}); run the command again to resume"
                ) from error
            time.sleep(2.0**attempt * _PATIENCE)


_PATIENCE = 1.0


@contextmanager
def _experiment(source: str, settings: CensusSettings) -> Iterator[soma.Experiment]:
    """Open the experiment of an organism."""
    _need_tiledbsoma()
    import tiledbsoma as soma

    uri = source.removeprefix(PREFIX)
    if uri:
        with _opened(lambda: soma.open(uri), f"{uri} cannot be opened as SOMA") as opened:
            if isinstance(opened, soma.Experiment):
                yield opened
                return
            yield _organism(opened, settings, uri)
            return
    what = f"release {settings.census} of the Census"
    with _opened(lambda: _release(settings.census), f"{what} cannot be opened") as top:
        yield _organism(top, settings, f"release {settings.census}")


def _release(name: str) -> Any:
    """Open a release of the public Census."""
    if find_spec("cellxgene_census") is None:
        raise InputError("the Census needs cellxgene-census: pip install 'cello1[census]'")
    with _importing("cellxgene-census"):
        import cellxgene_census
    try:
        return cellxgene_census.open_soma(census_version=name)
    except ValueError as error:
        raise InputError(
            f"the Census has no release {name!r} ({_reason(error)}); expected a date such as "
            "2025-11-08, or stable or latest: --census"
        ) from error
    except OSError as error:
        told = getattr(error.args[0], "reason", error) if error.args else error
        raise InputError(
            f"the Census cannot be reached ({_reason(told).rpartition('): ')[2]}); is there a "
            "connection to the internet? A copy on this machine is read as census:FOLDER"
        ) from error


@contextmanager
def _opened(open_it: Callable[[], Any], what: str) -> Iterator[Any]:
    try:
        opened = open_it()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{what} ({_reason(error)}); expected the name of a release such as 2025-11-08 and a "
            "connection to it, or census:URI with a SOMA experiment or a copy of the Census"
        ) from error
    with opened:
        yield opened


def _organism(top: Any, settings: CensusSettings, what: str) -> Any:
    data = top.get("census_data", {})
    if settings.organism not in data:
        raise InputError(
            f"{what} has no {settings.organism}; it holds {', '.join(sorted(data)) or 'no cells'}"
        )
    return data[settings.organism]


def _need_tiledbsoma() -> None:
    if find_spec("tiledbsoma") is None:
        raise InputError("the Census needs tiledbsoma: pip install 'cello1[census]'")
    version = metadata.version("tiledbsoma")
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 3):
        raise InputError(
            f"tiledbsoma {version} is installed, which does not go with today's pandas; "
            "expected 2.3 or newer: pip install 'tiledbsoma>=2.3'"
        )
    with _importing("tiledbsoma"):
        import tiledbsoma  # noqa: F401


@contextmanager
def _importing(name: str) -> Iterator[None]:
    """Report incompatible versions, which raise all kinds of errors when imported."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"{name} {metadata.version(name)} cannot be imported with pandas "
            f"{metadata.version('pandas')} ({_reason(error)}); install versions that go together: "
            "pip install --upgrade 'cello1[census]'"
        ) from error


def _filter(columns: Sequence[str], settings: CensusSettings) -> str:
    """Return the filter of cells: primary data, not nuclei unless requested, and the user's."""
    rules = [f"({settings.where})"] if settings.where.strip() else []
    if "is_primary_data" in columns and "is_primary_data" not in settings.where:
        rules.append("is_primary_data == True")
    if "suspension_type" in columns and "suspension_type" not in settings.where:
        rules.append("suspension_type == 'cell'")
    return " and ".join(rules)


def _draw(
    experiment: soma.Experiment,
    settings: CensusSettings,
    seed: int,
    watch: Callable[[float], None],
) -> list[DataSet]:
    columns = list(experiment.obs.schema.names)
    if missing := [name for name in NEEDED if name not in columns]:
        raise InputError(
            f"obs of the SOMA experiment has no {', '.join(missing)}; it has {', '.join(columns)}"
        )
    rows = experiment.obs.count
    cells: Counter[str] = Counter()
    seen: dict[str, set[tuple[str, str]]] = {}
    drops: dict[str, Counter[str]] = {}
    drawn: dict[tuple[str, str, str], tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    read = 0
    for table in _tables(experiment, settings, columns):
        if not table.num_rows:
            continue
        ids = np.asarray(table.column("soma_joinid"))
        order = _hashes(ids, seed)
        keys = table.select(["dataset_id", "donor_id", "cell_type"]).to_pandas().astype(str)
        for key, members in keys.groupby(list(keys), sort=True).indices.items():
            dataset, donor, kind = key
            cells[dataset] += len(members)
            rule = _rule(donor, kind)
            if rule is not None:
                drops.setdefault(dataset, Counter())[rule] += len(members)
                continue
            seen.setdefault(dataset, set()).add((donor, kind))
            old = drawn.get(key)
            merged_ids, merged = ids[members], order[members]
            if old is not None:
                merged_ids = np.concatenate([old[0], merged_ids])
                merged = np.concatenate([old[1], merged])
            best = np.lexsort((merged_ids, merged))[: settings.per_type]
            drawn[key] = (merged_ids[best], merged[best])
        read += len(ids)
        watch(min(1.0, read / max(1, rows)))
    if not cells:
        raise InputError(
            f"no cell fits the filter {_filter(columns, settings) or '(none)'}; "
            "loosen --where, or see which values there are with cello1 doctor census:"
        )
    return [
        DataSet(
            dataset,
            cells[dataset],
            dict(sorted(Counter(donor for donor, _ in seen.get(dataset, ())).items())),
            len({kind for _, kind in seen.get(dataset, ())}),
            dict(sorted(drops.get(dataset, {}).items())),
            np.sort(
                np.concatenate(
                    [np.empty(0, np.int64)]
                    + [chosen for (name, *_), (chosen, _) in drawn.items() if name == dataset]
                )
            ),
        )
        for dataset in sorted(cells)
    ]


def _rule(donor: str, kind: str) -> str | None:
    if kind.strip().casefold() in NO_TYPE or is_unnamed(kind):
        return "cell type unknown"
    return "donor unknown or pooled" if is_unnamed(donor) else None


def _tables(
    experiment: soma.Experiment, settings: CensusSettings, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the obs rows that fit the filter."""
    import tiledbsoma as soma

    asked = _filter(columns, settings)
    try:
        yield from experiment.obs.read(
            value_filter=asked or None, column_names=["soma_joinid", *NEEDED]
        )
    except soma.SOMAError as error:
        reason = _reason(error)
        if "does not exist in schema" in reason or "Could not parse" in reason:
            raise UseError(
                f"the filter {asked!r} cannot be used ({reason}); columns are {', '.join(columns)}"
            ) from error
        raise InputError(f"obs of the Census cannot be read ({reason})") from error
    except (SyntaxError, AttributeError, ValueError, TypeError) as error:
        raise UseError(
            f"the filter {asked!r} cannot be read ({_reason(error)}); expected one such as "
            "\"tissue_general == 'lung' and disease == 'normal'\""
        ) from error


def _hashes(ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Return a hash of every cell by which some are drawn (SplitMix64 of id and seed)."""
    start = int.from_bytes(hashlib.sha256(f"census\x1f{seed}".encode()).digest()[:8])
    x = ids.astype(np.uint64) + np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def _write(
    experiment: soma.Experiment,
    settings: CensusSettings,
    data: DataSet,
    path: Path,
    watch: Callable[[float], None],
) -> None:
    """Stream the drawn rows into a file, which is written atomically."""
    import tiledbsoma as soma

    layers = experiment.ms["RNA"].X
    layer = "raw" if "raw" in layers else next(iter(layers))
    with (
        replacing(path) as part,
        writable(part, "w") as file,
        experiment.axis_query("RNA", obs_query=soma.AxisQuery(coords=(data.drawn,))) as query,
    ):
        columns = np.sort(np.asarray(query.var_joinids()))
        _write_tables(file, query, data, settings)
        blocks = query.X(layer).blockwise(
            axis=0, size=ROWS, eager=False, reindex_disable_on_axis=[1]
        )
        _write_matrix(file, blocks.scipy(compress=True), data, columns, watch)


def _write_matrix(
    file: h5py.File,
    blocks: Any,
    data: DataSet,
    columns: npt.NDArray[np.int64],
    watch: Callable[[float], None],
) -> None:
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array([len(data.drawn), len(columns)])
    arrays = {
        name: group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 16,))
        for name, dtype in (("data", np.float32), ("indices", np.int32))
    }
    identity = len(columns) and columns[-1] == len(columns) - 1
    lengths = []
    for block, (rows, _) in blocks:
        matrix = block.tocsr()[np.argsort(np.asarray(rows), kind="stable")]
        matrix.sort_indices()
        indices = matrix.indices if identity else np.searchsorted(columns, matrix.indices)
        start = len(arrays["data"])
        for name, values in (("data", matrix.data), ("indices", indices)):
            arrays[name].resize((start + len(values),))
            arrays[name][start:] = values
        lengths.append(np.diff(matrix.indptr))
        watch(sum(map(len, lengths)) / len(data.drawn))
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    if len(pointers) != len(data.drawn) + 1:
        raise RuntimeError(f"{len(pointers) - 1} rows came of {len(data.drawn)} asked for")
    group.create_dataset("indptr", data=pointers)
    for array in group.values():
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _write_tables(file: h5py.File, query: Any, data: DataSet, settings: CensusSettings) -> None:
    """Write obs, var and their provenance."""
    from anndata.io import write_elem

    obs = query.obs().concat().sort_by("soma_joinid").to_pandas()
    names = [f"{data.id}:{i}" for i in obs["soma_joinid"]]
    obs = obs[[name for name in COLUMNS if name in obs]].astype(str).astype("category")
    write_elem(file, "obs", obs.set_index(pd.Index(names, dtype=object)))
    var = query.var().concat().sort_by("soma_joinid").to_pandas()
    var = var.set_index(pd.Index(var["feature_id"].astype(str), dtype=object, name=None))
    write_elem(file, "var", var[[name for name in ("feature_name",) if name in var]])
    note = {
        "source": "CELLxGENE Census", "census": settings.census, "where": settings.where,
        "dataset_id": data.id, "cells": data.cells, "drops": data.drops,
    }  # fmt: skip
    organism = settings.organism.replace("_", " ").capitalize()
    write_elem(file, "uns", {"census": json.dumps(note, sort_keys=True), "organism": organism})


def _reason(error: object) -> str:
    """Return the first line of an error of TileDB, without the trace appended to it."""
    said = str(error).split("\n")[0].strip()
    if said[:1] in ("'", '"') and said[-1:] == said[:1]:  # as a KeyError quotes
        said = said[1:-1]
    return said[:200] or type(error).__name__
