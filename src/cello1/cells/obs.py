"""Which cells are usable, the group of each, and what is known about it.

Every dropped cell is counted under the first rule it breaks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.cells.h5ad.categories import (
    Columns,
    Mask,
    are_equal,
    are_unnamed,
    as_categories,
    categorical,
    is_unnamed,
)
from cello1.cells.h5ad.columns import Table
from cello1.cells.h5ad.read import Source
from cello1.cells.report import Drop
from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import FORBIDDEN
from cello1.recipes import BuildSettings

# The first of these that a file has separates experimental batches; --batch-key overrules.
BATCH_COLUMNS = ("batch", "batch_id", "library_id", "library_uuid", "sample_id", "sample")
# Where a file joins several data sets, donor 1 of each is a person of its own.
STUDY_COLUMNS = ("dataset_id", "dataset", "study_id", "study")
POOLED, ONE_DONOR = "pooled", "one donor"
# The Cell Ontology has about 3,500 terms; a column with more values holds something else.
MAX_TYPES = 4_000
_RULED = (
    "cell_type_ontology_term_id", "is_primary_data", "is_synthetic", "suspension_type", "tissue",
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?$")


@dataclass(frozen=True)
class Cells(Columns):
    """The cells of one file as parallel arrays, before any expression is read.

    Attributes
    ----------
    keep
        Cells that passed every rule, shape (cells,).
    drops
        Rule -> number of cells dropped by it.
    types, type_names
        Codes into the names of the cell types; -1 where dropped.
    groups, group_keys
        Codes into (donor_id, batch, tissue) keys; -1 where dropped.
    donor_kind
        How donors are named: ``named``, ``pooled`` or ``one donor``, per group.
    batch_key
        The column that separates batches, or None.
    studies
        Of each group the data set that it is from, where a file joins several; else None.
    notes
        What a reader must know of donors and batches.
    """

    keep: Mask
    drops: dict[str, int]
    types: npt.NDArray[np.int32]
    type_names: list[str]
    groups: npt.NDArray[np.int32]
    group_keys: list[tuple[str, str | None, str | None]]
    donor_kind: list[str]
    batch_key: str | None
    studies: list[str | None]
    notes: list[str]


def read_obs(source: Source, settings: BuildSettings, context: tuple[str, ...]) -> Cells:
    """Apply the rules of `settings` to the observations of a file.

    Parameters
    ----------
    source
        The open file.
    settings
        Which columns to use and what to drop.
    context
        Further columns to read, for the donor context.

    Raises
    ------
    InputError
        When the donor or cell type column is missing or holds something else.
    """
    obs = source.obs
    _check_names(obs)
    types = _cell_types(obs, settings)
    wanted = {*_RULED, *context}
    columns = {name: categorical(obs, name) for name in sorted(wanted) if name in obs}
    donors, unnamed = _donors(obs, settings, source)

    keep, drops = np.ones(source.n_cells, dtype=bool), {}

    def drop(rule: str, where: Mask) -> None:
        if count := int((keep & where).sum()):
            drops[str(rule)] = count
        keep[where] = False

    if "is_primary_data" in columns:
        primary = columns["is_primary_data"]  # R writes truth as a number
        drop(Drop.NOT_PRIMARY, ~(are_equal(primary, "true") | are_equal(primary, "1")))
    if "suspension_type" in columns and settings.suspension_type != "any":
        kind = settings.suspension_type
        drop(f"{Drop.SUSPENSION} {kind}", ~are_equal(columns["suspension_type"], kind))
    drop(Drop.NO_TYPE, are_unnamed(types))
    if not settings.pooled_donors:
        drop(Drop.NO_DONOR, unnamed)

    batch_key, batches, notes = _batches(obs, settings)
    notes += _look_alikes(donors, keep)
    study_key, studies = _studies(obs, settings, batch_key)
    groups, keys, owners = _groups(keep, donors, studies, batches, columns.get("tissue"))
    notes += _shared_names(keys, owners, study_key)
    kinds = [
        ONE_DONOR
        if settings.donor_key not in obs
        else POOLED
        if key[0] == _pool(source)
        else "named"
        for key in keys
    ]
    return Cells(
        columns,
        keep,
        drops,
        np.where(keep, types.codes, -1).astype(np.int32),
        [str(name).strip() for name in types.categories],
        groups,
        keys,
        kinds,
        batch_key,
        owners,
        notes,
    )


def _check_names(obs: Table) -> None:
    """Refuse repeated observation names, reading them in pieces."""
    hashes = [obs.hashes(slice(at, at + 10_000)) for at in range(0, len(obs), 10_000)]
    if not hashes:
        raise InputError("the file has no cells; expected a table obs with a row for each")
    every = np.sort(np.concatenate(hashes))
    if np.any(every[1:] == every[:-1]):
        _, first, counts = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
        at = int(first[np.argmax(counts > 1)])
        (name,) = obs.names(slice(at, at + 1))
        raise InputError(
            f"{int((counts > 1).sum())} obs names are used for several cells, such as "
            f"{brief(name)}; cells must be told apart: run adata.obs_names_make_unique()"
        )


def _cell_types(obs: Table, settings: BuildSettings) -> pd.Categorical:
    key = settings.cell_type_key
    if key not in obs:
        raise InputError(
            f"no obs column {key!r} with cell types{_choices(obs)}; name it with --cell-type-key"
        )
    types = categorical(obs, key)
    names = [str(name) for name in types.categories if not is_unnamed(str(name))]
    if names and all(_NUMBER.match(name) for name in names):
        raise InputError(
            f"obs column {key!r} holds numbers ({', '.join(names[:3])}, ...), which look like "
            "category codes or clusters; expected names of cell types: map them to names first"
        )
    if len(names) > MAX_TYPES:
        raise InputError(
            f"obs column {key!r} has {len(names):,} different values such as {brief(names[0])}; "
            f"expected names of cell types (at most {MAX_TYPES:,}): is it a column of cell ids?"
        )
    for name in names:
        if found := FORBIDDEN.search(name.strip()):
            raise InputError(
                f"cell type {brief(name)} holds {brief(found.group())}, which has a meaning in "
                "prompts and answers ('|', line breaks and response tags do): rename the type"
            )
    # Names that differ only in case or blanks are one type; the first spelling wins.
    spelling: dict[str, str] = {}
    merged = [
        spelling.setdefault(str(n).strip().casefold(), str(n).strip()) for n in types.categories
    ]
    if len(spelling) == len(merged):
        return types
    return pd.Categorical(np.array([*merged, None], dtype=object)[types.codes])


def _donors(obs: Table, settings: BuildSettings, source: Source) -> tuple[pd.Categorical, Mask]:
    key, n = settings.donor_key, source.n_cells
    if key not in obs:
        if not settings.one_donor:
            raise InputError(
                f"no obs column {key!r} with donors{_choices(obs)}; name it with --donor-key, or "
                "pass --one-donor if all cells come from one person"
            )
        everyone: pd.Categorical = pd.Categorical(np.full(n, source.dataset, dtype=object))
        return everyone, np.zeros(n, dtype=bool)
    donors = categorical(obs, key)
    unnamed = are_unnamed(donors)
    if settings.pooled_donors and unnamed.any():
        names = np.array([*donors.categories, ""], dtype=object)[donors.codes]
        names[unnamed] = _pool(source)
        donors = pd.Categorical(names)
    return donors, unnamed


def _pool(source: Source) -> str:
    return f"pooled:{source.dataset}"


def _batches(
    obs: Table, settings: BuildSettings
) -> tuple[str | None, pd.Categorical | None, list[str]]:
    """Find the column of batches: the one named, else the first usual one that qualifies."""
    key = settings.batch_key
    if key is not None:
        if key not in obs:
            raise InputError(f"no obs column {key!r} for batches{_choices(obs)}")
        values = obs.column(key)
        if why := no_batch(values):
            raise InputError(
                f"obs column {key!r} cannot tell batches apart: {why}; name another with "
                "--batch-key"
            )
        return key, as_categories(values), []
    notes = []
    for name in (name for name in BATCH_COLUMNS if name in obs):
        values = obs.column(name)
        if why := no_batch(values):
            notes.append(f"obs column {name!r} was not taken for the batch: {why}")
            continue
        return name, as_categories(values), notes
    return None, None, notes


def no_batch(values: Any) -> str | None:
    """Return why a column cannot distinguish batches, or None."""
    kinds = as_categories(values)
    raw = values.categories if isinstance(values, pd.Categorical) else np.asarray(values)
    if getattr(raw.dtype, "kind", "O") == "f":
        finite = np.asarray(raw, dtype=float)
        finite = finite[np.isfinite(finite)]
        if len(finite) and np.any(finite != np.floor(finite)):
            return "it holds fractions, so it is a measurement"
    met = len(np.unique(kinds.codes[kinds.codes >= 0]))
    if met > max(1, len(kinds) / 2):
        return f"it has {met:,} values for {len(kinds):,} cells, about one for each"
    return None


def _studies(
    obs: Table, settings: BuildSettings, batch_key: str | None
) -> tuple[str | None, pd.Categorical | None]:
    """Find the column with the data set of each cell in a joined file."""
    taken = (settings.donor_key, settings.cell_type_key, batch_key)
    for name in (name for name in STUDY_COLUMNS if name in obs and name not in taken):
        values = obs.column(name)
        kinds = as_categories(values)
        if no_batch(values) is None and len(np.unique(kinds.codes)) > 1:
            return name, kinds
    return None, None


def _groups(
    keep: Mask,
    donors: pd.Categorical,
    studies: pd.Categorical | None,
    batches: pd.Categorical | None,
    tissue: pd.Categorical | None,
) -> tuple[npt.NDArray[np.int32], list[tuple[str, str | None, str | None]], list[str | None]]:
    """Group cells by donor, batch and tissue; a donor belongs to one data set."""
    if studies is None:
        groups, keys = group_cells(keep, donors, batches, tissue)
        return groups, keys, [None] * len(keys)
    # Donor and data set become one name, which is parted again in the keys.
    names = np.array([*donors.categories, ""], dtype=object)[donors.codes]
    owners = np.array([*(str(c).strip() for c in studies.categories), ""], dtype=object)
    joined = names + "\x1f" + owners[studies.codes]
    joined[donors.codes < 0] = None
    groups, keys = group_cells(keep, pd.Categorical(joined), batches, tissue)
    parted = [((k[0] or "").partition("\x1f"), k[1:]) for k in keys]
    return (
        groups,
        [(name.strip(), *rest) for (name, _, _), rest in parted],
        [owner or None for (_, _, owner), _ in parted],
    )


def _shared_names(
    keys: list[tuple[str, str | None, str | None]], owners: list[str | None], column: str | None
) -> list[str]:
    met: dict[str, set[str]] = {}
    for (donor, _, _), owner in zip(keys, owners, strict=True):
        met.setdefault(donor, set()).add(owner or "")
    shared = sorted(donor for donor, where in met.items() if len(where) > 1)
    if not shared:
        return []
    return [
        f"{len(shared)} donor name(s) such as {brief(shared[0])} occur in several data sets "
        f"({column}): no puzzle mixes them, and splits keep them together"
    ]


def _look_alikes(donors: pd.Categorical, keep: Mask) -> list[str]:
    """Name donors that differ only in case or blanks."""
    alike: dict[str, list[str]] = {}
    for code in np.unique(donors.codes[keep & (donors.codes >= 0)]).tolist():
        name = str(donors.categories[code])
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    return [
        f"donors {' and '.join(map(repr, names))} differ only in case or blanks: no puzzle mixes "
        "them, and splits keep them together; give them one name if they are one person"
        for names in alike.values()
        if len(names) > 1
    ]


def group_cells(
    keep: Mask,
    donors: pd.Categorical,
    batches: pd.Categorical | None,
    tissue: pd.Categorical | None,
) -> tuple[npt.NDArray[np.int32], list[tuple[str, str | None, str | None]]]:
    """Give (donor, batch, tissue) combinations of kept cells numbers in sorted order."""
    parts = [donors, batches, tissue]
    # One number per combination: cheaper to sort than rows of codes (-1, nothing known, is 0).
    sizes = [1 if part is None else len(part.categories) + 1 for part in parts]
    combined = np.zeros(int(keep.sum()), dtype=np.int64)
    for part, size in zip(parts, sizes, strict=True):
        combined *= size
        if part is not None:
            combined += part.codes[keep] + 1
    numbers, inverse = np.unique(combined, return_inverse=True)
    distinct = np.stack(np.unravel_index(numbers, sizes), axis=1) - 1

    def name(part: pd.Categorical | None, code: int) -> str | None:
        return None if part is None or code < 0 else str(part.categories[code]).strip()

    keys = [tuple(name(p, c) for p, c in zip(parts, row, strict=True)) for row in distinct.tolist()]
    order = sorted(range(len(keys)), key=lambda i: tuple(part or "" for part in keys[i]))
    place = np.empty(len(keys), dtype=np.int32)
    place[order] = np.arange(len(keys), dtype=np.int32)
    groups = np.full(len(keep), -1, dtype=np.int32)
    groups[keep] = place[inverse.ravel()]
    return groups, [keys[i] for i in order]  # type: ignore[misc]


def _choices(obs: Table) -> str:
    columns = sorted(obs)
    index = f" (the index is named {obs.index_name!r}, but is no column)"
    said = index if not obs.index_name.startswith(("_", "index")) else ""
    return f"; obs has {', '.join(columns[:30]) or 'no columns'}{said}"


def term_of_type(cells: Cells) -> dict[str, Any]:
    """Return the Cell Ontology id that the file gives each type, if it is unique."""
    ids = cells.columns.get("cell_type_ontology_term_id")
    if ids is None:
        return {}
    terms: dict[str, Any] = {}
    for code, name in enumerate(cells.type_names):
        found = np.unique(ids.codes[cells.types == code])
        if len(found) == 1 and found[0] >= 0:
            term = str(ids.categories[found[0]])
            if term.startswith("CL:"):
                terms[name] = term
    return terms
