"""How far the confidences of a run can be believed, cell by cell and batch by batch.

A cell's confidence is the probability of the label it was given; a batch's is the
probability that all its labels are right (:mod:`cello1.scoring.confidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cello1.errors import InputError, PuzzleError
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.confidence import Floats, confidence, positions
from cello1.scoring.evaluate import donors_of
from cello1.scoring.reliability import (
    BINS,
    Bin,
    accuracy_coverage,
    aurc,
    brier,
    ece,
    ece_noise,
    inner_edges,
    reliability,
)
from cello1.scoring.statistics import Interval, cluster_codes, percentiles

RESAMPLES = 1_000
_COVERAGES = np.arange(1, 21) / 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the confidences of one run are worth, on one level.

    Attributes
    ----------
    level
        ``cell`` or ``batch``.
    n
        Cells or batches judged.
    without_probabilities
        Puzzles left out because the solver gave no probabilities.
    without_label
        Cells left out because the response could not be read or their label is not on offer
        (they are wrong, but not with any confidence); batches left out because of such cells.
    accuracy, mean_confidence
        Share right, and what the solver expected it to be.
    ece, ece_adaptive
        Expected calibration error over bins of equal width, with its interval, and of equal mass.
    ece_noise
        About the `ece` that flawless confidences would show by chance over so few answers.
    brier, aurc
        See :mod:`cello1.scoring.reliability`.
    bins
        The bins of `ece`.
    coverage
        (coverage, accuracy) when only the surest 5 %, 10 %, ... 100 % are answered.
    temperature
        What the scores were divided by; None when the solver's probabilities were taken as is.
    """

    level: Literal["cell", "batch"]
    n: int
    without_probabilities: int
    without_label: int
    accuracy: float
    mean_confidence: float
    ece: Interval
    ece_adaptive: float
    ece_noise: float
    brier: float
    aurc: float
    bins: tuple[Bin, ...]
    coverage: tuple[tuple[float, float], ...]
    temperature: float | None


def calibrate(
    puzzles: Sequence[Puzzle],
    labels: Sequence[Sequence[str]],
    probabilities: Sequence[Floats | None],
    *,
    batches: Sequence[float | None] | None = None,
    temperature: float | None = None,
    bins: int = BINS,
    seed: int = 0,
) -> dict[str, Calibration]:
    """Judge the confidences of a run; sequences go by puzzle, in one order.

    A cell is right when its label is the true one, also where a label was given twice: its
    confidence speaks of that cell alone.

    Parameters
    ----------
    puzzles
        With answers.
    labels
        Those given to the cells; any other number of them when the response could not be read.
    probabilities
        Shape (N, M) each, or None for a puzzle to be left out.
    batches
        The confidence in each batch. Where it is None it is the product over the cells, as for
        cells decided independently, or 0 when a label was given twice.
    temperature
        What is behind `probabilities` and `batches`, for the record.
    bins, seed
        Of the calibration error and of its bootstrap.

    Returns
    -------
    dict
        ``cell`` and, unless every batch has a cell without label, ``batch``.

    Raises
    ------
    InputError
        When no cell has both a label and probabilities, or shapes do not fit.
    """
    cells: list[tuple[int, float, bool]] = []
    whole: list[tuple[int, float, bool]] = []
    judged = mute = 0
    given_batches = [None] * len(puzzles) if batches is None else batches
    columns = zip(puzzles, labels, probabilities, given_batches, strict=True)
    for k, (puzzle, given, p, batch) in enumerate(columns):
        if puzzle.answer is None:
            raise PuzzleError(f"puzzle {puzzle.id} has no answer, so confidence cannot be judged")
        if p is None:
            continue
        if np.shape(p) != (len(puzzle.cells), len(puzzle.candidates)):
            raise InputError(
                f"puzzle {puzzle.id} has probabilities of shape {np.shape(p)}; expected "
                f"({len(puzzle.cells)}, {len(puzzle.candidates)})"
            )
        chosen = positions(puzzle, given)
        sure, right = confidence(p, chosen), chosen == positions(puzzle, puzzle.answer)
        known, judged = chosen >= 0, judged + 1
        mute += int((~known).sum())
        cells += [(k, float(sure[i]), bool(right[i])) for i in np.flatnonzero(known)]
        if known.all():
            if batch is None:
                batch = float(sure.prod()) if len(np.unique(chosen)) == len(chosen) else 0.0
            whole.append((k, batch, bool(right.all())))
    if not cells:
        raise InputError("no cell has both a label on offer and probabilities to judge it by")

    def judge(
        level: Literal["cell", "batch"], answers: list[tuple[int, float, bool]], left_out: int
    ) -> Calibration:
        owner, p, r = (np.array(column) for column in zip(*answers, strict=True))
        coverage, accuracy = accuracy_coverage(p, r)
        at = np.searchsorted(coverage, _COVERAGES - 1e-9)
        return Calibration(
            level=level,
            n=len(p),
            without_probabilities=len(puzzles) - judged,
            without_label=left_out,
            accuracy=float(r.mean()),
            mean_confidence=float(p.mean()),
            ece=_ece_interval(p, r, owner, puzzles, bins, seed),
            ece_adaptive=ece(p, r, bins, adaptive=True),
            ece_noise=ece_noise(p, bins),
            brier=brier(p, r),
            aurc=aurc(p, r),
            bins=tuple(reliability(p, r, bins)),
            coverage=tuple(zip(_COVERAGES.tolist(), accuracy[at].tolist(), strict=True)),
            temperature=temperature,
        )

    found = {"cell": judge("cell", cells, mute)}
    return found | ({"batch": judge("batch", whole, judged - len(whole))} if whole else {})


def _ece_interval(
    p: Floats,
    r: npt.NDArray[np.bool_],
    owner: npt.NDArray[np.intp],
    puzzles: Sequence[Puzzle],
    bins: int,
    seed: int,
) -> Interval:
    """Bootstrap the calibration error over donors, or over puzzles where those are not known.

    Chance gaps in the bins only ever add to the error, and resampling adds as many again; the
    resamples are therefore shifted to have the estimate as their mean.
    """
    estimate = ece(p, r, bins)
    kept, number = np.unique(owner, return_inverse=True)
    codes, unit = cluster_codes(donors_of([puzzles[k] for k in kept]), len(kept))
    k, cluster = int(codes.max()) + 1, codes[number]
    if k == 1:  # a single puzzle says nothing of others
        return Interval(estimate, 0.0, 1.0, len(p), 1, unit)
    of = np.searchsorted(inner_edges(p, bins), p)
    gaps = np.bincount(cluster * bins + of, p - r, minlength=k * bins).reshape(k, bins)
    counts = np.random.default_rng(seed).multinomial(k, np.full(k, 1.0 / k), size=RESAMPLES)
    drawn = np.abs(counts @ gaps).sum(axis=1) / (counts @ np.bincount(cluster))
    low, high = percentiles(drawn - drawn.mean() + estimate)
    return Interval(estimate, max(0.0, low), min(1.0, high), len(p), k, unit)
