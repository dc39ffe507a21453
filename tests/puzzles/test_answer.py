from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cello1.puzzles.answer import TAGS, Answer, Malformed, parse_response


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<think>x</think>\n<answer>A | B | C</answer>", ("A", "B", "C")),
        ("<think>x</think>\n<answer>A|B|C</answer>", ("A", "B", "C")),
        ("<think>x</think>\n<answer>\nA | B\n</answer>", ("A", "B")),
        ("<think>x</think>\n<answer>A |\n B</answer>", ("A", "B")),
        ("<think>x | y</think>\n<answer>A</answer>", ("A",)),
        ("<think></think>\n<answer>A | B</answer>", ("A", "B")),
        ("<think>x</think>\n<answer></answer>", ("",)),
        ("<think>x</think>\n<answer>A | | C |</answer>", ("A", "", "C", "")),
        ("\n <think>x</think>\n<answer>A</answer>  \n", ("A",)),
        ("<think>1 < 2 > 0 <b>\n\nx</think>\n<answer>A < B</answer>", ("A < B",)),
    ],
)
def test_the_exact_format_gives_the_labels_by_position(text, labels):
    response = parse_response(text)
    assert isinstance(response, Answer)
    assert response.labels == labels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "<think> appears 0 times"),
        ("A | B", "<think> appears 0 times"),
        ("<answer>A</answer>", "<think> appears 0 times"),
        ("<think>x</think>\n", "<answer> appears 0 times"),
        ("<think>x\n<answer>A</answer>", "</think> appears 0 times"),
        ("<think>x</think>\n<answer>A", "</answer> appears 0 times"),
        ("<think>x<think></think>\n<answer>A</answer>", "<think> appears 2 times"),
        ("<think>x</think></think>\n<answer>A</answer>", "</think> appears 2 times"),
        ("<think>x</think>\n<answer>A</answer>\n<answer>A</answer>", "<answer> appears 2 times"),
        ("<think><answer>A</answer></think>\n<answer>A</answer>", "<answer> appears 2 times"),
        ("<answer>A</answer>\n<think>x</think>", "text before <think>"),
        ("Sure! <think>x</think>\n<answer>A</answer>", "text before <think>"),
        ("<think>x</think>\n<answer>A</answer> Done.", "text after </answer>"),
        ("<think>x</think><answer>A</answer>", "exactly one newline"),
        ("<think>x</think>\n\n<answer>A</answer>", "exactly one newline"),
        ("<think>x</think> \n<answer>A</answer>", "exactly one newline"),
        ("<think>x</think>\n <answer>A</answer>", "exactly one newline"),
        ("<think>x</think>\r\n<answer>A</answer>", "exactly one newline"),
        ("<think>x</think>\nhm\n<answer>A</answer>", "exactly one newline"),
        ("<think>x<answer></think>\nA</answer>", "exactly one newline"),
        ("<THINK>x</THINK>\n<ANSWER>A</ANSWER>", "<think> appears 0 times"),
    ],
)
def test_any_other_format_is_malformed_and_the_broken_rule_named(text, reason):
    response = parse_response(text)
    assert isinstance(response, Malformed)
    assert reason in response.reason


def test_the_reasoning_is_kept_as_it_was():
    response = parse_response("<think>\n a | b \r\n</think>\n<answer>A</answer>")
    assert response == Answer(("A",), "\n a | b \r\n")


def read_slowly(text: str) -> tuple[str, list[str]] | None:
    """Walk the response from left to right; an independent statement of the rule."""
    rest = text.strip()
    blocks = []
    for before, opening, closing in (("", "<think>", "</think>"), ("\n", "<answer>", "</answer>")):
        if not rest.startswith(before + opening):
            return None
        block, end, rest = rest[len(before + opening) :].partition(closing)
        if not end or any(tag in block for tag in TAGS):
            return None
        blocks.append(block)
    return None if rest else (blocks[0], [slot.strip() for slot in blocks[1].split("|")])


pieces = st.sampled_from([*TAGS, "\n", "\r\n", " ", "|", "A", "B cell", "<", ">", "/answer>"])
shuffled = st.lists(pieces, max_size=12).map("".join)
inner = st.lists(pieces.filter(lambda piece: piece not in TAGS), max_size=4).map("".join)
framed = st.tuples(inner, inner).map("<think>{0[0]}</think>\n<answer>{0[1]}</answer>".format)
spoilt = st.tuples(framed, st.integers(0, 80), shuffled).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
)


@given(st.text() | shuffled | framed | spoilt)
def test_any_text_is_read_as_a_slow_reader_reads_it(text):
    response, expected = parse_response(text), read_slowly(text)
    if expected is None:
        assert isinstance(response, Malformed)
        assert response.reason
    else:
        assert response == Answer(tuple(expected[1]), expected[0])
