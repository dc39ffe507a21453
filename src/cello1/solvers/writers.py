"""What may be written next: freely until the answer is closed, or valid by construction.

A `GuidedWriter` lets the model reason as it likes and then opens the answer block, in which only
labels not used yet can be spelled. The response is in the exact format with every type at most
once, whatever the model: the labels are known, not read back from its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from cello1.errors import InputError, brief
from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import response_text

_CLOSE = "</answer>"
_OPEN = "</think>\n<answer>"
_TAIL = 16  # tokens that are sure to hold a tag, even spelled byte by byte


@cache
def _byte_of_character() -> dict[str, int]:
    """Return the inverse of the GPT-2 table by which byte-level tokenizers print bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


class Vocabulary:
    """What each token of a tokenizer spells, in bytes.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of `transformers`: byte-level or SentencePiece-like BPE, or any whose
        `decode` puts tokens side by side.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.by_bytes: dict[bytes, list[int]] = {}
        self._paths: dict[bytes, list[dict[int, int]]] = {}
        special = set(tokenizer.all_special_ids)
        added = tokenizer.added_tokens_decoder
        backend = getattr(tokenizer, "backend_tokenizer", None) is not None
        byte_level = backend and "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
        for token_id in range(len(tokenizer)):
            if token_id in added:
                # Tags may be tokens of their own; other special tokens spell nothing.
                text = str(added[token_id].content)
                spelled = text.encode() if text in TAGS or token_id not in special else b""
            else:
                spelled = self._spell(token_id, byte_level)
            if spelled:
                self.by_bytes.setdefault(spelled, []).append(token_id)
        self.longest = max(map(len, self.by_bytes), default=0)
        self.closing = {i for s, ids in self.by_bytes.items() if b">" in s for i in ids}

    def _spell(self, token_id: int, byte_level: bool) -> bytes:
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if byte_level:
            table = _byte_of_character()
            return bytes(table[c] for c in piece) if all(c in table for c in piece) else b""
        if len(piece) == 6 and piece.startswith("<0x"):
            return bytes([int(piece[3:5], 16)])
        anchor = self.tokenizer.encode(".", add_special_tokens=False)[-1:]
        before, both = self.text(anchor), self.text([*anchor, token_id])
        return both[len(before) :].encode() if both.startswith(before) else b""

    def text(self, tokens: Sequence[int]) -> str:
        """Decode tokens exactly, special ones included."""
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def encode(self, text: str) -> list[int]:
        """Tokenize a piece of text as it stands."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def paths(self, text: str) -> list[dict[int, int]]:
        """Return for every byte of a text the tokens that may be written there.

        Each maps to the place it leads to. Tokens from which the end cannot be reached are left
        out, so whoever follows the paths gets there.

        Raises
        ------
        InputError
            When the tokenizer cannot spell the text.
        """
        data = text.encode()
        if data not in self._paths:
            steps: list[dict[int, int]] = [{} for _ in data]
            reaches = [False] * len(data) + [True]
            for at in range(len(data) - 1, -1, -1):
                for end in range(at + 1, min(len(data), at + self.longest) + 1):
                    if reaches[end]:
                        for token in self.by_bytes.get(data[at:end], ()):
                            steps[at][token] = end
                reaches[at] = bool(steps[at])
            if not reaches[0]:
                raise InputError(
                    f"the model's tokenizer cannot spell {brief(text)}; use another model, or "
                    "rename the type"
                )
            self._paths[data] = steps
        return self._paths[data]


class FreeWriter:
    """Writes what the model says until ``</answer>``, an end token, or the budget.

    Parameters
    ----------
    vocabulary
        Of the model.
    budget
        Most tokens to write.
    ends
        Ids that end a text.
    opened
        The prompt ends in ``<think>`` already, so the response starts behind it.
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
        """Take a token; see :class:`cello1.solvers.generate.Writer`."""
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
        """How likely the model found what it wrote, per token."""
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
        How many are to be written.
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
        """Return the next token of a tag that must be written."""
        return self.queue[0] if self.queue else None

    def allowed(self) -> list[int] | None:
        """Return the tokens that spell on one of the labels left."""
        if not self.alive:
            return None
        return sorted({token for path in self.alive.values() for token in path[self.place]})

    def write(self, token: int, logprob: float | None) -> int:
        """Take a token; one that ends the thinking may be replaced by what must come."""
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
        """Take a token of the reasoning, or, where that ends, put what must follow in its place."""
        closes = False
        if token not in self.ends and len(self.tokens) - self.head < self.thinking:
            self.tokens.append(token)
            tail = self.tail() if token in self.vocabulary.closing else ""
            closes = "</think>" in tail
            if not closes and "<answer>" not in tail:
                return token
            self.tokens.pop()
        said = self.vocabulary.text(self.tokens[self.head :])
        # A closing tag in several tokens is half said; only its rest has to follow.
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
        """Follow the labels that this token goes on spelling."""
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
    """Drop tags inside a reasoning, and those that dropping them puts together."""
    while any(tag in thought for tag in TAGS):
        for tag in TAGS:
            thought = thought.replace(tag, "")
    return thought


def check_spelling(vocabulary: Vocabulary, candidates: Sequence[str]) -> None:
    """Make sure that every label can be spelled at any place of an answer.

    Raises
    ------
    InputError
        When the tokenizer cannot express one.
    """
    for label in candidates:
        for lead in ("", " "):
            for tail in (" |", _CLOSE):
                vocabulary.paths(f"{lead}{label}{tail}")
