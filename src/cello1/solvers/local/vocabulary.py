"""What the tokens of a tokenizer spell, and which of them can spell a given text.

Answers that are valid by construction are spelled byte by byte: several tokens may begin a label,
and each leads to a different position in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from cello1.errors import InputError, brief
from cello1.puzzles.answer import TAGS


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
        plain = [token_id for token_id in range(len(tokenizer)) if token_id not in added]
        spellings = dict(zip(plain, self._spell(plain), strict=True))
        for token_id, token in added.items():
            # Tags may be tokens of their own; other special tokens spell nothing.
            text = str(token.content)
            spellings[token_id] = text.encode() if text in TAGS or token_id not in special else b""
        for token_id in range(len(tokenizer)):
            if spelled := spellings.get(token_id):
                self.by_bytes.setdefault(spelled, []).append(token_id)
        self.longest = max(map(len, self.by_bytes), default=0)
        self.closing = {i for s, ids in self.by_bytes.items() if b">" in s for i in ids}

    def _spell(self, token_ids: list[int]) -> list[bytes]:
        """Return what regular (not added) tokens spell, all at once, since there are many."""
        pieces = self.tokenizer.convert_ids_to_tokens(token_ids)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None and "ByteLevel" in str(backend.decoder):
            table = _byte_of_character()
            return [
                bytes(map(table.__getitem__, piece)) if piece and table.keys() >= {*piece} else b""
                for piece in pieces
            ]
        # After another token: decoders drop the blank at the beginning of a text.
        anchor = self.tokenizer.encode(".", add_special_tokens=False)[-1:]
        before, pairs = self.text(anchor), [[*anchor, token_id] for token_id in token_ids]
        if backend is None or getattr(self.tokenizer, "clean_up_tokenization_spaces", False):
            texts = [self.text(pair) for pair in pairs]
        else:
            texts = backend.decode_batch(pairs, skip_special_tokens=False)
        found = []
        for piece, text in zip(pieces, texts, strict=True):
            if piece is None:
                found.append(b"")
            elif len(piece) == 6 and piece.startswith("<0x"):
                found.append(bytes([int(piece[3:5], 16)]))
            else:
                found.append(text[len(before) :].encode() if text.startswith(before) else b"")
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """Decode tokens exactly, special ones included."""
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def encode(self, text: str) -> list[int]:
        """Tokenize a piece of text without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def paths(self, text: str) -> list[dict[int, int]]:
        """Return, for every byte of a text, the tokens that may be written there.

        Each maps to the position it leads to. Tokens from which the end cannot be reached are left
        out, so every path leads to the end.

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
