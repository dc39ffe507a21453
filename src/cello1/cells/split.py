"""Split puzzles into train, validation and test so that nothing leaks.

The unit of a split is a donor, a data set, a tissue or a disease. Units that share a donor are
joined first and stay together, so donors never cross splits, whatever the unit. The same donor
name in two files counts as the same person, which can unbalance the splits but never cause a leak.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

SPLITS = ("train", "validation", "test")
UNSEEN = "unseen"
_FIELDS = {"donor": "donor_id", "dataset": "dataset", "tissue": "tissue", "disease": "disease"}


class Traits(NamedTuple):
    """What the split of a puzzle depends on; the puzzles of a donor have few distinct traits.

    Attributes
    ----------
    unit
        The puzzle's own id with ``split="puzzle"``, or its split with ``split="cell"``.
    donor, dataset, value
        Its donor, its data set, and its value of the field that is split by.
    pooled
        Whether it comes from a pool of unnamed donors.
    disease, diseases
        The disease in its metadata, and all among the cells of its group.
    cells
        Number of its cells.
    """

    unit: str
    donor: str
    dataset: str
    value: str
    pooled: bool
    disease: str
    diseases: tuple[str, ...]
    cells: int


def traits(puzzle_id: str, meta: Mapping[str, Any], cells: int, settings: BuildSettings) -> Traits:
    """Return what the split of one puzzle depends on."""
    units = {"puzzle": puzzle_id, "cell": meta.get("cell_split"), "none": "all"}
    return Traits(
        str(units.get(settings.split, "")),
        str(meta.get("donor_id")),
        str(meta.get("dataset")),
        str(meta.get(_FIELDS.get(settings.split, ""))),
        bool(meta.get("pooled")),
        str(meta.get("disease")),
        tuple(meta.get("diseases") or [meta.get("disease") or ""]),
        cells,
    )


def split_names(settings: BuildSettings) -> tuple[str, ...]:
    """Return the names of the splits; some may stay empty."""
    if settings.split == "none":
        return ("all",)
    return (*SPLITS, UNSEEN) if settings.unseen_diseases else SPLITS


def split_puzzles(puzzles: Sequence[Puzzle], settings: BuildSettings) -> dict[str, list[Puzzle]]:
    """Assign puzzles to splits; the order within a split is that of the input.

    Returns
    -------
    dict
        ``all`` with ``split="none"``, else train, validation and test (some may be empty), and
        ``unseen`` when diseases are held out.

    Raises
    ------
    InputError
        When there are too few units to split, or a named donor or disease does not occur.
    """
    kinds = [traits(p.id, p.meta, len(p.cells), settings) for p in puzzles]
    place = deal(Counter(kinds), settings)
    splits: dict[str, list[Puzzle]] = {name: [] for name in split_names(settings)}
    for puzzle, kind in zip(puzzles, kinds, strict=True):
        splits[place[kind]].append(puzzle)
    return splits


def deal(kinds: Mapping[Traits, int], settings: BuildSettings) -> dict[Traits, str]:
    """Return the split of all puzzles with the same traits.

    Parameters
    ----------
    kinds
        Traits -> number of puzzles, in the order in which they first occur.
    settings
        Settings of the split.

    Raises
    ------
    InputError
        As :func:`split_puzzles` does.
    """
    refuse_names(settings)
    if settings.split in ("none", "cell"):
        return {kind: kind.unit for kind in kinds}
    units = (
        {kind: kind.unit for kind in kinds}
        if settings.split == "puzzle"
        else join_units(kinds, settings.split)
    )
    place = _fix_named(units, settings)
    sizes: dict[str, Counter[int]] = {}
    for kind, count in kinds.items():
        if units[kind] not in place:
            sizes.setdefault(units[kind], Counter())[kind.cells] += count
    place |= _deal(sizes, settings)
    return {kind: place[unit] for kind, unit in units.items()}


def refuse_names(settings: BuildSettings) -> None:
    """Refuse to hold out donors or diseases by name where the split has no such units."""
    named = settings.unseen_diseases or settings.test_donors or settings.validation_donors
    if named and settings.split in ("none", "cell", "puzzle"):
        raise InputError(
            f"--split {settings.split} cannot hold out {brief(named[0])}: its units are no donors; "
            "use --split donor"
        )


def join_units(kinds: Iterable[Traits], field: str) -> dict[Traits, str]:
    """Return the unit of puzzles: those that share a value of `field` or a donor are one unit.

    A file with a pool of unnamed donors is one unit with all its named donors, since the pool
    may hold cells of any of them.
    """
    kinds = list(kinds)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]
        return node

    def tie(one: tuple[str, str], other: tuple[str, str]) -> None:
        low, high = sorted((root(one), root(other)))
        parent[high] = low

    pools = {kind.dataset for kind in kinds if kind.pooled}
    for kind in kinds:
        donor = ("donor_id", kind.donor)
        tie(donor, (_FIELDS[field], kind.value))
        if kind.dataset in pools:
            tie(donor, ("pool of", kind.dataset))
    # Names that differ only in case or blanks may be the same person.
    alike: dict[str, tuple[str, str]] = {}
    for donor in sorted({("donor_id", kind.donor) for kind in kinds}):
        tie(donor, alike.setdefault("".join(donor[1].casefold().split()), donor))
    return {kind: "=".join(root(("donor_id", kind.donor))) for kind in kinds}


def deal_cell(seed: int, dataset: str, cell: str, fractions: Sequence[float]) -> str:
    """Assign a cell to a split by its name alone (for ``split="cell"``)."""
    share = int.from_bytes(_digest(seed, dataset, cell)[:8]) / 2**64
    if share < fractions[0]:
        return "train"
    return "validation" if share < fractions[0] + fractions[1] else "test"


def _digest(*what: object) -> bytes:
    return hashlib.sha256("\x1f".join(str(part) for part in what).encode()).digest()


def _fix_named(units: Mapping[Traits, str], settings: BuildSettings) -> dict[str, str]:
    """Assign the units that the user named: diseases held out, donors to test or validate on."""
    wishes = [("disease", value, UNSEEN) for value in settings.unseen_diseases]
    wishes += [("donor_id", value, "validation") for value in settings.validation_donors]
    wishes += [("donor_id", value, "test") for value in settings.test_donors]
    place: dict[str, str] = {}
    for field, value, split in wishes:
        found = {unit for kind, unit in units.items() if value in _named(kind, field)}
        if not found:
            told = {kind.donor if field == "donor_id" else kind.disease for kind in units}
            known = ", ".join(sorted(told)[:20])
            raise InputError(f"no puzzle has {field} {value!r} to hold out; there are {known}")
        for unit in sorted(found):
            if place.setdefault(unit, split) != split:
                raise InputError(
                    f"{field} {value!r} was named for {split}, but is tied by shared donors to "
                    f"what was named for {place[unit]}; name both for one split"
                )
    return place


def _named(kind: Traits, field: str) -> set[str]:
    """Return the donor of a puzzle, or all diseases among the cells of its group."""
    if field == "donor_id":
        return {kind.donor}
    return {part.strip() for value in kind.diseases for part in (value, *value.split("||"))}


def _deal(sizes: dict[str, Counter[int]], settings: BuildSettings) -> dict[str, str]:
    """Assign each unit to the split with the largest deficit in its puzzles, largest units first.

    Puzzles are counted per N, so that the splits have similar sizes of puzzles, as far as units
    allow. A split whose donors the user named gets no others.
    """
    named = {"validation": settings.validation_donors, "test": settings.test_donors}
    shares = {
        split: share
        for split, share in zip(SPLITS, settings.fractions, strict=True)
        if share > 0 and not named.get(split)
    }
    if len(sizes) < len(shares):
        raise InputError(
            f"only {len(sizes)} group(s) of donors can be told apart to split by {settings.split}, "
            f"too few for {', '.join(shares)}; add data, or use --split none, or --split cell "
            "(same donors, other cells: says nothing of new donors)"
        )
    total = sum(sizes.values(), Counter())
    whole = sum(shares.values())
    lacking = {
        split: {n: count * share / whole for n, count in total.items()}
        for split, share in shares.items()
    }
    target = {split: dict(counts) for split, counts in lacking.items()}
    place: dict[str, str] = {}
    order = sorted(sizes, key=lambda u: (-sizes[u].total(), _digest(settings.seed, u)))
    for done, unit in enumerate(order):
        empty = [split for split in shares if split not in place.values()]
        open_to = empty if len(order) - done <= len(empty) else shares
        best = max(
            open_to,
            key=lambda s: (
                sum(k * lacking[s][n] / target[s][n] for n, k in sizes[unit].items()),
                sum(lacking[s].values()) / sum(target[s].values()),
                shares[s],
            ),
        )
        place[unit] = best
        for n, k in sizes[unit].items():
            lacking[best][n] -= k
    return place
