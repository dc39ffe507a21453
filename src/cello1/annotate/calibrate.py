"""Calibrate confidences: a temperature fitted on cells whose types are known.

For the solvers that come with cello1 it is fitted once, on studies of known type and on cells
simulated from tables that the solver did not see (`benchmarks/annotate.py`). Where the user gives
puzzles of donors of known type, it is fitted on those, for any solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from cello1.annotate.batches import Batch, Genes, Pool, draw_batches
from cello1.annotate.data import average
from cello1.annotate.evidence import Knowledge, know, listed_by, weigh
from cello1.annotate.plan import Plan, batch_size
from cello1.annotate.pool import count_votes
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.recipes import SolveSettings
from cello1.recipes.annotate import AnnotateSettings
from cello1.scoring.calibration import accuracy_coverage, fit_temperature
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.base import Floats, Solver
from cello1.solvers.choose import choose_solver

# With fewer clusters a fitted temperature is mostly noise.
MIN_CLUSTERS = 10
_FOLDS, _MAX_POOLS = 5, 12
Places = npt.NDArray[np.intp]
Ask = Callable[[list[Puzzle], Solver, str], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Fit:
    """A fitted temperature, and what it was fitted on.

    Attributes
    ----------
    temperature
        The log-evidence is divided by it.
    source
        What it was fitted on, or why it was not.
    coverage
        (confidence threshold, share of clusters that reach it, share of these that are right) on
        the clusters it was fitted on, highest threshold first; empty when not known.
    fitted
        Whether it was fitted, on data such as these.
    """

    temperature: float = 1.0
    source: str = "not fitted: no puzzles of known type were given"
    coverage: tuple[tuple[float, float, float], ...] = ()
    fitted: bool = False


@dataclass(frozen=True)
class Fold:
    """Some donors of known type, and the puzzles that the solver asked about them learns from.

    Attributes
    ----------
    pools, lists
        Their cells by cluster, and the gene list of every cell.
    gold, owners
        For each cluster, the candidate that is its type, and its pool.
    train, validation
        Puzzles that the solver learns from.
    synthetic
        Whether any of the cells are simulated.
    """

    pools: list[Pool]
    lists: list[Genes]
    gold: list[int]
    owners: list[int]
    train: list[Puzzle]
    validation: list[Puzzle]
    synthetic: bool

    def batches(self, plan: Plan) -> list[Batch]:
        """Draw the batches for a language model, as they are drawn for the data to annotate."""
        largest = max(len(pool.cells) for pool in self.pools)
        return draw_batches(
            self.pools,
            plan.candidates,
            lambda pool, cluster, cell, turn: self.lists[cell],
            size=batch_size(largest, len(plan.candidates), plan.settings),
            rounds=plan.settings.rounds,
            seed=plan.settings.seed,
        )


def make_folds(
    splits: Mapping[str, list[Puzzle]], solver: str, candidates: Sequence[str], most: int
) -> list[Fold]:
    """Divide the donors of known type into folds.

    A language model may have been trained on the training split, so it is asked about validation
    donors only. `markers` and the atlas learn from neither split. `centroids` are refitted on the
    other folds. At most `most` clusters of a donor are used.
    """
    return list(_folds(splits, solver, candidates, most))


def _folds(
    splits: Mapping[str, list[Puzzle]], solver: str, candidates: Sequence[str], most: int
) -> Iterator[Fold]:
    if solver == "centroids":
        known = [*splits["train"], *splits["validation"]]
        donors = sorted({_donor(p) for p in known})
        n = min(_FOLDS, len(donors))
        if n < 3:  # one fold is rated, one selects the model, the others train
            return
        part = {donor: i % n for i, donor in enumerate(donors)}
        for i in range(n):
            train = [p for p in known if part[_donor(p)] not in (i, (i + 1) % n)]
            judge = [p for p in known if part[_donor(p)] == (i + 1) % n]
            asked = [p for p in known if part[_donor(p)] == i]
            yield from _fold(asked, candidates, most, train, judge)
        return
    known = splits["validation"] + (splits["train"] if solver in ("markers", "atlas") else [])
    yield from _fold(known, candidates, most, [], [])


def _fold(
    puzzles: Sequence[Puzzle],
    candidates: Sequence[str],
    most: int,
    train: list[Puzzle],
    validation: list[Puzzle],
) -> Iterator[Fold]:
    """Make one fold; None where no two candidate types share a donor."""
    pools, lists, gold, owners = _pools(puzzles, candidates, most)
    if pools:
        synthetic = any(puzzle.meta.get("synthetic") for puzzle in puzzles)
        yield Fold(pools, lists, gold, owners, train, validation, synthetic)


def fit_evidence(
    folds: Sequence[Fold],
    asked: SolveSettings,
    expert: Any,
    candidates: Sequence[str],
    settings: AnnotateSettings,
    otherwise: Fit,
) -> Fit:
    """Fit the temperature of a classical solver.

    Parameters
    ----------
    folds
        Folds of :func:`make_folds`; may be empty.
    asked, expert
        The solver. `centroids` are refitted without the donors they are tested on.
    candidates, settings
        As for the data to annotate.
    otherwise
        Returned where there are no or too few clusters of known type.
    """
    n = sum(len(fold.gold) for fold in folds)
    if not folds:
        return otherwise
    if n < MIN_CLUSTERS:
        few = f"the puzzles show only {n} clusters of the candidate types"
        if otherwise.fitted:
            return Fit(otherwise.temperature, f"{otherwise.source}; {few}", fitted=True)
        return Fit(otherwise.temperature, f"not fitted: {few}")
    scores: list[Floats] = []
    gold: list[Places] = []
    for fold in folds:
        who = expert
        if fold.train:
            who = choose_solver(asked, fold.train, fold.validation).expert  # type: ignore[attr-defined]
        symbols = sorted({gene for genes in fold.lists for gene in genes})
        knowledge = know(who, candidates, symbols, settings.top_genes, others=False)
        for p, pool in enumerate(fold.pools):
            scores.append(_rate(pool, fold.lists, symbols, knowledge))
            members = [k for k, owner in enumerate(fold.owners) if owner == p]
            gold.append(np.array([fold.gold[k] for k in members], dtype=np.intp))
    return _fitted(scores, gold, folds, settings.unique)


def _rate(
    pool: Pool, lists: Sequence[Genes], symbols: Sequence[str], knowledge: Knowledge
) -> Floats:
    """Rate the clusters of one donor against each other, shape (clusters, candidates)."""
    place = {symbol: i for i, symbol in enumerate(symbols)}
    clusters = [[lists[cell] for cell in pool.cells[k]] for k in sorted(pool.cells)]
    sizes = np.array([len(cells) for cells in clusters], dtype=np.intp)
    voters = np.full((int(sizes.sum()), len(knowledge.places)), -1, dtype=np.int32)
    for row, genes in enumerate(genes for cells in clusters for genes in cells):
        voters[row, : len(genes)] = [place[gene] for gene in genes]
    owners = np.repeat(np.arange(len(clusters)), sizes)
    cells = listed_by(voters, knowledge.places)
    listed = np.array([cells[owners == k].mean(axis=0) for k in range(len(clusters))])
    listed = listed.reshape(len(clusters), -1)
    offered = len(knowledge.labels)
    return weigh(listed, average(listed, sizes), voters, owners, knowledge, offered).scores


def fit_votes(
    plan: Plan, folds: Sequence[Fold], asked: SolveSettings, solver: Solver, ask: Ask
) -> Fit:
    """Fit the temperature of the votes of a solver that answers batches.

    `ask` takes (puzzles, solver, name of a folder) and returns the answers.
    """
    if not folds:
        return Fit()
    n = sum(len(fold.gold) for fold in folds)
    if n < MIN_CLUSTERS:
        return Fit(source=f"not fitted: the puzzles show only {n} clusters of the candidate types")
    logits: list[Floats] = []
    gold: list[Places] = []
    for i, fold in enumerate(folds):
        who = choose_solver(asked, fold.train, fold.validation) if fold.train else solver
        batches = fold.batches(plan)
        puzzles = list({batch.puzzle.id: batch.puzzle for batch in batches}.values())
        records = ask(puzzles, who, f"validation-{i}")
        units = [batch.clusters for batch in batches]
        votes = count_votes(batches, units, len(fold.gold), plan.candidates, records)
        for pool in sorted(set(fold.owners)):
            rows = [k for k, owner in enumerate(fold.owners) if owner == pool and votes.counts[k]]
            if rows:
                logits.append(votes.logits[rows])
                gold.append(np.array([fold.gold[k] for k in rows], dtype=np.intp))
    return _fitted(logits, gold, folds, plan.settings.unique)


def _fitted(scores: list[Floats], gold: list[Places], folds: Sequence[Fold], unique: bool) -> Fit:
    temperature = fit_temperature(scores, gold, _joint if unique else _alone)
    donors = sum(len(set(fold.owners)) for fold in folds)
    source = f"{sum(map(len, gold))} clusters of known type of {donors} donors"
    if any(fold.synthetic for fold in folds):
        source += "; some are simulated, which are purer than real ones: it is too sure of itself"
    coverage = tuple(_coverage(scores, gold, temperature, unique))
    return Fit(temperature, source, coverage, fitted=True)


def _pools(
    puzzles: Sequence[Puzzle], candidates: Sequence[str], most: int
) -> tuple[list[Pool], list[Genes], list[int], list[int]]:
    """Collect the cells of known type by donor, for each donor those of the `most` frequent types.

    Clustering finds frequent types; rare ones are harder, and would lower the fitted confidence.

    Returns
    -------
    pools
        Their clusters are numbered over all pools, their cells point into `lists`.
    lists
        Gene lists.
    gold, owners
        For each cluster, the candidate that is its type, and its pool.
    """
    column = {label_key(label): j for j, label in enumerate(candidates)}
    homes: dict[str, dict[int, set[Genes]]] = {}
    about: dict[str, Puzzle] = {}
    for puzzle in puzzles:
        parts = (puzzle.meta.get(k) for k in ("dataset", "donor_id", "batch", "tissue"))
        key = "\x1e".join(map(str, parts))
        about.setdefault(key, puzzle)
        for label, genes in zip(puzzle.answer_keys or (), puzzle.cells, strict=False):
            if label in column:
                homes.setdefault(key, {}).setdefault(column[label], set()).add(genes)
    pools: list[Pool] = []
    lists: list[Genes] = []
    gold: list[int] = []
    owners: list[int] = []
    for key in sorted(key for key, types in homes.items() if len(types) > 1)[:_MAX_POOLS]:
        cells: dict[int, list[int]] = {}
        frequent = sorted(homes[key].items(), key=lambda item: (-len(item[1]), item[0]))
        for j, shown in sorted(frequent[:most]):
            cells[len(gold)] = [*range(len(lists), len(lists) + len(shown))]
            lists += sorted(shown)
            gold.append(j)
            owners.append(len(pools))
        pools.append(Pool(key, about[key].context, {}, cells))
    return pools, lists, gold, owners


def _coverage(
    logits: Sequence[Floats], gold: Sequence[Places], temperature: float, unique: bool
) -> Iterator[tuple[float, float, float]]:
    """Return, per threshold, the share of validation clusters that reach it and their accuracy."""
    sure: list[float] = []
    right: list[bool] = []
    for rows, truth in zip(logits, gold, strict=True):
        p = (_joint if unique else _alone)(rows / temperature)
        best = assign_jointly(rows) if unique else np.argmax(rows, axis=1)
        sure += p[np.arange(len(best)), best].tolist()
        right += (best == truth).tolist()
    least = sorted(set(sure), reverse=True)
    for level, share, accuracy in zip(least, *accuracy_coverage(sure, right), strict=True):
        yield float(level), float(share), float(accuracy)


def _donor(puzzle: Puzzle) -> str:
    return str(puzzle.meta.get("donor_id"))


def _alone(logits: Floats) -> Floats:
    return np.asarray(softmax(logits, axis=1))


def _joint(logits: Floats) -> Floats:
    return probabilities(logits)[0]
