"""The tokenizer of a small model: byte-level, with one token for a gene, a cell or a known type.

Any text can be encoded, byte by byte if necessary. The parts of puzzles are single tokens: a gene
with the comma and blank after it, ``Cell 3``, a fixed sentence of the prompt, each of the four
tags, the label of a known type. Names of other types are spelled in words of the Cell Ontology. A
puzzle of 8 cells then has about 500 tokens instead of 2,500.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cello1.puzzles.answer import TAGS
from cello1.puzzles.prompt import PIECES, system_message, user_message
from cello1.puzzles.puzzle import Puzzle
from cello1.training.teacher.wording import AMONG_OTHERS, EACH_ONCE

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
_QUESTION = re.compile(r"\n\n(Match the cells[^\n]*:)\n")
_SHORTEST_SENTENCE = 12
MOST_CELLS = 32


def make_tokenizer(
    genes: Sequence[str], types: Sequence[str], words: Iterable[str], vocabulary: int
) -> Any:
    """Make a tokenizer.

    Parameters
    ----------
    genes
        Symbols that become one token each, comma and blank included.
    types
        Labels that become one token each.
    words
        Texts, mainly names of types, whose frequent words become tokens.
    vocabulary
        Number of tokens for words and bytes; genes, types and fixed sentences are added.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With padding on the left and a chat template that marks the assistant's part.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = [END_OF_TEXT, START, END]
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=marks,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbered = [f"Cell {i}" for i in range(1, MOST_CELLS + 1)] * 50
    learned.train_from_iterator([*words, *numbered], trainer)
    model = json.loads(learned.to_str())["model"]
    table: dict[str, int] = model["vocab"]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in [*numbered[:MOST_CELLS], *(f"{gene}, " for gene in genes)]:
        # A piece in the vocabulary becomes one token, whatever the merges are.
        table.setdefault(level.pre_tokenize_str(text)[0][0], len(table))
    merges = [tuple(pair) for pair in model["merges"]]
    core = Tokenizer(models.BPE(vocab=table, merges=merges, ignore_merges=True))
    core.pre_tokenizer = split
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    # Not special: text decoded without special tokens keeps the format.
    core.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    core.add_tokens([AddedToken(text, normalized=False) for text in standing_sentences()])
    core.add_tokens(
        [AddedToken(label, normalized=False, single_word=True) for label in sorted(types)]
    )
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def standing_sentences() -> list[str]:
    """Return the fixed sentences of all prompts and responses, split at their numbers."""
    two = (("A",), ("B",))
    shown = [Puzzle("x", two, ("a", "b")), Puzzle("x", two, ("a", "b", "c"))]
    parts = [part for p in shown for part in re.split(r"\d+", system_message(p))]
    parts += [sentence for p in shown for sentence in _QUESTION.findall(user_message(p))]
    parts += [EACH_ONCE, AMONG_OTHERS]
    said = {part for part in parts if len(part) >= _SHORTEST_SENTENCE}
    return sorted(said, key=lambda part: (-len(part), part))
