"""Solve puzzles into a run folder; an interrupted run can be resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cello1.errors import InputError, UseError, brief
from cello1.puzzles.prompt import messages, without_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_puzzles, find_splits
from cello1.puzzles.table import read_puzzles
from cello1.recipes import SolveSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.recipes.solve import SPLIT
from cello1.runs import Count, Run, file_hash, named_files, read_records, read_run
from cello1.solvers.base import Failure, Response, Solver
from cello1.solvers.choose import choose_for

_DIGITS = 6
_MOST_CHARACTERS_PER_TOKEN = 10


@takes(SolveSettings)
def solve(
    puzzles: str | Path,
    solver: Solver | str | SolveSettings | None,
    out: str | Path,
    *,
    split: str = SPLIT,
    revision: str | None = None,
    train: str | Path | None = None,
    validation: str | Path | None = None,
    inputs: Sequence[Path] = (),
    watch: Count = lambda done, total: None,
    **changes: Any,
) -> Path:
    """Solve every puzzle of a file; puzzles that an interrupted call finished are not repeated.

    Parameters
    ----------
    puzzles
        Their source: a file, a folder, or a name on the Hugging Face hub
        (:mod:`cello1.puzzles.source`).
    solver
        A name such as ``centroids`` or ``openai:MODEL``, settings, or a solver object. None means
        the default: ``atlas+mini``, or ``atlas`` without torch, or the solver that the options
        imply (:mod:`cello1.recipes.solve`).
    out
        The run folder.
    split
        Which split to solve, where there are several.
    revision
        Branch, tag or commit of puzzles on the hub.
    train, validation
        Files to fit centroids on, and to select their model on; by default those of the folder.
    inputs
        Further files that the solver was fitted on; a run refuses to resume if they change.
    **changes
        Fields of :class:`cello1.recipes.SolveSettings` by keyword, such as ``samples=3``.
    watch
        Called with (puzzles finished, puzzles in all).

    Returns
    -------
    Path
        The run folder.
    """
    if solver is None or isinstance(solver, str | SolveSettings):
        named = {"solver": solver} if isinstance(solver, str) else {}
        given = solver if isinstance(solver, SolveSettings) else None
        settings = resolve(SolveSettings, given, named | changes)
        chosen = choose_for(
            puzzles, settings, split=split, revision=revision, train=train, validation=validation
        )
        path, solver, inputs = chosen.puzzles, chosen.solver, [*chosen.learned, *inputs]
    elif changes:
        raise UseError(f"{', '.join(changes)} cannot be changed of a solver that was made already")
    else:
        path = find_puzzles(puzzles, split, revision=revision)
    # Rows of traces can have evidence; these settings decide whether it is in the prompt.
    todo = {puzzle.id: without_evidence(puzzle) for puzzle in read_puzzles(path)}
    if not todo:
        raise InputError(f"{path} holds no puzzle, so there is nothing to solve; name another")
    total = len(todo)
    config = {"puzzles": file_hash(path), **solver.settings}
    with Run(Path(out), command="solve", config=config, inputs=[path, *inputs]) as run:
        for finished in run.finished():
            todo.pop(finished, None)
        done = total - len(todo)

        def on_done(puzzle_id: str, result: Response | Failure) -> None:
            nonlocal done
            run.append(record_of(puzzle_id, result))
            done += 1
            watch(done, total)

        watch(done, total)
        solver.solve(list(todo.values()), on_done)
    return Path(out)


def read_solved(
    run: Path, puzzles: Path | None = None
) -> tuple[list[Puzzle], dict[str, dict[str, Any]]]:
    """Read a run back: its puzzles, and the last good record of each id.

    Parameters
    ----------
    run
        A run folder of `solve`.
    puzzles
        Where the puzzles are now, if they were moved.

    Raises
    ------
    InputError
        When the puzzles are not found or have changed since.
    """
    info = read_run(run)
    wanted = info["config"].get("puzzles")
    if info.get("command") != "solve" or wanted is None:
        raise InputError(f"{run} is a run of {info.get('command')!r}; expected one of 'solve'")
    path = next((Path(p) for p, h in info["inputs"].items() if h == wanted), None)
    if path is None:
        raise InputError(f"{run / 'run.json'} names no puzzles: it was altered; solve them again")
    if puzzles is not None:
        # Of several splits it is the one that was solved.
        splits = find_splits(puzzles).values()
        path = next((p for p in splits if file_hash(p) == wanted), None)
        if path is None:
            raise InputError(f"{puzzles} holds other puzzles than {run} was made of")
    elif not any(file.exists() for file in named_files(path)):
        raise InputError(f"the puzzles of {run} are no longer at {path}; say where with --puzzles")
    elif file_hash(path) != wanted:
        raise InputError(f"{path} has changed since {run} was made; solve it again")
    records = {r["id"]: r for r in read_records(run) if "failure" not in r}
    if odd := [i for i, record in records.items() if not isinstance(record.get("text"), str)]:
        raise InputError(
            f"{run / 'responses.jsonl'} has a record without a text (of puzzle {brief(odd[0])}): "
            "it was altered; take that line out, and the puzzle is solved again"
        )
    return read_puzzles(path), records


def evidence_of(info: Mapping[str, Any]) -> str | None:
    """Return which evidence the prompts of a run had, from its ``run.json``; None without any."""
    told = info["config"].get("evidence")
    if not isinstance(told, dict):
        return None
    return f"with evidence of the {told.get('from')} (prompt {info['config'].get('prompt')})"


def unanswered(run: Path) -> tuple[int, list[tuple[str, int]]]:
    """Count a run's unanswered puzzles, and the reasons of failed calls, most frequent first."""
    puzzles, records = read_solved(run)
    owed = {p.id for p in puzzles} - set(records)
    reasons = {r["id"]: r["failure"] for r in read_records(run) if "failure" in r}
    return len(owed), Counter(reasons[i] for i in sorted(owed) if i in reasons).most_common()


def remarks(puzzles: Sequence[Puzzle], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return problems with the answers of a run, with counts and what to do; often none."""
    asked = [(p, records[p.id]) for p in puzzles if p.id in records]
    lines = []
    if cut := cut_prompts(asked):
        tokens = sorted(int(record["prompt_tokens"]) for _, record in cut)
        read = f"{tokens[0]:,}" + (f" to {tokens[-1]:,}" if tokens[-1] > tokens[0] else "")
        lines.append(
            f"{len(cut)} of {len(asked)} prompts were cut by the server, which says it read only "
            f"{read} tokens: these answers count for nothing; raise the "
            "server's context length (Ollama: num_ctx) and solve again with another --out"
        )
    if short := sum(record.get("finish_reason") == "length" for _, record in asked):
        lines.append(
            f"{short} of {len(asked)} answers were cut off at their budget of tokens; raise "
            "--max-new-tokens, or use a longer context"
        )
    votes = [record["votes"] for _, record in asked if isinstance(record.get("votes"), dict)]
    answers = sum(int(v.get("answers", 0)) for v in votes)
    if unreadable := sum(int(v.get("unreadable", 0)) for v in votes):
        lines.append(f"{unreadable} of {answers} sampled answers could not be read: no votes")
    if failed := sum(int(v.get("failed", 0)) for v in votes):
        lines.append(f"{failed} sampled answers never came: fewer votes than asked for")
    return lines


def cut_prompts(
    asked: Sequence[tuple[Puzzle, Mapping[str, Any]]],
) -> list[tuple[Puzzle, Mapping[str, Any]]]:
    """Find the answers to prompts that a server silently truncated, by its own token counts.

    Tokenizers have at most some six characters of a puzzle per token, so that a higher ratio means
    that the server read only a part. A server that reports the same round number of tokens for
    prompts of different lengths has truncated all of them.
    """
    counted = []
    for puzzle, record in asked:
        votes = record.get("votes")
        samples = votes.get("answers", 1) if isinstance(votes, dict) else 1
        if isinstance(record.get("prompt_tokens"), int) and record["prompt_tokens"] > 0:
            length = sum(len(message.content) for message in messages(puzzle))
            counted.append((puzzle, record, length, record["prompt_tokens"] / max(1, samples)))
    lengths: dict[float, set[int]] = {}
    for _, _, length, tokens in counted:
        lengths.setdefault(tokens, set()).add(length)
    caps = {
        tokens
        for tokens, found in lengths.items()
        if tokens > 1_000 and (tokens + 2) % 512 <= 4
        if len(found) > 3 and max(found) > 1.02 * min(found)
    }
    return [
        (puzzle, record)
        for puzzle, record, length, tokens in counted
        if length > _MOST_CHARACTERS_PER_TOKEN * tokens or tokens in caps
    ]


def token_counts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, int] | None:
    """Return the lengths of all responses in tokens, or None if any is unknown."""
    counts = {i: r.get("completion_tokens") for i, r in records.items()}
    return None if None in counts.values() else {i: int(n or 0) for i, n in counts.items()}


def record_of(puzzle_id: str, result: Response | Failure) -> dict[str, Any]:
    """Return a result as a record of ``responses.jsonl``: JSON values, floats to six digits."""
    if isinstance(result, Failure):
        return {"id": puzzle_id, "failure": result.reason}
    record: dict[str, Any] = {
        "id": puzzle_id,
        "text": result.text,
        "seconds": round(result.seconds, _DIGITS),
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "finish_reason": result.finish_reason,
    }
    for name in ("logprob", "agreement"):
        if (value := getattr(result, name)) is not None:
            record[name] = round(value, _DIGITS)
    if result.votes is not None:
        record["votes"] = dict(result.votes)
    if result.scores is not None:
        record["scores"] = result.scores.round(_DIGITS).tolist()
    if result.probabilities is not None:
        record["probabilities"] = result.probabilities.round(_DIGITS).tolist()
        record["probability_method"] = result.probability_method
    return record
