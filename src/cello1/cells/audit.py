"""Audit puzzles: what the splits share, duplicates, and whether every gold answer scores 1.

It works on data of any origin. Published rows name no donors or cell ids; there, identical gene
lists reveal shared cells.

Puzzles are read once, in chunks. Of cells and gene lists only 64-bit hashes (SipHash) are kept;
among 20 million of them, the probability of a collision is 1 in 100,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cello1.cells.workers import Pool
from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import Stored
from cello1.scoring.score import score

Hashes = npt.NDArray[np.uint64]
_AT_ONCE = 1_024
_SORTED_AT_ONCE = 1 << 20
_WARNINGS = {
    "pooled": "come from a pool of unnamed donors, which counts as one donor",
    "one_donor": "come from a file without donors, taken as one",
    "synthetic": "are made of simulated cells",
}


@dataclass(frozen=True)
class Shared:
    """What two splits have in common.

    Attributes
    ----------
    donors, cells, gene_lists
        Number of donors, cell ids and identical gene lists in both; donors and cells are None
        when the data do not name them.
    tainted
        Puzzles of the second split with at least one cell whose gene list is also in the first.
    example
        A shared donor, cell or gene list, to look up.
    """

    first: str
    second: str
    donors: int | None
    cells: int | None
    gene_lists: int
    tainted: int
    example: str

    @property
    def leaks(self) -> bool:
        """Whether anything is shared."""
        return bool(self.donors or self.cells or self.gene_lists)


@dataclass(frozen=True)
class Audit:
    """The findings of an audit.

    Attributes
    ----------
    sizes
        Split -> number of puzzles.
    shared
        One entry per pair of splits.
    duplicates
        Puzzles that hold the same cells as an earlier one, in any order.
    gold_failures
        Ids of puzzles whose own answer does not score 1.
    unanswered
        Puzzles without an answer.
    n_histogram, type_counts
        N -> puzzles; cell type -> cells.
    marks
        Caveats: pooled donors, a split that shares donors, ...
    declared
        Kinds of sharing that are part of the requested split (``donors`` with --split cell).
    """

    sizes: dict[str, int]
    shared: list[Shared]
    duplicates: int
    gold_failures: list[str]
    unanswered: int
    n_histogram: dict[int, int]
    type_counts: dict[str, int]
    marks: list[str]
    declared: tuple[str, ...] = ()

    @property
    def leaks(self) -> int:
        """Number of pairs of splits that share what they should not."""
        return sum(
            bool((s.donors and "donors" not in self.declared) or s.cells or s.gene_lists)
            for s in self.shared
        )

    @property
    def unknown(self) -> list[str]:
        """What cannot be checked because the puzzles do not name it: ``donors``, ``cells``.

        Where donors are named, different donors have different cells.
        """
        silent = [pair for pair in self.shared if pair.donors is None]
        cells = ["cells"] if any(pair.cells is None for pair in silent) else []
        return ["donors", *cells] if silent else []

    @property
    def passed(self) -> bool:
        """Whether there are no leaks and every gold answer scores 1."""
        return not self.leaks and not self.gold_failures

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            **asdict(self),
            # Where donors are not named, finding none does not prove that none is shared.
            "leaks": None if self.unknown and not self.leaks else self.leaks,
            "unknown": self.unknown,
            "passed": self.passed,
        }


def audit(
    splits: Mapping[str, Iterable[Puzzle]],
    workers: int = 1,
    watch: Callable[[float], None] = lambda share: None,
) -> Audit:
    """Audit the puzzles of one or several splits.

    Parameters
    ----------
    splits
        Split -> puzzles: lists, or :class:`cello1.puzzles.table.Stored`, which are read in chunks,
        some of them twice.
    workers
        Number of processes; each reads row groups of the stored puzzles.
    watch
        Called with the share done, where there are several row groups.
    """
    where: list[str] = []
    pieces: list[Piece] = []
    for name, puzzles in splits.items():
        for part in puzzles.pieces() if isinstance(puzzles, Stored) else [puzzles]:
            pieces.append(Piece(len(pieces), part))
            where.append(name)
    looked: dict[int, Facts] = {}
    for piece, facts in _look_at_all(pieces, workers):
        if isinstance(facts, str):
            raise InputError(facts)
        looked[piece.place] = facts
        if len(pieces) > len(splits):
            watch(len(looked) / len(pieces))
    of: dict[str, list[Facts]] = {name: [] for name in splits}
    for place, name in enumerate(where):
        of[name].append(looked.pop(place))
    found = {name: Facts.total(parts) for name, parts in of.items()}
    sets = [facts.sets for facts in found.values()]
    types = sum((facts.types for facts in found.values()), Counter())
    sizes = sum((facts.sizes for facts in found.values()), Counter())
    return Audit(
        sizes={name: len(facts.sets) for name, facts in found.items()},
        shared=[_compare(a, found[a], splits[a], b, found[b]) for a, b in combinations(splits, 2)],
        duplicates=sum(map(len, sets)) - len(np.unique(np.concatenate([_NONE, *sets]))),
        gold_failures=[failed for facts in found.values() for failed in facts.failures],
        unanswered=sum(facts.unanswered for facts in found.values()),
        n_histogram=dict(sorted(sizes.items())),
        type_counts=dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        marks=_marks(list(found.values())),
        declared=("donors",) if any("cell" in facts.kinds for facts in found.values()) else (),
    )


@dataclass
class Facts:
    """What the audit needs of some puzzles of one split.

    Attributes
    ----------
    sets
        Order-independent hash of the cells of every puzzle.
    lists, lengths
        Hash of the gene list of every cell, puzzle by puzzle, and the number of cells of each.
    cells
        Hash of the name of every cell that has one.
    donors, nameless
        Donors that are named, and the number of puzzles that name none.
    failures, unanswered
        Ids of puzzles whose own answer does not score 1; puzzles without an answer.
    sizes, types, warnings
        N -> puzzles; cell type -> cells; key of :data:`_WARNINGS` -> puzzles.
    kinds
        Kinds of splits named in the metadata.
    """

    sets: Hashes = field(default_factory=lambda: _NONE)
    lists: Hashes = field(default_factory=lambda: _NONE)
    lengths: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    cells: Hashes = field(default_factory=lambda: _NONE)
    donors: set[str] = field(default_factory=set)
    nameless: int = 0
    failures: list[str] = field(default_factory=list)
    unanswered: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    kinds: set[str | None] = field(default_factory=set)

    @classmethod
    def total(cls, parts: Sequence[Facts]) -> Facts:
        """Return the sum of several."""
        whole = cls()
        for name in ("sets", "lists", "lengths", "cells"):
            arrays = [getattr(part, name) for part in (whole, *parts)]
            setattr(whole, name, np.concatenate(arrays))
        for part in parts:
            whole.donors |= part.donors
            whole.nameless += part.nameless
            whole.failures += part.failures
            whole.unanswered += part.unanswered
            whole.sizes.update(part.sizes)
            whole.types.update(part.types)
            whole.warnings.update(part.warnings)
            whole.kinds |= part.kinds
        return whole


_NONE: Hashes = np.empty(0, np.uint64)


class Piece(NamedTuple):
    """Some puzzles of a split, and their position among all pieces."""

    place: int
    puzzles: Iterable[Puzzle]


def look_at(piece: Piece, watch: Callable[[float], None] = lambda share: None) -> Facts | str:
    """Return the facts of some puzzles, or why they cannot be read."""
    found = []
    try:
        for block in _blocks(piece.puzzles):
            found.append(_facts(block))
            watch(0.0)
    except InputError as error:
        return str(error)
    return Facts.total(found)


def _look_at_all(pieces: Sequence[Piece], workers: int) -> Iterator[tuple[Piece, Facts | str]]:
    """Yield the facts of each piece, from several processes where there are many in files."""
    stored = [piece for piece in pieces if isinstance(piece.puzzles, Stored)]
    workers = min(workers, len(stored) // 2)
    if workers > 1:
        with Pool(stored, workers, f"{__name__}:look_at") as pool:
            yield from pool.run(lambda piece, share: None)
    else:
        stored = []
    done = {piece.place for piece in stored}
    yield from ((piece, look_at(piece)) for piece in pieces if piece.place not in done)


def _blocks(puzzles: Iterable[Puzzle]) -> Iterator[list[Puzzle]]:
    rest = iter(puzzles)
    while block := list(islice(rest, _AT_ONCE)):
        yield block


def _facts(block: Sequence[Puzzle]) -> Facts:
    lists = _hashes([name for puzzle in block for name in _gene_lists(puzzle)])
    lengths = np.array([len(puzzle.cells) for puzzle in block], dtype=np.int32)
    named = [p.meta["donor_id"] for p in block if p.meta.get("donor_id") is not None]
    return Facts(
        # The sum of hashes does not depend on their order.
        sets=np.add.reduceat(lists, np.cumsum(lengths) - lengths),
        lists=lists,
        lengths=lengths,
        cells=_hashes([name for puzzle in block for name in _cell_names(puzzle)]),
        donors=set(map(str, named)),
        nameless=len(block) - len(named),
        failures=[p.id for p in block if p.answer is not None and not _gold_is_right(p)],
        unanswered=sum(p.answer is None for p in block),
        sizes=Counter(lengths.tolist()),
        types=Counter(label for p in block for label in p.answer or ()),
        warnings=Counter(key for p in block for key in _WARNINGS if p.meta.get(key)),
        kinds={p.meta.get("split") for p in block},
    )


def _gene_lists(puzzle: Puzzle) -> list[str]:
    return [", ".join(genes) for genes in puzzle.cells]


def _cell_names(puzzle: Puzzle) -> list[str]:
    return [f"{puzzle.meta.get('dataset')}/{cell}" for cell in puzzle.meta.get("cell_ids") or ()]


def _hashes(names: Sequence[str]) -> Hashes:
    from pandas.util import hash_array

    if not names:
        return _NONE
    texts = np.array([name.encode("utf-8", "surrogatepass") for name in names], dtype=object)
    return np.asarray(hash_array(texts, categorize=False), dtype=np.uint64)


def _gold_is_right(puzzle: Puzzle) -> bool:
    assert puzzle.answer is not None
    result = score(puzzle, response_text("", puzzle.answer))
    return result.exact and result.reward == 1.0


def _compare(a: str, first: Facts, puzzles: Iterable[Puzzle], b: str, second: Facts) -> Shared:
    """Compare two splits; the puzzles of the first are read again to find an example."""
    donors = first.donors & second.donors if first.donors and second.donors else None
    told = len(first.cells) > 0 and len(second.cells) > 0
    cells = _common(first.cells, second.cells)
    lists = _common(first.lists, second.lists)
    if donors:
        example = min(donors)
    elif len(cells):
        example = min(_among(puzzles, _cell_names, cells))
    elif len(lists):
        genes = min(name.split(", ") for name in _among(puzzles, _gene_lists, lists))
        example = f"genes {', '.join(genes[:4])}, ..."
    else:
        example = ""
    tainted = 0
    if len(lists):
        starts = np.cumsum(second.lengths) - second.lengths
        tainted = int(np.logical_or.reduceat(np.isin(second.lists, lists), starts).sum())
    return Shared(
        a,
        b,
        None if donors is None else len(donors),
        len(cells) if told else None,
        len(lists),
        tainted,
        example,
    )


def _common(a: Hashes, b: Hashes) -> Hashes:
    """Return the distinct hashes in both, in rounds where they are many: sorting takes memory."""
    found = [_NONE]
    rounds = -(-max(len(a), len(b)) // _SORTED_AT_ONCE) if len(a) and len(b) else 0
    for part in range(rounds):
        first, second = (np.unique(x[x % rounds == part]) for x in (a, b))
        found.append(np.intersect1d(first, second, assume_unique=True))
    return np.concatenate(found)


def _among(
    puzzles: Iterable[Puzzle], names_of: Callable[[Puzzle], list[str]], hashes: Hashes
) -> Iterator[str]:
    """Yield the names that have one of the hashes."""
    for block in _blocks(puzzles):
        names = [name for puzzle in block for name in names_of(puzzle)]
        for i in np.flatnonzero(np.isin(_hashes(names), hashes)).tolist():
            yield names[i]


def _marks(found: Sequence[Facts]) -> list[str]:
    """Return the caveats that follow from the puzzles' metadata."""
    counts = sum((facts.warnings for facts in found), Counter())
    marks = [f"{counts[key]} puzzles {text}" for key, text in _WARNINGS.items() if counts[key]]
    kinds = {kind for facts in found for kind in facts.kinds}
    if "cell" in kinds:
        marks.append("split by cell: train and test hold other cells of the same donors")
    if "puzzle" in kinds:
        marks.append("split by puzzle as the published data: LEAKING, for reproduction only")
    if any(facts.nameless for facts in found):
        marks.append("some puzzles name no donor: only gene lists can tell of shared cells")
    return marks
