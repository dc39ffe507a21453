"""How far the votes can be believed: a temperature fitted on donors whose types are known.

The cells that a build shows of a validation donor form clusters of known type. They are annotated
in the same way as the data at hand, with the same candidates, and the temperature is the one at
which the true types are least surprising.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from cello1.annotate.batches import Batch, Genes, Pool, draw_batches
from cello1.annotate.plan import Plan, batch_size
from cello1.annotate.pool import count_votes
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.recipes import SolveSettings
from cello1.scoring.calibration import accuracy_coverage, fit_temperature
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.base import Floats, Solver
from cello1.solvers.choose import choose_solver

# With fewer clusters a temperature says more about chance than about the solver.
MIN_CLUSTERS = 10
_FOLDS, _MAX_POOLS = 5, 12
Places = npt.NDArray[np.intp]
Ask = Callable[[list[Puzzle], Solver, str], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Fit:
    """What the votes are worth.

    Attributes
    ----------
    temperature
        The log-shares of votes are divided by it; 1 where it could not be fitted.
    source
        What it was fitted on, or why it was not.
    coverage
        (least confidence, share of clusters that have it, share of these that are right) on the
        validation clusters, surest first; empty when not fitted.
    """

    temperature: float = 1.0
    source: str = "not fitted: no puzzles of known type were given"
    coverage: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Fold:
    """Some donors of known type, with what the solver that is asked about them learns from.

    Attributes
    ----------
    batches
        What is asked.
    units
        The cluster behind each cell of each batch, counted over all pools of the fold.
    gold
        The candidate that is the type of each cluster.
    owners
        The pool of each cluster.
    synthetic
        Whether any of the cells are simulated.
    """

    batches: list[Batch]
    units: list[tuple[int, ...]]
    gold: list[int]
    owners: list[int]
    train: list[Puzzle]
    validation: list[Puzzle]
    synthetic: bool

    @property
    def puzzles(self) -> list[Puzzle]:
        """The different questions, in order."""
        return list({batch.puzzle.id: batch.puzzle for batch in self.batches}.values())


def fit(
    plan: Plan,
    folds: Sequence[Fold],
    asked: SolveSettings,
    solver: Solver,
    ask: Ask,
) -> Fit:
    """Fit the temperature for a plan.

    Parameters
    ----------
    plan
        What will be asked; its candidates and settings are used here too.
    folds
        Of :func:`make_folds`; maybe none.
    asked, solver
        Who answers. `centroids` are learned anew without the donors they are tried on.
    ask
        (puzzles, solver, name of a folder) -> answers.
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
        records = ask(fold.puzzles, who, f"validation-{i}")
        votes = count_votes(fold.batches, fold.units, len(fold.gold), plan.candidates, records)
        for pool in sorted(set(fold.owners)):
            rows = [k for k, owner in enumerate(fold.owners) if owner == pool and votes.counts[k]]
            if rows:
                logits.append(votes.logits[rows])
                gold.append(np.array([fold.gold[k] for k in rows], dtype=np.intp))
    unique = plan.settings.unique
    temperature = fit_temperature(logits, gold, _joint if unique else _alone)
    donors = sum(len(set(fold.owners)) for fold in folds)
    source = f"{sum(map(len, gold))} clusters of known type of {donors} donors"
    if any(fold.synthetic for fold in folds):
        source += "; some are simulated, which are purer than real ones: it is too sure of itself"
    return Fit(
        temperature,
        source,
        tuple(_coverage(logits, gold, temperature, unique)),
    )


def make_folds(plan: Plan, splits: Mapping[str, list[Puzzle]], solver: str) -> Iterator[Fold]:
    """Divide the donors of known type into folds.

    A language model may have been trained on the training split, so only validation donors are
    asked about. `markers` learn from neither. `centroids` are learned anew from other folds.
    """
    if solver == "centroids":
        known = [*splits["train"], *splits["validation"]]
        donors = sorted({_donor(p) for p in known})
        n = min(_FOLDS, len(donors))
        if n < 3:  # one fold answers, one chooses the model, the others train
            return
        part = {donor: i % n for i, donor in enumerate(donors)}
        for i in range(n):
            fold = {
                "train": [p for p in known if part[_donor(p)] not in (i, (i + 1) % n)],
                "validation": [p for p in known if part[_donor(p)] == (i + 1) % n],
            }
            yield from _fold(plan, [p for p in known if part[_donor(p)] == i], fold)
        return
    known = splits["validation"] + (splits["train"] if solver == "markers" else [])
    yield from _fold(plan, known, {"train": [], "validation": []})


def _fold(
    plan: Plan, puzzles: Sequence[Puzzle], fold: Mapping[str, list[Puzzle]]
) -> Iterator[Fold]:
    """Make the batches of one fold; none where no two candidate types share a donor."""
    pools, lists, gold, owners = _pools(puzzles, plan.candidates, len(plan.clusters.names))
    if not pools:
        return
    settings = plan.settings
    largest = max(len(pool.cells) for pool in pools)
    batches = draw_batches(
        pools,
        plan.candidates,
        lambda pool, cluster, cell, turn: lists[cell],
        size=batch_size(largest, len(plan.candidates), settings),
        rounds=settings.rounds,
        seed=settings.seed,
    )
    units = [batch.clusters for batch in batches]
    synthetic = any(puzzle.meta.get("synthetic") for puzzle in puzzles)
    yield Fold(batches, units, gold, owners, fold["train"], fold["validation"], synthetic)


def _pools(
    puzzles: Sequence[Puzzle], candidates: Sequence[str], most: int
) -> tuple[list[Pool], list[Genes], list[int], list[int]]:
    """Collect the cells of known type by donor, of each donor the `most` frequent types.

    Clusters of an algorithm are of frequent types; rare ones are harder, and would make it seem
    that the votes are worth less.

    Returns
    -------
    pools
        Their clusters are numbered over all pools, their cells point into `lists`.
    lists
        Gene lists.
    gold, owners
        Of each cluster: the candidate that is its type, and its pool.
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
    """Tell how many validation clusters are at least as sure, and how many of them are right."""
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
