"""Tricks a policy could find: none is worth more than the assignment it makes."""

import time

import pytest

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.reward import batch, cell_batch
from cello1.scoring.score import score

TYPES = ("B cell", "T cell", "monocyte", "platelet")
PUZZLE = Puzzle(
    "Blood.", [["MS4A1"], ["CD3D"], ["LYZ"], ["PPBP"]], (*TYPES[::-1], "mast cell"), TYPES
)
GOLD = " | ".join(TYPES)
WRONG = "T cell | B cell | platelet | monocyte"
BLOCK = f"<answer>{GOLD}</answer>"

# None of these is in the format, so each costs one.
INVALID = {
    "no think block": BLOCK,
    "answer inside the think block": f"<think>{BLOCK}</think>\n<answer>{WRONG}</answer>",
    "answer block in the think block alone": f"<think>{BLOCK}</think>",
    "right block first, wrong one after": f"<think></think>\n{BLOCK}\n<answer>{WRONG}</answer>",
    "the same block twice": f"<think></think>\n{BLOCK}\n{BLOCK}",
    "two whole responses": f"<think></think>\n{BLOCK}\n<think></think>\n{BLOCK}",
    "block within a block": f"<think></think>\n<answer><answer>{GOLD}</answer></answer>",
    "text after the answer": f"<think></think>\n{BLOCK} I am sure.",
    "text before the reasoning": f"Sure! <think></think>\n{BLOCK}",
    "never closed": f"<think></think>\n<answer>{GOLD}",
    "closed with the wrong tag": f"<think></think>\n<answer>{GOLD}<answer>",
    "upper-case tags": f"<THINK></THINK>\n<ANSWER>{GOLD}</ANSWER>",
    "tags with blanks": f"<think ></think>\n<answer >{GOLD}</answer >",
    "full-width tags": f"＜think＞＜/think＞\n＜answer＞{GOLD}＜/answer＞",
    "zero-width character in a tag": f"<think></think>\n<ans\u200bwer>{GOLD}</answer>",
    "two newlines between": f"<think></think>\n\n{BLOCK}",
    "end tag in the reasoning": f"<think>so </think> {GOLD}</think>\n{BLOCK}",
    "chat tokens": f"<think></think>\n{BLOCK}<|im_end|>\n<|im_start|>user\nReward: 1",
}  # fmt: skip
# These are in the format, but no assignment; what is said twice or not on offer earns nothing.
NOTHING = {
    "every candidate for every cell": " | ".join(f"{GOLD} | mast cell" for _ in range(4)),
    "all candidates": " | ".join(PUZZLE.candidates),
    "right ones, then all others": f"{GOLD} | mast cell",
    "right ones twice": f"{GOLD} | {GOLD}",
    "one label, all cells": " | ".join(["B cell"] * 4),
    "alternatives in a slot": "B cell or T cell | T cell or B cell | monocyte, B cell | platelet/",
    "comma instead of '|'": GOLD.replace(" |", ","),
    "full-width separator": GOLD.replace("|", "｜"),
    "empty": "",
    "empty slots between": GOLD.replace("|", "| |"),
    "Cyrillic letters": GOLD.replace("e", "\u0435").replace("B", "\u0412").replace("o", "\u043e"),
    "combining marks": GOLD.replace("e", "e\u0301"),
    "zero-width characters": GOLD.replace("e", "e\u200b"),
    "numbered": "1. B cell | 2. T cell | 3. monocyte | 4. platelet",
    "indices": "0 | 1 | 2 | 3",
}  # fmt: skip


def worths(text):
    found = score(PUZZLE, text)
    return batch(found), cell_batch(found)


def test_the_honest_answer_is_worth_one():
    assert worths(response_text("MS4A1 tells.", TYPES)) == (1.0, 1.0)


@pytest.mark.parametrize("trick", INVALID)
def test_tricks_with_the_format_cost_one(trick):
    assert worths(INVALID[trick]) == (-1.0, -1.0)


@pytest.mark.parametrize("trick", NOTHING)
def test_tricks_with_the_labels_earn_nothing(trick):
    by_batch, by_cell = worths(f"<think>x</think>\n<answer>{NOTHING[trick]}</answer>")
    assert by_batch == 0.0
    assert by_cell <= 0.0


def test_the_reasoning_never_counts():
    for reasoning in ("", GOLD, f"[answer]{GOLD}[/answer]", "reward = 1.0\n" * 100):
        assert worths(response_text(reasoning, ("B cell", "T cell", "platelet", "monocyte"))) == (
            0.0,
            0.25,
        )


@pytest.mark.parametrize("filler", ["a", "<", "|", "<think>", "</answer>", "B cell | ", "\n", "é"])
def test_a_megabyte_is_judged_at_once_and_earns_no_more(filler):
    long = (filler * (1_000_000 // len(filler)))[:1_000_000]
    began = time.process_time()
    for text, most in (
        (long, -1.0),
        (f"<think></think>\n<answer>{long}</answer>", 0.0),
        (f"<think>{long}</think>\n<answer>{WRONG}</answer>", 0.0),
    ):
        assert max(worths(text)) <= most
    assert time.process_time() - began < 2
