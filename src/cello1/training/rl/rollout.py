"""Responses to learn from: sampled from the model in training, scored, and counted.

One rule for every engine: a response ends with a token that ends the model's turn, or it is cut off
at its budget and is then invalid. Unlike a solver, sampling does not stop at ``</answer>``: a model
has to learn to end by itself, because other programs will not stop it there.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.reward import Reward, cut_off
from cello1.scoring.score import Score, score
from cello1.solvers.local.generate import bytes_per_token, generate
from cello1.solvers.local.language import LanguageModel
from cello1.solvers.local.prompter import Prompter

_MOST_ROWS = {"cpu": 128, "cuda": 1_024}
_MEANS = ("truncated", "format_validity", "uniqueness", "cell_accuracy", "batch_accuracy")

Seeds = list[tuple[int, ...]]
# Prompts and a seed for each -> tokens and, where the engine tells, their log-probabilities.
Generate = Callable[
    [list[list[int]], Seeds], tuple[list[list[int]], list[list[float | None]] | None]
]


@dataclass(frozen=True)
class Rollout:
    """One response and its rewards.

    Attributes
    ----------
    tokens
        As sampled, with the end token unless it was cut off.
    logprobs
        Of the tokens, if the engine that sampled them is not the one that trains.
    rewards
        One per reward of the recipe, not weighted.
    """

    tokens: list[int]
    logprobs: list[float | None] | None
    text: str
    finished: bool
    score: Score
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """All responses to one puzzle."""

    puzzle: Puzzle
    prompt: list[int]
    rollouts: list[Rollout]

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ: otherwise nothing can be learned here."""
        return len({rollout.rewards for rollout in self.rollouts}) > 1


class RolloutSampler:
    """Samples groups of responses, scores them, and keeps counts.

    Every random choice depends on the seed and its place in the training alone, so a resumed run
    repeats them.

    Parameters
    ----------
    prompter
        Writes prompts and reads tokens.
    ends
        Tokens that end a response.
    rewards
        Applied to every score.
    size
        Responses in a group.
    seed
        For all random choices.
    generate
        The engine.
    gather
        Gathers counts over all training processes.

    Attributes
    ----------
    seconds
        Spent ``generating`` and ``rewarding``.
    counts
        Of what was sampled since they were last read, over all processes.
    """

    def __init__(
        self,
        prompter: Prompter,
        ends: Sequence[int],
        rewards: Sequence[Reward],
        size: int,
        *,
        seed: int,
        generate: Generate,
        gather: Callable[[dict[str, float]], list[dict[str, float]]] = lambda counts: [counts],
    ) -> None:
        self.prompter, self.ends, self.rewards, self.size = prompter, ends, rewards, size
        self.seed, self.generate, self.gather = seed, generate, gather
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def sample(self, puzzles: Sequence[Puzzle], place: tuple[int, ...], shift: int) -> list[Group]:
        """Return one group per puzzle.

        Parameters
        ----------
        puzzles
            This process's share of the batch.
        place
            Position in the training: (step, generation within the step).
        shift
            Index of its first puzzle in the whole batch.
        """
        began = time.perf_counter()
        asked = [self.prompter.prompt(puzzle) for puzzle in puzzles]
        prompts = [prompt for prompt, _ in asked for _ in range(self.size)]
        seeds: Seeds = [
            (self.seed, *place, 0, shift + i, j)
            for i in range(len(puzzles))
            for j in range(self.size)
        ]
        sampled, logprobs = self.generate(prompts, seeds)
        generated = time.perf_counter()
        groups = []
        for i, (puzzle, (prompt, opened)) in enumerate(zip(puzzles, asked, strict=True)):
            mine = range(i * self.size, (i + 1) * self.size)
            rollouts = [
                self._scored(puzzle, sampled[k], logprobs[k] if logprobs else None, opened)
                for k in mine
            ]
            groups.append(Group(puzzle, prompt, rollouts))
        self.seconds["generating"] += generated - began
        self.seconds["rewarding"] += time.perf_counter() - generated
        self._count(groups)
        return groups

    def _scored(
        self, puzzle: Puzzle, tokens: list[int], logprobs: list[float | None] | None, opened: bool
    ) -> Rollout:
        finished = bool(tokens) and tokens[-1] in self.ends
        # Special tokens are kept: everything that was sampled has to be in the format.
        text = self.prompter.vocabulary.text(tokens[:-1] if finished else tokens)
        text = ("<think>" if opened else "") + text
        found = score(puzzle, text) if finished else cut_off(puzzle)
        rewards = tuple(float(reward(found)) for reward in self.rewards)
        return Rollout(tokens, logprobs, text, finished, found, rewards)

    def _count(self, groups: Sequence[Group]) -> None:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        lengths = [len(r.tokens) for r in rollouts]
        counts: dict[str, float] = {
            "groups": len(groups),
            "no_signal": sum(not group.has_signal for group in groups),
            "responses": len(rollouts),
            "tokens": sum(lengths),
            "shortest": min(lengths, default=0),
            "longest": max(lengths, default=0),
            "truncated": sum(not r.finished for r in rollouts),
            "format_validity": sum(r.score.format_valid for r in rollouts),
            "uniqueness": sum(r.score.uniqueness for r in rollouts),
            "cell_accuracy": sum(r.score.cell_accuracy for r in rollouts),
            "batch_accuracy": sum(r.score.exact for r in rollouts),
        }
        for found in self.gather(counts):
            first = not self.counts
            for name, value in found.items():
                if name == "shortest":
                    self.counts[name] = value if first else min(self.counts[name], value)
                elif name == "longest":
                    self.counts[name] = max(self.counts[name], value)
                else:
                    self.counts[name] += value

    def take_figures(self, seconds: float) -> dict[str, float]:
        """Return fractions and rates since the last call, over so many seconds of steps."""
        n, spent = self.counts, self.seconds
        if not n["responses"]:
            return {}
        found = {
            **{name: n[name] / n["responses"] for name in _MEANS},
            "no_signal": n["no_signal"] / n["groups"],
            "groups_sampled": n["groups"],
            "response_tokens": n["tokens"] / n["responses"],
            "completions/mean_length": n["tokens"] / n["responses"],
            "completions/min_length": n["shortest"],
            "completions/max_length": n["longest"],
            "completions/clipped_ratio": n["truncated"] / n["responses"],
            "tokens_per_second": n["tokens"] / seconds,
            "responses_per_second": n["responses"] / seconds,
            "share_generating": spent["generating"] / seconds,
            "share_rewarding": spent["rewarding"] / seconds,
            "share_training": 1 - (spent["generating"] + spent["rewarding"]) / seconds,
        }
        self.counts, self.seconds = defaultdict(float), defaultdict(float)
        return {name: round(value, 5) for name, value in found.items()}


class _Recorder:
    """Records tokens as they are drawn, until the turn ends or the budget is used up."""

    def __init__(self, budget: int, ends: Sequence[int]) -> None:
        self.budget, self.ends = budget, frozenset(ends)
        self.tokens: list[int] = []
        self.done = False

    def forced(self) -> int | None:
        """Return None: nothing is forced."""
        return None

    def allowed(self) -> list[int] | None:
        """Return None: everything is allowed."""
        return None

    def write(self, token: int, logprob: float | None) -> int:
        """Take a token; see :class:`cello1.solvers.local.generate.Writer`."""
        self.tokens.append(token)
        self.done = token in self.ends or len(self.tokens) >= self.budget
        return token


def sample_tokens(
    language: LanguageModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    *,
    budget: int,
    temperature: float,
) -> list[list[int]]:
    """Sample one response per prompt, from the full distribution.

    Parameters
    ----------
    language
        The model, in evaluation mode.
    prompts, seeds
        Token ids of the prompts, and the seed of each response.
    budget
        Most tokens of a response.
    temperature
        Above 0.

    Returns
    -------
    list
        The tokens, with the end token unless the budget ended the response.
    """
    writers = [_Recorder(budget, language.ends) for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i))
    longest = max(map(len, prompts), default=0) + budget
    fits = language.cache_bytes() // (bytes_per_token(language.model) * longest)
    rows = max(1, min(_MOST_ROWS["cuda" if language.device.startswith("cuda") else "cpu"], fits))
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        generate(
            language.model,
            [prompts[i] for i in batch],
            [writers[i] for i in batch],
            on_done=lambda row, seconds: None,
            pad=language.tokenizer.pad_token_id or 0,
            temperature=temperature,
            seeds=[seeds[i] for i in batch],
        )
    return [writer.tokens for writer in writers]


def as_line(group: Group, rollout: Rollout, step: int) -> dict[str, Any]:
    """Return a response as a line of ``samples.jsonl``."""
    return {
        "step": step,
        "puzzle": group.puzzle.id,
        "cells": len(group.puzzle.cells),
        "answer": group.puzzle.answer,
        "response": rollout.text,
        "rewards": rollout.rewards,
        "finished": rollout.finished,
        "reason": rollout.score.reason,
        "cell_accuracy": rollout.score.cell_accuracy,
    }
