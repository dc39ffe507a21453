"""Groups of responses to one puzzle: asked for, judged, and replaced where they teach nothing.

Every random choice depends on the seed and the place of the draw alone (step, round, slot), so
that a resumed run makes the same ones.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.reward import Reward, cut_off
from cello1.scoring.score import Score, score
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.curriculum import Course

_ROUNDS = 3  # of fresh puzzles, at most, in place of those without signal

Seeds = list[tuple[int, ...]]
# Prompts and a seed for each -> tokens and, where the engine tells, their log-probabilities.
Generate = Callable[
    [list[list[int]], Seeds], tuple[list[list[int]], list[list[float | None]] | None]
]


@dataclass(frozen=True)
class Rollout:
    """One response and its worth.

    Attributes
    ----------
    tokens
        As sampled, with the token that ends it unless it was cut off.
    logprobs
        Of the tokens, when the engine that sampled them differs from the one that learns.
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
        """Whether any response is worth more than another: else nothing can be learned here."""
        return len({rollout.rewards for rollout in self.rollouts}) > 1


def judge(
    puzzle: Puzzle, text: str, finished: bool, rewards: Sequence[Reward]
) -> tuple[Score, tuple[float, ...]]:
    """Return the score and the rewards of a response; one that was cut off is invalid."""
    worth = score(puzzle, text) if finished else cut_off(puzzle)
    return worth, tuple(float(reward(worth)) for reward in rewards)


class Roller:
    """Asks for groups of responses and judges them.

    Parameters
    ----------
    prompter
        Writes prompts and reads tokens.
    ends
        Tokens at which a response is over.
    pool
        Puzzles to draw fresh ones from.
    rewards
        Applied to every score.
    size
        Responses in a group.
    resample
        Whether groups without signal give their place to fresh ones that have it.
    course
        The curriculum, if there is one.
    seed
        Of every draw.
    generate
        The engine.
    total
        Adds up counts over all processes.
    most
        Returns the largest of a number over all processes, so that they keep step.

    Attributes
    ----------
    seconds
        Spent ``generating`` and ``rewarding``.
    counts
        Of what was sampled since they were last taken, over all processes.
    """

    def __init__(
        self,
        prompter: Prompter,
        ends: Sequence[int],
        pool: Sequence[Puzzle],
        rewards: Sequence[Reward],
        size: int,
        *,
        resample: bool,
        course: Course | None,
        seed: int,
        generate: Generate,
        total: Callable[[dict[str, float]], dict[str, float]],
        most: Callable[[int], int],
    ) -> None:
        self.ends = ends
        self.prompter, self.pool, self.rewards, self.size = prompter, pool, rewards, size
        self.resample, self.course, self.seed = resample, course, seed
        self.generate, self.total, self.most = generate, total, most
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def roll(self, puzzles: Sequence[Puzzle], place: tuple[int, ...], shift: int) -> list[Group]:
        """Return one group per puzzle, or per puzzle that took its place.

        Parameters
        ----------
        puzzles
            This process's share of the batch.
        place
            Where in the training this is: (step, generation within the step).
        shift
            The number of its first puzzle in the whole batch.
        """
        groups = self._ask(puzzles, (*place, 0), shift)
        for number in range(1, _ROUNDS + 1) if self.resample else ():
            bare = [i for i, group in enumerate(groups) if not group.has_signal]
            if not self.most(len(bare)):
                break
            rng = np.random.default_rng([self.seed, *place, number, shift])
            drawn = [self.pool[i] for i in rng.integers(len(self.pool), size=len(puzzles))]
            useful = [g for g in self._ask(drawn, (*place, number), shift) if g.has_signal]
            for i, group in zip(bare, useful, strict=False):
                groups[i] = group
        return groups

    def _ask(self, puzzles: Sequence[Puzzle], place: tuple[int, ...], shift: int) -> list[Group]:
        began = time.perf_counter()
        if self.course is not None:
            dice = [np.random.default_rng([self.seed, *place, shift + i]) for i in
                    range(len(puzzles))]  # fmt: skip
            puzzles = [self.course.cut(p, rng) for p, rng in zip(puzzles, dice, strict=True)]
        asked = [self.prompter.prompt(puzzle) for puzzle in puzzles]
        prompts = [prompt for prompt, _ in asked for _ in range(self.size)]
        seeds: Seeds = [
            (self.seed, *place, shift + i, j) for i in range(len(puzzles)) for j in range(self.size)
        ]
        said, told = self.generate(prompts, seeds)
        generated = time.perf_counter()
        groups = []
        for i, (puzzle, (prompt, opened)) in enumerate(zip(puzzles, asked, strict=True)):
            mine = range(i * self.size, (i + 1) * self.size)
            rollouts = [
                self._judged(puzzle, said[k], None if told is None else told[k], opened)
                for k in mine
            ]
            groups.append(Group(puzzle, prompt, rollouts))
        self.seconds["generating"] += generated - began
        self.seconds["rewarding"] += time.perf_counter() - generated
        self._count(groups)
        return groups

    def _judged(
        self,
        puzzle: Puzzle,
        tokens: list[int],
        logprobs: list[float | None] | None,
        opened: bool,
    ) -> Rollout:
        finished = bool(tokens) and tokens[-1] in self.ends
        # Special tokens are kept: whatever was sampled has to be in the format.
        text = self.prompter.vocabulary.text(tokens[:-1] if finished else tokens)
        text = ("<think>" if opened else "") + text
        worth, rewards = judge(puzzle, text, finished, self.rewards)
        return Rollout(tokens, logprobs, text, finished, worth, rewards)

    def _count(self, groups: Sequence[Group]) -> None:
        said = [rollout for group in groups for rollout in group.rollouts]
        size = self.course.cells if self.course is not None else 0
        at_size = [r for g in groups if len(g.puzzle.cells) == size for r in g.rollouts]
        found = self.total(
            {
                "groups": len(groups),
                "no_signal": sum(not group.has_signal for group in groups),
                "responses": len(said),
                "tokens": sum(len(r.tokens) for r in said),
                "truncated": sum(not r.finished for r in said),
                "format_validity": sum(r.score.format_valid for r in said),
                "uniqueness": sum(r.score.uniqueness for r in said),
                "cell_accuracy": sum(r.score.cell_accuracy for r in said),
                "batch_accuracy": sum(r.score.exact for r in said),
                "at_size": len(at_size),
                "at_size_right": sum(r.score.exact for r in at_size),
            }
        )
        for name, value in found.items():
            self.counts[name] += value
        if self.course is not None:
            self.course.learn(round(found["at_size_right"]), round(found["at_size"]))

    def take_figures(self, seconds: float) -> dict[str, float]:
        """Return shares and rates since the last time, which took so many seconds of steps."""
        n, spent = self.counts, self.seconds
        if not n["responses"]:
            return {}
        means = ("truncated", "format_validity", "uniqueness", "cell_accuracy", "batch_accuracy")
        found = {
            **{name: n[name] / n["responses"] for name in means},
            "no_signal": n["no_signal"] / n["groups"],
            "groups_sampled": n["groups"],
            "response_tokens": n["tokens"] / n["responses"],
            "tokens_per_second": n["tokens"] / seconds,
            "responses_per_second": n["responses"] / seconds,
            "share_generating": spent["generating"] / seconds,
            "share_rewarding": spent["rewarding"] / seconds,
            "share_training": 1 - (spent["generating"] + spent["rewarding"]) / seconds,
        }
        if self.course is not None:
            found |= {"cells": self.course.cells, "pass_rate": self.course.pass_rate}
        self.counts, self.seconds = defaultdict(float), defaultdict(float)
        return {name: round(value, 5) for name, value in found.items()}
