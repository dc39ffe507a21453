"""Calibration of solved runs, with a temperature fitted on other donors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from cello1.errors import InputError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.runs import read_run
from cello1.scoring.calibration import (
    Calibration,
    ToProbabilities,
    batch_confidence,
    calibrate,
    fit_temperature,
    positions,
)
from cello1.solvers.assign import probabilities
from cello1.solvers.base import Floats
from cello1.solvers.run import read_solved

Record = Mapping[str, Any]


def same_solver(run: Path, other: Path) -> bool:
    """Return whether two runs are of the same solver on different puzzles.

    The solver is the same when its settings and its training files are.
    """
    infos = read_run(run), read_run(other)
    asked = {info["config"].get("puzzles") for info in infos}
    settings = [{k: v for k, v in info["config"].items() if k != "puzzles"} for info in infos]
    # The puzzles of one run may be training files of both (a model selected on validation).
    learned = [set(info["inputs"].values()) - asked for info in infos]
    return len(asked) == 2 and settings[0] == settings[1] and learned[0] == learned[1]


def temperatures(runs: Sequence[Path], validation: Sequence[Path]) -> dict[Path, float]:
    """Fit a temperature on each validation run and assign it to the runs of the same solver.

    Raises
    ------
    InputError
        When a validation run matches none of the runs, or two match the same one.
    """
    found: dict[Path, float] = {}
    for other in validation:
        same = [run for run in runs if same_solver(run, other)]
        if not same:
            raise InputError(
                f"{other} cannot calibrate any of the runs: expected the same solver with the same "
                "settings on other puzzles (cello1 solve DIR --split validation)"
            )
        if twice := [run for run in same if run in found]:
            raise InputError(f"{twice[0]} has two runs to calibrate on; name one")
        found |= dict.fromkeys(same, temperature_of(*read_solved(other)))
    return found


def temperature_of(puzzles: Sequence[Puzzle], records: Mapping[str, Record]) -> float:
    """Fit the temperature of a solver on a run over validation puzzles with answers.

    Raises
    ------
    InputError
        When no response of the run has scores.
    """
    known = [p for p in puzzles if p.answer is not None and "scores" in records.get(p.id, {})]
    if not known:
        raise InputError("the run to calibrate on has no scores with known answers")
    scores = [np.array(records[p.id]["scores"]) for p in known]
    gold = [positions(p, p.answer or ()) for p in known]
    return fit_temperature(scores, gold, _map([records[p.id] for p in known]))


def run_calibration(
    puzzles: Sequence[Puzzle],
    records: Mapping[str, Record],
    temperature: float | None = None,
    *,
    seed: int = 0,
) -> dict[str, Calibration] | None:
    """Evaluate the confidences of a run; None when it has none (a solver that only writes text).

    Parameters
    ----------
    puzzles, records
        What :func:`cello1.solvers.run.read_solved` returns.
    temperature
        Divisor of the scores; responses without scores are then left out. By default the
        probabilities of the run are used unchanged.
    seed
        Seed of the bootstrap.
    """
    asked = [p for p in puzzles if p.id in records]
    key = "probabilities" if temperature is None else "scores"
    sure = [records[p.id] for p in asked if key in records[p.id]]
    if not sure:
        return None
    to_probabilities, joint = _map(sure), sure[0]["probability_method"] != "softmax"
    labels: list[tuple[str, ...]] = []
    shares: list[Floats | None] = []
    batches: list[float | None] = []
    for puzzle in asked:
        record = records[puzzle.id]
        said = parse_response(record["text"])
        labels.append(said.labels if isinstance(said, Answer) else ())
        scores = np.array(record["scores"]) / (temperature or 1.0) if "scores" in record else None
        if temperature is not None:
            p = None if scores is None else to_probabilities(scores)
        else:
            p = np.array(record[key]) if key in record else None
        shares.append(p)
        batches.append(
            batch_confidence(
                scores, positions(puzzle, labels[-1]), to_probabilities, probabilities=p
            )
            if joint and scores is not None and p is not None
            else None
        )
    return calibrate(asked, labels, shares, batches=batches, temperature=temperature, seed=seed)


def _map(records: Sequence[Record]) -> ToProbabilities:
    """Return the map from scores to probabilities of these responses: per cell, or jointly."""
    methods = {r["probability_method"] for r in records}
    if methods == {"softmax"}:
        return lambda scores: np.asarray(softmax(scores, axis=1))
    if "softmax" in methods:
        raise InputError("some responses decide jointly and some cell by cell; score them apart")
    return lambda scores: probabilities(scores)[0]
