"""Which token may come next: any until the answer is closed, or valid by construction.

A `GuidedWriter` lets the model reason freely and then opens the answer block, in which only labels
not used yet can be spelled. The response is in the exact format with every type at most once, for
any model: the labels are known, not read back from its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import response_text
from cello1.solvers.local.vocabulary import Vocabulary

_CLOSE = "</answer>"
_OPEN = "</think>\n<answer>"
_TAIL = 16  # tokens enough for a tag, even spelled byte by byte


class FreeWriter:
    """Writes the tokens of the model until ``</answer>``, an end token, or the budget.

    Parameters
    ----------
    vocabulary
        Vocabulary of the model.
    budget
        Maximum tokens to write.
    ends
        Ids of the tokens that end a text.
    opened
        Whether the prompt ends in ``<think>`` already.
    """

    def __init__(
        self, vocabulary: Vocabulary, budget: int, ends: Sequence[int], *, opened: bool = False
    ) -> None:
        self.vocabulary, self.budget, self.ends, self.opened = vocabulary, budget, ends, opened
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.done = False
        self.finish_reason = "stop"

    def forced(self) -> int | None:
        """Return None: nothing is forced."""
        return None

    def allowed(self) -> list[int] | None:
        """Return None: everything is allowed."""
        return None

    def write(self, token: int, logprob: float | None) -> int:
        """Take a token; see :class:`cello1.solvers.local.generate.Writer`."""
        if logprob is not None:
            self.logprobs.append(logprob)
        if token in self.ends:
            self.done = True
            return token
        self.tokens.append(token)
        closed = token in self.vocabulary.closing and _CLOSE in self.tail()
        if closed or len(self.tokens) >= self.budget:
            self.done = True
            self.finish_reason = "stop" if closed else "length"
        return token

    def tail(self) -> str:
        """Return the text of the last tokens."""
        return self.vocabulary.text(self.tokens[-_TAIL:])

    def text(self) -> str:
        """Return the response."""
        return ("<think>" if self.opened else "") + self.vocabulary.text(self.tokens)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


class GuidedWriter(FreeWriter):
    """Lets the model think, then spells one unused candidate per cell.

    Parameters
    ----------
    vocabulary, budget, ends, opened
        As for :class:`FreeWriter`; the budget keeps room for the longest possible answer.
    candidates
        The labels on offer.
    n_cells
        Number of labels to write.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        budget: int,
        ends: Sequence[int],
        candidates: Sequence[str],
        n_cells: int,
        *,
        opened: bool = False,
    ) -> None:
        super().__init__(vocabulary, budget, ends, opened=opened)
        self.left = list(candidates)
        self.labels: list[str] = []
        self.n_cells = n_cells
        self.queue: list[int] = [] if opened else vocabulary.encode("<think>")
        self.head = len(self.queue)  # tokens before the reasoning
        self.thought: str | None = None
        self.alive: dict[str, list[dict[int, int]]] = {}
        self.place = 0
        check_spelling(vocabulary, candidates)
        reserve = sorted((len(vocabulary.encode(f" {c} |")) for c in candidates), reverse=True)
        self.thinking = max(0, budget - 2 * sum(reserve[:n_cells]) - len(vocabulary.encode(_OPEN)))

    def forced(self) -> int | None:
        """Return the next token of a tag to be written."""
        return self.queue[0] if self.queue else None

    def allowed(self) -> list[int] | None:
        """Return the tokens that continue one of the remaining labels."""
        if not self.alive:
            return None
        return sorted({token for path in self.alive.values() for token in path[self.place]})

    def write(self, token: int, logprob: float | None) -> int:
        """Take a token; one that ends the reasoning may be replaced."""
        if logprob is not None:
            self.logprobs.append(logprob)
        if self.queue:
            self.queue.pop(0)
            self.tokens.append(token)
            if not self.queue and self.thought is not None:
                self._open_slot()
            return token
        if self.alive:
            self.tokens.append(token)
            self._spell(token)
            return token
        return self._think(token)

    def _think(self, token: int) -> int:
        """Take a token of the reasoning or, where that ends, the first token of what follows."""
        closes = False
        if token not in self.ends and len(self.tokens) - self.head < self.thinking:
            self.tokens.append(token)
            tail = self.tail() if token in self.vocabulary.closing else ""
            closes = "</think>" in tail
            if not closes and "<answer>" not in tail:
                return token
            self.tokens.pop()
        said = self.vocabulary.text(self.tokens[self.head :])
        # Of a closing tag in several tokens, only the rest has to follow.
        half = max((n for n in range(8) if closes and said.endswith("</think>"[:n])), default=0)
        self.thought = said[: len(said) - half].split("<answer")[0]
        self.queue = self.vocabulary.encode(_OPEN[half:])
        return self.write(self.queue[0], None)

    def _open_slot(self) -> None:
        """Begin to spell the label of the next cell."""
        lead = " " if self.labels else ""
        tail = " |" if len(self.labels) + 1 < self.n_cells else _CLOSE
        self.alive = {c: self.vocabulary.paths(f"{lead}{c}{tail}") for c in self.left}
        self.place = 0

    def _spell(self, token: int) -> None:
        """Keep the labels that this token continues."""
        self.alive = {c: path for c, path in self.alive.items() if token in path[self.place]}
        label, path = next(iter(self.alive.items()))
        self.place = path[self.place][token]
        if self.place == len(path):
            # No label holds a '|' or a tag, so a full spelling belongs to one label alone.
            self.left.remove(label)
            self.labels.append(label)
            self.alive = {}
            if len(self.labels) < self.n_cells:
                self._open_slot()
            else:
                self.done = True

    def text(self) -> str:
        """Return the response in the exact format; tags inside the reasoning are dropped."""
        return response_text(clean_thought(self.thought or ""), tuple(self.labels))


def clean_thought(thought: str) -> str:
    """Drop tags inside a reasoning, including those that form when others are dropped."""
    while any(tag in thought for tag in TAGS):
        for tag in TAGS:
            thought = thought.replace(tag, "")
    return thought


def check_spelling(vocabulary: Vocabulary, candidates: Sequence[str]) -> None:
    """Check that every label can be spelled at any position of an answer.

    Raises
    ------
    InputError
        When the tokenizer cannot express one.
    """
    for label in candidates:
        for lead in ("", " "):
            for tail in (" |", _CLOSE):
                vocabulary.paths(f"{lead}{label}{tail}")
