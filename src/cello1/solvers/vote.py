"""Voting: several answers to one puzzle are pooled cell by cell, then assigned jointly.

Each sample may see cells and candidates in another order, so that a model's position bias cancels
out; its answer is mapped back. The share of votes is the confidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cello1.puzzles.answer import Answer, Malformed, parse_response, parse_tolerantly
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.base import Failure, Floats, OnDone, RemoteSolver, Response, Solver

# Number of puzzles that are voted on together: enough to fill batches, but few enough that a killed
# run loses little, since a puzzle is finished only with its last vote.
_TOGETHER = 64
_PRIOR = 0.5  # prior votes, shared among the candidates


@dataclass
class _Ballot:
    """The votes on one puzzle."""

    puzzle: Puzzle
    votes: Floats
    responses: list[Response] = field(default_factory=list)
    unpermuted: list[Response] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unreadable: int = 0


class VotingSolver:
    """Asks a solver several times and lets the answers vote.

    Parameters
    ----------
    sampler
        Returns the solver of the k-th sample.
    samples
        Number of samples.
    permute
        Shuffle cells and candidates for every sample but the first.
    seed
        Seed of the orders.
    tolerant
        Count answers that only the tolerant parser reads. For scored runs only answers in the exact
        format count: the vote itself is in the format and would hide that most samples are not.
    """

    def __init__(
        self,
        sampler: Callable[[int], Solver],
        samples: int,
        *,
        permute: bool = False,
        seed: int = 0,
        tolerant: bool = False,
    ) -> None:
        self.sampler, self.samples, self.permute, self.seed = sampler, samples, permute, seed
        self.tolerant = tolerant
        first = sampler(0)
        self.name = f"{first.name} x {samples}"
        self.settings: dict[str, Any] = {**first.settings, "samples": samples, "permute": permute}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles in groups of some dozens."""
        for at in range(0, len(puzzles), _TOGETHER):
            start = time.perf_counter()
            some = puzzles[at : at + _TOGETHER]
            ballots = [_Ballot(p, np.zeros((len(p.cells), len(p.candidates)))) for p in some]
            for k in range(self.samples):
                self._collect(k, ballots)
            seconds = (time.perf_counter() - start) / len(some)
            for ballot in ballots:
                # A sampler that stopped (for example at its budget) leaves ballots incomplete.
                if len(ballot.responses) + len(ballot.failures) == self.samples:
                    on_done(ballot.puzzle.id, _settle(ballot, seconds))

    def _collect(self, k: int, ballots: Sequence[_Ballot]) -> None:
        """Ask for the k-th answer to every puzzle and count the votes."""
        asked: dict[str, tuple[_Ballot, list[int], Puzzle]] = {}
        shown = []
        for ballot in ballots:
            puzzle, order = self._shown(k, ballot.puzzle)
            asked[puzzle.id] = (ballot, order, puzzle)
            shown.append(puzzle)

        def count(puzzle_id: str, result: Response | Failure) -> None:
            ballot, order, puzzle = asked[puzzle_id]
            if isinstance(result, Failure):
                ballot.failures.append(result.reason)
                return
            ballot.responses.append(result)
            if order == sorted(order):
                ballot.unpermuted.append(result)
            answer = self._read(result.text, puzzle)
            if not isinstance(answer, Answer):
                ballot.unreadable += 1
            elif len(answer.labels) == len(order):
                for place, label in zip(order, answer.labels, strict=True):
                    column = ballot.puzzle.candidate_index.get(label_key(label))
                    if column is not None:
                        ballot.votes[place, column] += 1

        self.sampler(k).solve(shown, count)

    def _read(self, text: str, puzzle: Puzzle) -> Answer | Malformed:
        if not self.tolerant:
            return parse_response(text)
        read = parse_tolerantly(text, puzzle)
        return read if isinstance(read, Malformed) else read.answer

    def _shown(self, k: int, puzzle: Puzzle) -> tuple[Puzzle, list[int]]:
        """Return a puzzle as the k-th sample sees it, and the order of its cells there."""
        order = [*range(len(puzzle.cells))]
        if not self.permute or not k:
            return puzzle, order
        rng = np.random.default_rng([self.seed, k, int(puzzle.id, 16)])
        order = rng.permutation(len(order)).tolist()
        candidates = tuple(str(c) for c in rng.permutation(np.array(puzzle.candidates, object)))
        return replace(puzzle.permute_cells(order), candidates=candidates), order


class RemoteVotingSolver(VotingSolver):
    """Votes of a remote solver, with the costs of all samples added up."""

    @property
    def spent(self) -> float:
        """USD spent so far on all samples."""
        return sum(self._remote(k).spent for k in range(self.samples))

    @property
    def stopped(self) -> str | None:
        """Why the first sampler that stopped left puzzles unanswered, or None."""
        reasons = (self._remote(k).stopped for k in range(self.samples))
        return next((reason for reason in reasons if reason), None)

    @property
    def told(self) -> list[str]:
        """Differences between requests and settings, of any sampler."""
        return [*dict.fromkeys(line for k in range(self.samples) for line in self._remote(k).told)]

    def dry_run(self, puzzles: Sequence[Puzzle]) -> Iterator[list[dict[str, str]]]:
        """Yield the messages of every sample, sample by sample; nothing is sent."""
        for k in range(self.samples):
            yield from self._remote(k).dry_run([self._shown(k, p)[0] for p in puzzles])

    def estimate(self, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
        """Return the estimated size and cost of all samples; None for figures that are unknown."""
        parts = [
            self._remote(k).estimate([self._shown(k, p)[0] for p in puzzles])
            for k in range(self.samples)
        ]
        return {
            name: None if any(part[name] is None for part in parts) else sum(p[name] for p in parts)
            for name in parts[0]
        }

    def _remote(self, k: int) -> RemoteSolver:
        solver = self.sampler(k)
        assert isinstance(solver, RemoteSolver)
        return solver


def voting(
    sampler: Callable[[int], Solver], samples: int, *, permute: bool = False, seed: int = 0
) -> VotingSolver:
    """Return a solver that lets samples vote; it is remote if the samplers are."""
    kind = RemoteVotingSolver if isinstance(sampler(0), RemoteSolver) else VotingSolver
    return kind(sampler, samples, permute=permute, seed=seed)


def _settle(ballot: _Ballot, seconds: float) -> Response | Failure:
    """Assign by the votes and keep the best response that gives the same answer."""
    if not ballot.responses:
        return Failure(f"every sample failed, the last with: {ballot.failures[-1]}")
    puzzle, votes = ballot.puzzle, ballot.votes
    counts = {
        "answers": len(ballot.responses),
        "unreadable": ballot.unreadable,
        "failed": len(ballot.failures),
    }
    if not votes.any():
        # There are no votes: no model has given any assignment.
        return replace(
            ballot.responses[0],
            seconds=seconds,
            prompt_tokens=_total([r.prompt_tokens for r in ballot.responses]),
            completion_tokens=_total([r.completion_tokens for r in ballot.responses]),
            logprob=None,
            agreement=0.0,
            votes=counts,
        )
    scores = np.log((votes + _PRIOR / votes.shape[1]) / (len(ballot.responses) + _PRIOR))
    chosen = assign_jointly(scores).tolist()
    labels = tuple(puzzle.candidates[j] for j in chosen)
    agreement = float(votes[range(len(chosen)), chosen].mean() / len(ballot.responses))
    same = [r for r in ballot.unpermuted if _says(r.text, labels)]
    best = max(same, key=lambda r: r.logprob or 0.0, default=None)
    text = best.text if best else response_text(_reasoning(ballot, chosen, agreement), labels)
    shares, method = probabilities(scores)
    return Response(
        text,
        seconds=seconds,
        prompt_tokens=_total([r.prompt_tokens for r in ballot.responses]),
        completion_tokens=_total([r.completion_tokens for r in ballot.responses]),
        finish_reason=best.finish_reason if best else "vote",
        logprob=best.logprob if best else None,
        scores=scores,
        probabilities=shares,
        probability_method=method,
        agreement=agreement,
        votes=counts,
    )


def _says(text: str, labels: tuple[str, ...]) -> bool:
    answer = parse_response(text)
    if not isinstance(answer, Answer):
        return False
    return [label_key(x) for x in answer.labels] == [label_key(x) for x in labels]


def _reasoning(ballot: _Ballot, chosen: Sequence[int], agreement: float) -> str:
    n = len(ballot.responses)
    lines = [f"{n} answers were pooled; on average {agreement:.0%} of them agree with this one."]
    for i, j in enumerate(chosen):
        lines.append(
            f"Cell {i + 1}: {ballot.puzzle.candidates[j]}, {int(ballot.votes[i, j])} of {n} votes."
        )
    return "\n".join(lines)


def _total(counts: Sequence[int | None]) -> int | None:
    return None if None in counts else sum(c or 0 for c in counts)
