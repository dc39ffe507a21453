"""Responses that PPO learns from: sampled token by token, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import PpoSettings
from cello1.scoring.score import Score, score
from cello1.solvers.base import Failure, Response
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.writers import FreeWriter


def batch_of(puzzles: Sequence[Puzzle], step: int, settings: PpoSettings) -> list[Puzzle]:
    """Return the puzzles of one step; they depend on the seed and the step alone."""
    size = min(settings.batch, len(puzzles))
    epoch, place = divmod(step, len(puzzles) // size)
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(puzzles))
    return [puzzles[i] for i in order[place * size : (place + 1) * size]]


@dataclass(frozen=True)
class Sample:
    """A response with every token that was chosen for it, the one that ended it included."""

    puzzle: Puzzle
    prompt: list[int]
    tokens: list[int]
    response: Response
    score: Score


class _Recorder(FreeWriter):
    """Remembers the choices. A response ends where it does at inference: with its answer block."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.chosen: list[int] = []

    def write(self, token: int, logprob: float | None) -> int:
        self.chosen.append(token)
        return super().write(token, logprob)


class _Sampler(LanguageSolver):
    """Samples at temperature 1 from all tokens, with other dice at every step."""

    def __init__(self, language: LanguageModel, settings: PpoSettings, step: int) -> None:
        super().__init__(
            language,
            temperature=1.0,
            seed=settings.seed,
            sample=step,
            max_new_tokens=settings.max_response,
        )
        self.writers: dict[str, _Recorder] = {}

    def _writer(self, puzzle: Puzzle, budget: int, opened: bool) -> FreeWriter:
        language = self.language
        writer = _Recorder(language.vocabulary, budget, language.ends, opened=opened)
        self.writers[puzzle.id] = writer
        return writer


def sample(
    language: LanguageModel, puzzles: Sequence[Puzzle], settings: PpoSettings, step: int
) -> list[Sample]:
    """Let a model answer puzzles once each, and score what it says.

    A response that was cut off has no closed answer block and so is invalid.

    Raises
    ------
    InputError
        When not one could be answered.
    """
    found: dict[str, Response | Failure] = {}
    sampler = _Sampler(language, settings, step)
    sampler.solve(puzzles, found.__setitem__)
    samples = []
    for puzzle in puzzles:
        response = found[puzzle.id]
        if isinstance(response, Response):
            prompt, _ = language.prompt(puzzle)
            tokens = sampler.writers[puzzle.id].chosen
            scored = score(puzzle, response.text)
            samples.append(Sample(puzzle, prompt, tokens, response, scored))
    if not samples:
        failure = next(iter(found.values()))
        raise InputError(f"no puzzle could be answered: {getattr(failure, 'reason', '')}")
    return samples


def figures_of(samples: Sequence[Sample], rewards: Sequence[float]) -> dict[str, float]:
    """Return what to log of a batch of responses, under the names of TRL where it has them."""
    lengths = [len(sample.tokens) for sample in samples]
    scores = [sample.score for sample in samples]
    cut = [sample.response.finish_reason == "length" for sample in samples]
    return {
        "reward": float(np.mean(rewards)),
        "reward_std": float(np.std(rewards)),
        "completions/mean_length": float(np.mean(lengths)),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": float(np.mean(cut)),
        "format_validity": float(np.mean([s.format_valid for s in scores])),
        "uniqueness": float(np.mean([s.uniqueness for s in scores])),
        "cell_accuracy": float(np.mean([s.cell_accuracy for s in scores])),
        "batch_accuracy": float(np.mean([s.exact for s in scores])),
    }
