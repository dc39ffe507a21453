"""Where the spellings of candidates diverge: the choices that decide which one is meant.

Only those tokens of a label matter at which another candidate could still continue; the others are
certain. So the probability of a candidate, among those on offer, is the product of a few choices,
each among the tokens with which some candidate may continue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """Spellings of candidates, as the choices between them.

    Attributes
    ----------
    choices
        Prefix of a spelling -> the tokens that may follow, where there is more than one.
    labels
        The tokens of each candidate, its end included.
    """

    choices: dict[tuple[int, ...], list[int]]
    labels: list[tuple[int, ...]]

    def path(self, label: int) -> list[tuple[int, list[int], int]]:
        """Return the choices on the way to a label: (tokens before, options, right one)."""
        tokens = self.labels[label]
        found = []
        for depth in range(len(tokens)):
            options = self.choices.get(tokens[:depth])
            if options is not None:
                found.append((depth, options, options.index(tokens[depth])))
        return found


def spelling_tree(labels: Sequence[Sequence[int]], end: int) -> Tree:
    """Find the choices between labels.

    Parameters
    ----------
    labels
        Tokens of each candidate, all different.
    end
        The token that follows a label and distinguishes it from a longer one.
    """
    whole = [(*label, end) for label in labels]
    follow: dict[tuple[int, ...], set[int]] = {}
    for tokens in whole:
        for depth, token in enumerate(tokens):
            follow.setdefault(tokens[:depth], set()).add(token)
    choices = {start: sorted(next_) for start, next_ in follow.items() if len(next_) > 1}
    return Tree(choices, whole)
