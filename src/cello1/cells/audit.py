"""Audit puzzles: what the splits share, what repeats, and whether every gold answer scores 1.

Works on data of any origin. Published rows carry no donors or cell ids; for them the identical
gene lists tell of shared cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.score import score

Genes = tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What two splits have in common.

    Attributes
    ----------
    donors, cells, gene_lists
        Number of donors, cell ids and identical gene lists in both; donors and cells are None
        when the data do not name them.
    tainted
        Puzzles of the second split with at least one cell whose gene list stands in the first.
    example
        One shared thing, to look it up.
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
    """The findings.

    Attributes
    ----------
    sizes
        Split -> number of puzzles.
    shared
        One entry per pair of splits.
    duplicates
        Puzzles that hold the same cells as an earlier one, whatever their order.
    gold_failures
        Ids of puzzles whose own answer does not score 1.
    unanswered
        Puzzles without an answer.
    n_histogram, type_counts
        N -> puzzles; cell type -> cells.
    marks
        What a reader must know of the data: pooled donors, a split that shares donors, ...
    declared
        Kinds of sharing that the split was asked to have (``donors`` with --split cell).
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
        """Number of pairs of splits that share what they must not."""
        return sum(
            bool((s.donors and "donors" not in self.declared) or s.cells or s.gene_lists)
            for s in self.shared
        )

    @property
    def unknown(self) -> list[str]:
        """What cannot be known to be apart, for the puzzles do not say: ``donors``, ``cells``.

        Where donors are told, other donors have other cells.
        """
        silent = [pair for pair in self.shared if pair.donors is None]
        cells = ["cells"] if any(pair.cells is None for pair in silent) else []
        return ["donors", *cells] if silent else []

    @property
    def passed(self) -> bool:
        """No leaks, and every gold answer scores 1."""
        return not self.leaks and not self.gold_failures

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            **asdict(self),
            # None found where donors are not told is no proof that there is none.
            "leaks": None if self.unknown and not self.leaks else self.leaks,
            "unknown": self.unknown,
            "passed": self.passed,
        }


def audit(splits: Mapping[str, Sequence[Puzzle]]) -> Audit:
    """Audit puzzles that are dealt into splits (a single one is fine)."""
    every = [puzzle for puzzles in splits.values() for puzzle in puzzles]
    sets = Counter(frozenset(Counter(p.cells).items()) for p in every)
    failures = [p.id for p in every if p.answer is not None and not _gold_is_right(p)]
    donors_declared = any(p.meta.get("split") == "cell" for p in every)
    lists = {name: {genes for p in ps for genes in p.cells} for name, ps in splits.items()}
    return Audit(
        sizes={name: len(puzzles) for name, puzzles in splits.items()},
        shared=[
            _compare(a, splits[a], b, splits[b], lists[a] & lists[b])
            for a, b in combinations(splits, 2)
        ],
        duplicates=sum(count - 1 for count in sets.values()),
        gold_failures=failures,
        unanswered=sum(p.answer is None for p in every),
        n_histogram=dict(sorted(Counter(len(p.cells) for p in every).items())),
        type_counts=dict(
            sorted(
                Counter(label for p in every for label in p.answer or ()).items(),
                key=lambda item: (-item[1], item[0]),
            )
        ),
        marks=_marks(every),
        declared=("donors",) if donors_declared else (),
    )


def _gold_is_right(puzzle: Puzzle) -> bool:
    assert puzzle.answer is not None
    result = score(puzzle, response_text("", puzzle.answer))
    return result.exact and result.reward == 1.0


def _compare(
    a: str, first: Sequence[Puzzle], b: str, second: Sequence[Puzzle], common: set[Genes]
) -> Shared:
    donors = _intersect(_values(first, "donor_id"), _values(second, "donor_id"))
    cells = _intersect(_cell_ids(first), _cell_ids(second))
    examples = [*sorted(donors or ())[:1], *sorted(cells or ())[:1]]
    examples += [f"genes {', '.join(genes[:4])}, ..." for genes in sorted(common)[:1]]
    return Shared(
        a,
        b,
        None if donors is None else len(donors),
        None if cells is None else len(cells),
        len(common),
        sum(not common.isdisjoint(p.cells) for p in second) if common else 0,
        examples[0] if examples else "",
    )


def _values(puzzles: Iterable[Puzzle], key: str) -> set[str] | None:
    values = {str(p.meta[key]) for p in puzzles if p.meta.get(key) is not None}
    return values or None


def _cell_ids(puzzles: Iterable[Puzzle]) -> set[str] | None:
    ids = {f"{p.meta.get('dataset')}/{c}" for p in puzzles for c in p.meta.get("cell_ids") or ()}
    return ids or None


def _intersect(a: set[str] | None, b: set[str] | None) -> set[str] | None:
    return None if a is None or b is None else a & b


def _marks(puzzles: Sequence[Puzzle]) -> list[str]:
    """Say what the puzzles' own metadata warn of."""
    texts = {
        "pooled": "come from a pool of unnamed donors, which counts as one donor",
        "one_donor": "come from a file without donors, taken as one",
        "synthetic": "are made of simulated cells",
    }
    marks = []
    for key, text in texts.items():
        if count := sum(bool(p.meta.get(key)) for p in puzzles):
            marks.append(f"{count} puzzles {text}")
    kinds = {p.meta.get("split") for p in puzzles}
    if "cell" in kinds:
        marks.append("split by cell: train and test hold other cells of the same donors")
    if "puzzle" in kinds:
        marks.append("split by puzzle as the published data: LEAKING, for reproduction only")
    if any(p.meta.get("donor_id") is None for p in puzzles):
        marks.append("some puzzles name no donor: only gene lists can tell of shared cells")
    return marks
