"""Distillation by rejection sampling: a teacher answers, and correct responses become traces.

Every response is stored in the run folder as it arrives, with its verdict. An interrupted run
resumes and ends with the same traces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cello1.citations.citations import gene_vocabulary
from cello1.errors import InputError
from cello1.puzzles.prompt import without_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_puzzles, find_splits
from cello1.puzzles.table import read_puzzles
from cello1.recipes import DistillSettings
from cello1.recipes.distill import SPLIT
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Count, Run, file_hash, read_records, write_atomic, write_json
from cello1.solvers.base import Failure, RemoteSolver, Response, known_partly
from cello1.training.distill.acceptance import acceptance, check_response, choose
from cello1.training.distill.choose_teacher import Sampler, choose_teacher, evidence_told
from cello1.training.run.traces import make_trace, write_traces

TRACES, REJECTED = "reasoning.parquet", "rejected.jsonl"
# With a target, this many puzzles are asked between counts.
_TOGETHER = 64
_DIGITS = 6
# Options that do not change which responses come.
_NOT_IDENTITY = {
    "in_flight",
    "per_minute",
    "price_in",
    "price_out",
    "max_cost",
    "cache",
    "retries",
    "timeout",
}


@dataclass(frozen=True)
class Distilled:
    """The result of a distillation.

    Attributes
    ----------
    folder
        The run folder, with ``reasoning.parquet``, ``rejected.jsonl`` and ``metrics.json``.
    metrics
        What ``metrics.json`` holds.
    owed
        Calls that failed or were not made; rerun the same command to make them.
    why
        The reason for the first of them.
    unknown
        A sentence on the candidates the teacher does not know by themselves, or None.
    """

    folder: Path
    metrics: dict[str, Any]
    owed: int
    why: str
    unknown: str | None = None


@takes(DistillSettings)
def distill(
    puzzles: str | Path,
    out: str | Path,
    settings: DistillSettings | str | Path | None = None,
    *,
    split: str = SPLIT,
    revision: str | None = None,
    train: str | Path | None = None,
    validation: str | Path | None = None,
    watch: Count = lambda done, total: None,
    **changes: Any,
) -> Distilled:
    """Ask a teacher, keep correct responses, and write the traces.

    Parameters
    ----------
    puzzles
        Puzzles with answers: a file, a folder, or a name on the Hugging Face hub.
    out
        The run folder.
    settings, **changes
        Teacher, samples, filters and what to keep: :class:`cello1.recipes.DistillSettings` or a
        recipe, and its fields by keyword.
    split
        Which split to ask, where there are several.
    revision
        Branch, tag or commit of puzzles on the hub.
    train, validation
        For centroids: what to learn from (default: for every donor the other donors' puzzles)
        and on what to choose the model (default: the validation split of the folder).
    watch
        Called with (done, in all): puzzles solved if there is a target, else responses.

    Raises
    ------
    InputError
        When a puzzle has no answer, or not a single response was accepted.
    """
    settings = resolve(DistillSettings, settings, changes)
    folder, path = Path(out), find_puzzles(puzzles, split, revision=revision)
    if settings.teacher == "centroids" and validation is None:
        validation = find_splits(puzzles, revision=revision).get("validation")
    train = None if train is None else find_puzzles(train, "train")
    validation = None if validation is None else find_puzzles(validation, "validation")
    asked = {i: without_evidence(puzzle) for i, puzzle in _answered(path).items()}
    learned = [p for p in (train, validation) if p is not None]
    teacher = choose_teacher(
        settings,
        list(asked.values()),
        () if train is None else read_puzzles(train),
        () if validation is None else read_puzzles(validation),
    )
    tell = evidence_told(settings)
    if tell is not None:
        asked = {puzzle.id: puzzle for puzzle in tell([*asked.values()])}
    resolved = settings.model_dump(mode="json", exclude={"evidence"})
    resolved["options"] = {k: v for k, v in settings.options.items() if k not in _NOT_IDENTITY}
    config = {"puzzles": file_hash(path), "solver": teacher(0).settings, **resolved}
    config |= tell.settings if tell is not None else {}
    with Run(folder, command="distill", config=config, inputs=[path, *learned]) as run:
        rounds = _Rounds(run, asked, settings, watch)
        rounds.ask(teacher)
        made = _write(folder, rounds, teacher(0).name)
    candidates = {label for puzzle in asked.values() for label in puzzle.candidates}
    return replace(made, unknown=known_partly(teacher(0), candidates))


class _Rounds:
    """The responses so far, and what is asked next."""

    def __init__(
        self,
        run: Run,
        puzzles: Mapping[str, Puzzle],
        settings: DistillSettings,
        watch: Count,
    ) -> None:
        self.run, self.puzzles, self.settings, self.watch = run, puzzles, settings, watch
        self.vocabulary = gene_vocabulary(puzzles.values())
        self.records = {r["id"]: r for r in read_records(run.folder) if "failure" not in r}
        self.solved = {r["puzzle"] for r in self.records.values() if r["accepted"]}
        self.failures: dict[str, str] = {}
        self.stopped = ""
        # With a target, which puzzles come first must not depend on how the file is sorted.
        ids = sorted(puzzles)
        order = np.random.default_rng(settings.seed).permutation(len(ids))
        self.order = [ids[i] for i in order]

    def ask(self, teacher: Sampler) -> None:
        """Ask sample by sample; with a target, only for what is unsolved, until it is met."""
        target = self.settings.target
        self._tell()
        for sample in range(self.settings.samples):
            # What was unsolved when this round began, even if it was interrupted halfway.
            earlier = {self.records[i]["puzzle"] for i in self._accepted_before(sample)}
            owed = [p for p in self.order if target is None or p not in earlier]
            size = len(owed) if target is None else _TOGETHER
            for at in range(0, len(owed), max(1, size)):
                if target is not None and self._solved_up_to(sample, owed[:at]) >= target:
                    return
                self._ask_some(teacher, sample, owed[at : at + size])
                if self.stopped:
                    return

    def kept(self) -> list[Puzzle]:
        """Return the traces: puzzles in the order of the file, for each what is to be kept."""
        accepted: dict[str, list[Mapping[str, Any]]] = {}
        for record in self.records.values():
            if record["accepted"]:
                accepted.setdefault(record["puzzle"], []).append(record)
        if self.settings.target is not None:
            place = {puzzle_id: i for i, puzzle_id in enumerate(self.order)}
            first = {p: min(int(r["sample"]) for r in rs) for p, rs in accepted.items()}
            ranked = sorted(accepted, key=lambda p: (first[p], place[p]))
            accepted = {p: accepted[p] for p in ranked[: self.settings.target]}
        return [
            make_trace(
                puzzle,
                record["text"],
                teacher=record["teacher"],
                sample=record["sample"],
                hint=self.settings.hint,
            )
            for puzzle_id, puzzle in self.puzzles.items()
            if puzzle_id in accepted
            for record in choose(puzzle, accepted[puzzle_id], self.settings, self.vocabulary)
        ]

    def _accepted_before(self, sample: int) -> list[str]:
        return [i for i, r in self.records.items() if r["accepted"] and int(r["sample"]) < sample]

    def _solved_up_to(self, sample: int, asked: Sequence[str]) -> int:
        """Count what was solved in earlier rounds and, in this one, among those asked."""
        solved = {self.records[i]["puzzle"] for i in self._accepted_before(sample)}
        now = {p for p in asked if self.records.get(f"{p}/{sample}", {}).get("accepted")}
        return len(solved | now)

    def _ask_some(self, teacher: Sampler, sample: int, ids: Sequence[str]) -> None:
        owed = [self.puzzles[p] for p in ids if f"{p}/{sample}" not in self.records]
        if not owed:
            return
        solver = teacher(sample)

        def on_done(puzzle_id: str, result: Response | Failure) -> None:
            record = self._record(puzzle_id, sample, solver.name, result)
            self.run.append(record)
            if isinstance(result, Failure):
                self.failures[record["id"]] = result.reason
                return
            self.records[record["id"]] = record
            if record["accepted"]:
                self.solved.add(puzzle_id)
            self._tell()

        solver.solve(owed, on_done)
        self.stopped = (isinstance(solver, RemoteSolver) and solver.stopped) or ""
        for puzzle in owed:
            if (key := f"{puzzle.id}/{sample}") not in self.records:
                self.failures.setdefault(key, self.stopped or "the teacher gave no answer")

    def _record(
        self, puzzle_id: str, sample: int, teacher: str, result: Response | Failure
    ) -> dict[str, Any]:
        known = {"id": f"{puzzle_id}/{sample}", "puzzle": puzzle_id, "sample": sample}
        if isinstance(result, Failure):
            return {**known, "failure": result.reason}
        verdict = check_response(
            self.puzzles[puzzle_id], result.text, self.settings, self.vocabulary
        )
        return {
            **known,
            "teacher": teacher,
            "text": result.text,
            "accepted": verdict.accepted,
            "verdict": verdict.kind,
            "reason": verdict.reason,
            "seconds": round(result.seconds, _DIGITS),
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "finish_reason": result.finish_reason,
        }

    def _tell(self) -> None:
        if self.settings.target is not None:
            self.watch(min(len(self.solved), self.settings.target), self.settings.target)
        else:
            self.watch(len(self.records), len(self.puzzles) * self.settings.samples)


def _answered(path: Path) -> dict[str, Puzzle]:
    """Read puzzles by id; there must be some, and all must have answers."""
    puzzles = read_puzzles(path)
    without = [number for number, p in enumerate(puzzles, start=1) if p.answer is None]
    if without or not puzzles:
        found = f"{len(without)} of {len(puzzles)} puzzles without an answer"
        raise InputError(
            f"{path} has {found}{f', the first in row {without[0]}' if without else ''}; a "
            "response can only be accepted against an answer: name a file of answered puzzles"
        )
    return {puzzle.id: puzzle for puzzle in puzzles}


def _write(folder: Path, rounds: _Rounds, teacher: str) -> Distilled:
    """Write traces, rejected responses and metrics, each complete or not at all."""
    place = {puzzle_id: i for i, puzzle_id in enumerate(rounds.puzzles)}
    records = sorted(rounds.records.values(), key=lambda r: (place[r["puzzle"]], r["sample"]))
    rejected = [r for r in records if not r["accepted"]]
    names = ("id", "puzzle", "sample", "verdict", "reason", "text")
    lines = [json.dumps({k: r[k] for k in names}, ensure_ascii=False) + "\n" for r in rejected]
    write_atomic(folder / REJECTED, "".join(lines).encode())
    traces = rounds.kept()
    metrics = acceptance(rounds.puzzles, records, traces, rounds.settings, rounds.vocabulary)
    metrics = {"teacher": teacher, **metrics, "owed": len(rounds.failures)}
    write_json(folder / "metrics.json", metrics)
    why = next((rounds.failures[key] for key in sorted(rounds.failures)), "")
    if traces:
        write_traces(traces, folder / TRACES)
    elif not rounds.failures:
        most = max(metrics["rejected"].items(), key=lambda kind: (kind[1], kind[0]))[0]
        example = next(r["reason"] for r in rejected if r["verdict"] == most)
        raise InputError(
            f"none of the {len(records)} responses of {teacher} was accepted, mostly for "
            f"{most!r} (such as: {example}); read {folder / REJECTED}, then try a better teacher, "
            "more --samples, looser filters or --hint"
        )
    return Distilled(folder, metrics, len(rounds.failures), why)
