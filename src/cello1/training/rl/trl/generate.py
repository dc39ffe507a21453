"""Sample responses with the weights that learn, in batches, by this project's own decoding."""

from __future__ import annotations

from collections.abc import Sequence

from cello1.solvers.local.generate import bytes_per_token, generate
from cello1.solvers.local.language import LanguageModel

_MOST_ROWS = 128


class _Sampled:
    """Takes every token as it is drawn, until one that ends the text or the budget."""

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


def sample(
    language: LanguageModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    *,
    budget: int,
    temperature: float,
) -> list[list[int]]:
    """Sample one response per prompt, from the whole distribution.

    Unlike a solver, this does not stop at ``</answer>``: a model has to learn to end by itself.

    Parameters
    ----------
    language
        The model, in evaluation mode.
    prompts, seeds
        Token ids, and what the dice of each response start from.
    budget
        Most tokens of a response.
    temperature
        Above 0.

    Returns
    -------
    list
        The tokens, with the one that ended the text unless the budget did.
    """
    writers = [_Sampled(budget, language.ends) for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i))
    longest = max(map(len, prompts), default=0) + budget
    fits = language.cache_bytes() // (bytes_per_token(language.model) * longest)
    rows = max(1, min(_MOST_ROWS, fits))
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
