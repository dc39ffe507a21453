"""Where the spellings of candidates part: the choices that decide which one is meant.

Of a label's tokens only those matter at which another candidate could still go on; what is left
no choice is certain. So the probability of a candidate, among those on offer, is the product of
a few choices, each among the tokens that some candidate may go on with.
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
        Beginning of a spelling -> the tokens that may follow, where there is more than one.
    labels
        The tokens of each candidate, its end included.
    """

    choices: dict[tuple[int, ...], list[int]]
    labels: list[tuple[int, ...]]

    def path(self, label: int) -> list[tuple[int, list[int], int]]:
        """Return the choices on the way to a label: how many tokens came before, options, right."""
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
        The token that follows a label, which tells it from one that goes on.
    """
    whole = [(*label, end) for label in labels]
    follow: dict[tuple[int, ...], set[int]] = {}
    for tokens in whole:
        for depth, token in enumerate(tokens):
            follow.setdefault(tokens[:depth], set()).add(token)
    choices = {start: sorted(next_) for start, next_ in follow.items() if len(next_) > 1}
    return Tree(choices, whole)
