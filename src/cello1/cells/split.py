"""Split puzzles into train, validation and test so that nothing leaks.

The unit of a split is a donor, a data set, a tissue or a disease. Units that share a donor are
joined first and stay together, so donors never cross a split whatever it is made by. The same
donor name in two files counts as the same person: that can cost a little balance, never a leak.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from cello1.errors import InputError, brief
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

SPLITS = ("train", "validation", "test")
UNSEEN = "unseen"
_FIELDS = {"donor": "donor_id", "dataset": "dataset", "tissue": "tissue", "disease": "disease"}


def split_puzzles(puzzles: Sequence[Puzzle], settings: BuildSettings) -> dict[str, list[Puzzle]]:
    """Deal puzzles into splits; the order within a split is that of the input.

    Returns
    -------
    dict
        ``all`` with ``split="none"``, else train, validation and test (each maybe empty), and
        ``unseen`` when diseases are held out.

    Raises
    ------
    InputError
        When there are too few units to split, or a named donor or disease does not occur.
    """
    refuse_names(settings)
    if settings.split == "none":
        return {"all": list(puzzles)}
    if settings.split == "cell":
        return {name: [p for p in puzzles if p.meta["cell_split"] == name] for name in SPLITS}
    if settings.split == "puzzle":
        units = [p.id for p in puzzles]
    else:
        units = join_units(puzzles, _FIELDS[settings.split])
    place = _fix_named(puzzles, units, settings)
    sizes: dict[str, Counter[int]] = {}
    for puzzle, unit in zip(puzzles, units, strict=True):
        if unit not in place:
            sizes.setdefault(unit, Counter())[len(puzzle.cells)] += 1
    place |= _deal(sizes, settings)
    names = (*SPLITS, UNSEEN) if settings.unseen_diseases else SPLITS
    splits: dict[str, list[Puzzle]] = {name: [] for name in names}
    for puzzle, unit in zip(puzzles, units, strict=True):
        splits[place[unit]].append(puzzle)
    return splits


def refuse_names(settings: BuildSettings) -> None:
    """Refuse to hold out donors or diseases by name where the split has no such units."""
    named = settings.unseen_diseases or settings.test_donors or settings.validation_donors
    if named and settings.split in ("none", "cell", "puzzle"):
        raise InputError(
            f"--split {settings.split} cannot hold out {brief(named[0])}: its units are no donors; "
            "use --split donor"
        )


def join_units(puzzles: Sequence[Puzzle], field: str) -> list[str]:
    """Name the unit of every puzzle: what shares a value of `field` or a donor is one unit.

    A file with a pool of unnamed donors is one unit with all its named donors, since the pool
    may hold cells of any of them.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            node = above
        return node

    pools = {p.meta["dataset"] for p in puzzles if p.meta.get("pooled")}
    donors = [("donor_id", str(p.meta["donor_id"])) for p in puzzles]
    for puzzle, donor in zip(puzzles, donors, strict=True):
        ties = [(field, str(puzzle.meta.get(field)))]
        if puzzle.meta["dataset"] in pools:
            ties.append(("pool of", puzzle.meta["dataset"]))
        for tie in ties:
            low, high = sorted((root(donor), root(tie)))
            parent[high] = low
    # Names that differ only in case or blanks may be one person.
    alike: dict[str, tuple[str, str]] = {}
    for donor in sorted(set(donors)):
        first = alike.setdefault("".join(donor[1].casefold().split()), donor)
        low, high = sorted((root(donor), root(first)))
        parent[high] = low
    return ["=".join(root(donor)) for donor in donors]


def deal_cell(seed: int, dataset: str, cell: str, fractions: Sequence[float]) -> str:
    """Deal one cell to a split by its name alone (for ``split="cell"``)."""
    share = int.from_bytes(_digest(seed, dataset, cell)[:8]) / 2**64
    if share < fractions[0]:
        return "train"
    return "validation" if share < fractions[0] + fractions[1] else "test"


def _digest(*what: object) -> bytes:
    return hashlib.sha256("\x1f".join(str(part) for part in what).encode()).digest()


def _fix_named(
    puzzles: Sequence[Puzzle], units: Sequence[str], settings: BuildSettings
) -> dict[str, str]:
    """Place the units that the user named: diseases held out, donors to test or validate on."""
    wishes = [("disease", value, UNSEEN) for value in settings.unseen_diseases]
    wishes += [("donor_id", value, "validation") for value in settings.validation_donors]
    wishes += [("donor_id", value, "test") for value in settings.test_donors]
    place: dict[str, str] = {}
    for field, value, split in wishes:
        found = {u for p, u in zip(puzzles, units, strict=True) if value in _named(p, field)}
        if not found:
            known = ", ".join(sorted({str(p.meta.get(field)) for p in puzzles})[:20])
            raise InputError(f"no puzzle has {field} {value!r} to hold out; there are {known}")
        for unit in sorted(found):
            if place.setdefault(unit, split) != split:
                raise InputError(
                    f"{field} {value!r} was named for {split}, but is tied by shared donors to "
                    f"what was named for {place[unit]}; name both for one split"
                )
    return place


def _named(puzzle: Puzzle, field: str) -> set[str]:
    """Return the donor of a puzzle, or all diseases among the cells of its group."""
    if field == "donor_id":
        return {str(puzzle.meta.get(field))}
    values = puzzle.meta.get("diseases") or [puzzle.meta.get("disease") or ""]
    return {part.strip() for value in values for part in (value, *value.split("||"))}


def _deal(sizes: dict[str, Counter[int]], settings: BuildSettings) -> dict[str, str]:
    """Give each unit to the split that lacks most of what it has, largest units first.

    Every N is counted by itself, so that the sizes in the splits are as alike as whole units
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
