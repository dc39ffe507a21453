"""Which types are mistaken for which: accuracy by type, and confusion by the Cell Ontology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.report.gather import SolvedRun
from cello1.scoring.evaluate import donors_of
from cello1.scoring.ontology import ancestors, term_id
from cello1.scoring.statistics import Interval, clustered_interval

NO_LABEL = "no label"
MOST_TYPES = 30


@dataclass(frozen=True)
class Confusion:
    """Counts of (true type, given type) of one run.

    Attributes
    ----------
    types
        Rows, in ontology order; the columns are these and, last, :data:`NO_LABEL`.
    counts
        Shape (K, K + 1).
    worst
        (true, given, cells, share of the true type's cells), most frequent first.
    """

    types: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    worst: list[tuple[str, str, int, float]]


def given_labels(puzzle: Puzzle, text: str) -> list[str | None]:
    """Return the label a response gives each cell, spelled like the candidate, or None.

    Repeated labels are returned as given. A label that is not on offer, or any label of a response
    with the wrong number of labels, gives None.
    """
    said = parse_response(text)
    if not isinstance(said, Answer) or len(said.labels) != len(puzzle.cells):
        return [None] * len(puzzle.cells)
    places = [puzzle.candidate_index.get(label_key(label)) for label in said.labels]
    return [None if j is None else puzzle.candidates[j] for j in places]


def true_labels(puzzle: Puzzle) -> list[str]:
    """Return the true type of each cell, spelled like the candidate."""
    return [puzzle.candidates[puzzle.candidate_index[key]] for key in puzzle.answer_keys or ()]


def confusion(run: SolvedRun, order: Sequence[str], most: int = MOST_TYPES) -> Confusion:
    """Count what each type was mistaken for.

    Parameters
    ----------
    run
        An answered run.
    order
        All types, in the order of the rows.
    most
        Maximum number of types; those with most errors are kept.
    """
    pairs: Counter[tuple[str, str | None]] = Counter()
    for scored in run.scored:
        puzzle = scored.puzzle
        given = given_labels(puzzle, run.records[puzzle.id]["text"])
        pairs.update(zip(true_labels(puzzle), given, strict=True))
    totals: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for (true, label), n in pairs.items():
        totals[true] += n
        if label != true:
            errors.update({true: n, **({} if label is None else {label: n})})
    kept = set(sorted(order, key=lambda kind: (-errors[kind], kind))[:most])
    types = tuple(kind for kind in order if kind in kept)
    counts = np.zeros((len(types), len(types) + 1), dtype=np.int64)
    place: dict[str | None, int] = {kind: i for i, kind in enumerate(types)}
    place[None] = len(types)
    for (true, label), n in pairs.items():
        if true in place and label in place:
            counts[place[true], place[label]] += n
    mistaken = [(t, g, n, n / totals[t]) for (t, g), n in pairs.items() if g is not None and g != t]
    return Confusion(types, counts, sorted(mistaken, key=lambda m: (-m[2], m[0], m[1])))


def type_accuracy(run: SolvedRun, kind: str, seed: int = 0) -> Interval | None:
    """Return the accuracy on cells of a type, resampling donors; None without any."""
    values, owners = [], []
    for scored in run.scored:
        right = dict(zip(true_labels(scored.puzzle), scored.score.right, strict=True))
        if kind in right:
            values.append(float(right[kind]))
            owners.append(scored.puzzle)
    return clustered_interval(values, donors_of(owners), seed=seed) if values else None


def ontology_order(types: Iterable[str]) -> list[str]:
    """Order types so that neighbours in the Cell Ontology stand side by side.

    The distance of two types is the fraction of their ancestors that they do not share (Jaccard);
    types are clustered by it (average linkage, optimal leaf order). Labels unknown to the ontology
    come last, by name.
    """
    named = sorted(set(types))
    lineage = {k: {t, *ancestors(t)} for k in named if (t := term_id(k)) is not None}
    known = [k for k in named if k in lineage]
    unknown = [k for k in named if k not in lineage]
    if len(known) > 2:
        distances = np.array([
            1 - len(lineage[a] & lineage[b]) / len(lineage[a] | lineage[b])
            for a, b in combinations(known, 2)
        ])  # fmt: skip
        tree = optimal_leaf_ordering(linkage(distances, "average"), distances)
        known = [known[i] for i in leaves_list(tree)]
    return known + unknown
