"""The input of a report: solved runs with their scores, and the logs of training runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.report.dynamics import TrainingLog, read_log
from cello1.runs import read_records, read_run, run_names
from cello1.scoring.calibration import Calibration
from cello1.scoring.evaluate import Evaluation, Scored, evaluate, score_all
from cello1.solvers.calibrated import run_calibration
from cello1.solvers.run import evidence_of, read_solved, remarks, token_counts


@dataclass(frozen=True)
class SolvedRun:
    """A run of `solve` with its scores and confidences.

    Attributes
    ----------
    name
        Name of its folder; unique in the report.
    info
        Its ``run.json``.
    puzzles
        All puzzles it was asked.
    records
        Puzzle id -> the last record that is not a failure.
    failures
        Puzzle id -> why the last call failed, for puzzles still unanswered.
    scored
        Scores of the answered puzzles.
    evaluation, calibration
        None when nothing was answered, or when the solver gives no probabilities.
    """

    name: str
    info: dict[str, Any]
    puzzles: list[Puzzle]
    records: dict[str, dict[str, Any]]
    failures: dict[str, str]
    scored: list[Scored]
    evaluation: Evaluation | None
    calibration: dict[str, Calibration] | None

    @property
    def solver(self) -> str:
        """Display name of its solver."""
        config = self.info["config"]
        name = str(config.get("solver", "?"))
        if "joint" in config:
            return f"{name}, {'jointly' if config['joint'] else 'each cell alone'}"
        return name if (told := evidence_of(self.info)) is None else f"{name}, {told}"

    @property
    def seconds(self) -> float | None:
        """Mean time per answered puzzle; None when nothing was answered."""
        times = [float(r.get("seconds") or 0.0) for r in self.records.values()]
        return sum(times) / len(times) if times else None

    def tokens(self, which: str) -> int | None:
        """Sum ``prompt_tokens`` or ``completion_tokens``; None when not all were counted."""
        counts = [r.get(which) for r in self.records.values()]
        return None if not counts or None in counts else sum(int(n or 0) for n in counts)

    def failure_reasons(self) -> list[tuple[str, int]]:
        """Count why calls failed, most frequent first."""
        counts = Counter(self.failures.values())
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Gathered:
    """The runs of one report, in the order they were named."""

    solved: list[SolvedRun]
    logs: list[TrainingLog]


def gather(runs: Sequence[Path], puzzles: Path | None = None, *, seed: int = 0) -> Gathered:
    """Read runs: those of `solve` are scored; for those of trainings the log is read.

    Parameters
    ----------
    runs
        Run folders.
    puzzles
        Where the puzzles of the solved runs are now, if they were moved.
    seed
        Seed of the bootstraps.

    Raises
    ------
    InputError
        When a folder is not a run, is named twice, or holds neither answers nor a log.
    """
    if not runs:
        raise InputError("a report needs at least one run folder")
    found = Gathered([], [])
    for name, run in zip(run_names(runs), runs, strict=True):
        info = read_run(run)
        if info.get("command") == "solve":
            found.solved.append(_solved(name, run, info, puzzles, seed))
        else:
            found.logs.append(read_log(name, run, info))
    return found


def _solved(name: str, run: Path, info: dict[str, Any], where: Path | None, seed: int) -> SolvedRun:
    puzzles, records = read_solved(run, where)
    if any(p.answer is None for p in puzzles):
        raise InputError(
            f"{run}: some puzzles have no answer, so responses to them cannot be scored"
        )
    puzzles = list({p.id: p for p in puzzles}.values())
    failures = {r["id"]: str(r["failure"]) for r in read_records(run) if "failure" in r}
    owed = {i: why for i, why in failures.items() if i not in records}
    if not records:
        return SolvedRun(name, info, puzzles, {}, owed, [], None, None)
    texts, tokens = {i: r["text"] for i, r in records.items()}, token_counts(records)
    found = evaluate(puzzles, texts, tokens=tokens, seed=seed)
    notes = [*found.notes, *(f"{name}: {line}" for line in remarks(puzzles, records))]
    return SolvedRun(
        name,
        info,
        puzzles,
        records,
        owed,
        score_all(puzzles, texts, tokens),
        replace(found, notes=notes),
        run_calibration(puzzles, records, seed=seed),
    )
