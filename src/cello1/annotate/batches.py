"""Draw batches from clusters: which cells are shown together, and the order of the candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import named_rng

# The largest size of the puzzles that models are trained on.
MAX_CELLS = 15
Genes = tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """The cells of one donor, batch and tissue, by cluster.

    Attributes
    ----------
    key
        Unique; seeds the pool's generators.
    context, meta
        Context and metadata of every puzzle of the pool.
    cells
        Cluster -> its cells (any integers).
    """

    key: str
    context: str
    meta: Mapping[str, Any]
    cells: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Batch:
    """A puzzle, with the cluster and the cell of the data set that each of its cells shows."""

    puzzle: Puzzle
    clusters: tuple[int, ...]
    cells: tuple[int, ...]


def draw_batches(
    pools: Sequence[Pool],
    candidates: Sequence[str],
    genes: Callable[[Pool, int, int, int], Genes],
    *,
    size: int,
    rounds: int,
    each_cell: bool = False,
    seed: int = 0,
) -> list[Batch]:
    """Draw batches until every cluster (or cell) has taken part in `rounds` of them.

    Clusters with the most batches still to draw come first. The cells of a cluster take turns, in
    a new order each round. Candidates are shuffled for every batch, so that a solver's position
    bias cancels out. The batches depend on the seed and the data alone.

    Parameters
    ----------
    pools
        Those with fewer than two clusters are skipped.
    candidates
        The types on offer.
    genes
        (pool, cluster, cell, number of the draw) -> gene list.
    size
        Most clusters in a batch.
    rounds
        Batches per cluster, or per cell with `each_cell`.
    each_cell
        Count batches per cell instead of per cluster.
    seed
        Seed for all random choices.
    """
    size = min(size, MAX_CELLS, len(candidates))
    able = [pool for pool in pools if len(pool.cells) > 1]
    named_rng(seed, "pools").shuffle(able)  # with many donors not all may be needed
    owed: dict[Any, int] = {}
    for pool in able:
        for cluster, members in pool.cells.items():
            owed[_account(pool, cluster, each_cell)] = rounds * (len(members) if each_cell else 1)
    batches: list[Batch] = []
    turns: dict[tuple[str, int], int] = {}
    lap = 0
    while any(left > 0 for left in owed.values()):
        for pool in able:
            accounts = {c: _account(pool, c, each_cell) for c in sorted(pool.cells)}
            if all(owed[account] <= 0 for account in accounts.values()):
                continue
            rng = named_rng(seed, "batch", pool.key, lap)
            order = rng.permutation(list(accounts)).tolist()
            order.sort(key=lambda c, known=accounts: -max(0, owed[known[c]]))
            chosen = order[:size]
            rng.shuffle(chosen)
            drawn = []
            for cluster in chosen:
                owed[accounts[cluster]] -= 1
                turn = turns.get((pool.key, cluster), 0)
                turns[pool.key, cluster] = turn + 1
                drawn.append((cluster, _cell(pool, cluster, turn, seed), turn))
            puzzle = Puzzle(
                context=pool.context,
                cells=tuple(genes(pool, *each) for each in drawn),
                candidates=tuple(candidates[j] for j in rng.permutation(len(candidates))),
                meta={**pool.meta, "prompt_version": PROMPT_VERSION},
            )
            batches.append(Batch(puzzle, tuple(chosen), tuple(cell for _, cell, _ in drawn)))
        lap += 1
    return batches


def _account(pool: Pool, cluster: int, each_cell: bool) -> Any:
    return (pool.key, cluster) if each_cell else cluster


def _cell(pool: Pool, cluster: int, turn: int, seed: int) -> int:
    members = pool.cells[cluster]
    lap, place = divmod(turn, len(members))
    order = named_rng(seed, "cells", pool.key, cluster, lap).permutation(len(members))
    return int(members[order[place]])
