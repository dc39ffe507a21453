"""The tokenizer of a small model: byte-level BPE in which a gene, a cell and a type are one token.

Any text can be spelled, byte by byte if need be. What puzzles are made of is short: a gene with
the comma and blank behind it, ``Cell 3``, a cell type, a standing sentence of the prompt, each of
the four tags. A puzzle of 8 cells then has about 500 tokens instead of 2,500.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import system_message, user_message
from cello1.puzzles.puzzle import Puzzle

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A gene keeps its comma and blank, so that it is the same token at any place of any list.
_PIECES = (
    r"(?:system|user|assistant)\n| (?=Cell \d)|Cell \d+|: |[^\s,|:]+, "
    r"| ?\||\n+|\d| ?[^\s,|:\d]+|\s|."
)
_QUESTION = re.compile(r"\n\n(Match the cells[^\n]*:)\n")
_SHORTEST_SENTENCE = 12


def make_tokenizer(puzzles: Sequence[Puzzle], responses: Iterable[str], vocabulary: int) -> Any:
    """Train a tokenizer on puzzles and what is said about them.

    Parameters
    ----------
    puzzles
        Their prompts, and their candidates as tokens of their own.
    responses
        Whole responses, for the words of the reasoning.
    vocabulary
        Number of tokens; byte pieces, tags, types and standing sentences come first, then what
        is most frequent.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With padding on the left and a chat template that marks the assistant's part.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    types = sorted({label for puzzle in puzzles for label in puzzle.candidates})
    standing = [*standing_sentences(puzzles), *types]
    marks = [END_OF_TEXT, START, END, *TAGS]
    whole = [AddedToken(text, normalized=False) for text in standing]
    core.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    core.add_tokens(whole)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(standing),
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"system\n{system_message(p)}user\n{user_message(p)}" for p in puzzles]
    core.train_from_iterator([*texts, "assistant\n", *responses], trainer)
    core.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    core.add_tokens(whole)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START, *TAGS],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def standing_sentences(puzzles: Sequence[Puzzle]) -> list[str]:
    """Return what the prompts of all puzzles say in the same words, between their numbers."""
    counts: Counter[str] = Counter()
    some = puzzles[:: max(1, len(puzzles) // 200)]
    for puzzle in some:
        parts = re.split(r"\d+", system_message(puzzle))
        parts += _QUESTION.findall(user_message(puzzle))
        counts.update({part for part in parts if len(part) >= _SHORTEST_SENTENCE})
    common = [part for part, n in counts.items() if n >= 0.01 * len(some)]
    return sorted(common, key=lambda part: (-len(part), part))
