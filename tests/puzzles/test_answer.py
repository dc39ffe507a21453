from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cello1.puzzles.answer import (
    TAGS,
    Answer,
    Fault,
    Malformed,
    Repair,
    Tolerated,
    parse_response,
    parse_tolerantly,
)
from cello1.puzzles.puzzle import Puzzle


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


CD4 = "CD4-positive, alpha-beta T cell"
TYPES = (CD4, "B cell", "NK cell", "T cell", "T cell of lung")
ASKED = Puzzle("x", [("A",), ("B",), ("C",)], TYPES, answer=(CD4, "B cell", "NK cell"))
RIGHT = f"{CD4} | B cell | NK cell"


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        (f"<think>x</think>\n<answer>{RIGHT}</answer>", set()),
        (f"Genes.\n</think>\n\n<answer>{RIGHT}</answer>", {Repair.TAGS}),
        (f"<answer>{RIGHT}</answer>", {Repair.TAGS}),
        (f"<Think>x</Think>\n<ANSWER>{RIGHT}</ANSWER>", {Repair.TAGS}),
        (f"<think>x\n<answer>{RIGHT}</answer>", {Repair.TAGS}),
        (f"<think>x</think>\n<answer>{RIGHT}", {Repair.TAGS}),
        (f"<think>x</think>\n\n<answer>{RIGHT}</answer>", {Repair.OUTSIDE}),
        (f"<think>x</think>\r\n<answer>{RIGHT}</answer>", {Repair.OUTSIDE}),
        (f"<think>x</think>\n<answer>{RIGHT}</answer>\nI hope this helps!", {Repair.OUTSIDE}),
        (f"<think>x</think>\n<answer>{RIGHT}</answer><|im_end|>", {Repair.END_TOKEN}),
        (f"<think>x</think>\n<answer>{RIGHT}</answer> </s>", {Repair.END_TOKEN}),
        (f"<think>x</think>\n<answer>{RIGHT} |</answer>", {Repair.BARS}),
        (f"<think>x</think>\n<answer>| {RIGHT} |</answer>", {Repair.BARS}),
        (f"<think>x</think>\n<answer>{RIGHT.replace('|', chr(0xff5c))}</answer>", {Repair.BARS}),
        (f"<think>x</think>\n<answer>{RIGHT.replace('-', chr(0x2011))}</answer>",
         {Repair.CHARACTERS}),
        (f"<think>x</think>\n<answer>{RIGHT.replace('alpha-beta', chr(0x3b1) + '-' + chr(0x3b2))}"
         "</answer>", {Repair.CHARACTERS}),
        (f"<think>x</think>\n<answer>**{CD4}** | `B cell` | \u201cNK cell\u201d</answer>",
         {Repair.MARKUP}),
        (f"<think>x</think>\n<answer>**{RIGHT}**</answer>", {Repair.MARKUP}),
        (f"<think>x</think>\n<answer>\n```text\n{RIGHT}\n```\n</answer>", {Repair.MARKUP}),
        (f"<think>x</think>\n<answer>{RIGHT}.</answer>", {Repair.FULL_STOP}),
        (f"<think>x</think>\n<answer>1. {CD4} | 2. B cell | 3. NK cell</answer>",
         {Repair.NUMBERS}),
        (f"<think>x</think>\n<answer>Cell 2: B cell | Cell 1: {CD4} | Cell 3: NK cell</answer>",
         {Repair.NUMBERS}),
        (f"<think>x</think>\n<answer>\n{CD4}\nB cell\nNK cell\n</answer>", {Repair.LINES}),
        (f"<think>x</think>\n<answer>1) {CD4}\n2) B cell\n3) NK cell</answer>",
         {Repair.LINES, Repair.NUMBERS}),
        (f"<think>x</think>\n<answer>| 1 | {CD4} |\n| 2 | B cell |\n| 3 | NK cell |</answer>",
         {Repair.LINES, Repair.NUMBERS}),
        (f"<think>x</think>\nCell 1: {CD4}\nCell 2 \u2192 B cell\nCell 3 - NK cell",
         {Repair.TAGS, Repair.LINES}),
        (f"<think>x</think>\n- **Cell 1:** {CD4}\n- **Cell 2:** B cell\n- **Cell 3:** NK cell",
         {Repair.TAGS, Repair.LINES, Repair.MARKUP}),
        (f"CD4 here.\n\n**Final answer:** {RIGHT}\n\nTell me if you need more.",
         {Repair.TAGS}),
    ],
)  # fmt: skip
def test_a_clear_answer_in_another_format_is_read_and_what_was_overlooked_is_said(text, repairs):
    found = parse_tolerantly(text, ASKED)
    assert isinstance(found, Tolerated)
    assert found.answer.labels == ASKED.answer
    assert set(found.repairs) - {Repair.MARKUP} == repairs - {Repair.MARKUP}
    assert repairs <= set(found.repairs)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", Fault.NO_ANSWER),
        ("I cannot tell.", Fault.NO_ANSWER),
        (f"<think>It may be {RIGHT}", Fault.CUT_OFF),
        (f"<think>Cell 1: {CD4}\nCell 2: B cell\nCell 3: NK cell", Fault.CUT_OFF),
        ("<think>x</think>\n<answer>B cell | NK cell | T cell", Fault.CUT_OFF),
        ("<think>x</think>\nAnswer: B cell | NK cell | T cell", Fault.CUT_OFF),
        ("<think>x</think>\nCell 1: B cell\nCell 2: NK cell\nCell 3: T cell", Fault.CUT_OFF),
        (f"<answer>{RIGHT}</answer><answer>B cell | {CD4} | NK cell</answer>", Fault.AMBIGUOUS),
        (f"<answer>{RIGHT}</answer>\nOr: B cell | {CD4} | NK cell", Fault.AMBIGUOUS),
        (f"<answer>{RIGHT}</answer>\nCell 1: B cell\nCell 2: {CD4}\nCell 3: NK cell",
         Fault.AMBIGUOUS),
        (f"</think>\nCell 1: {CD4}\nCell 2: B cell\nCell 3: NK cell\nCell 3: T cell",
         Fault.AMBIGUOUS),
        (f"</think>\nAnswer: {RIGHT}\nAnswer: B cell | {CD4} | NK cell", Fault.AMBIGUOUS),
        ("<answer>2. B cell | 3. NK cell | 4. T cell</answer>", Fault.AMBIGUOUS),
        ("<answer>1. B cell\n1. NK cell\n3. T cell</answer>", Fault.AMBIGUOUS),
        (f"The types are {RIGHT}\nI am not sure which is which.", Fault.NO_ANSWER),
        (f"The types:\n1. {CD4}\n2. B cell\n3. NK cell", Fault.NO_ANSWER),
        (f"</think>\nCell 1: {CD4} or T cell\nCell 2: B cell\nCell 3: NK cell",
         Fault.NO_ANSWER),
        (f"</think>\nCell 1: {CD4}\nCell 2: B cell", Fault.NO_ANSWER),
    ],
)  # fmt: skip
def test_what_has_no_single_clear_reading_is_not_read(text, fault):
    found = parse_tolerantly(text, ASKED)
    assert isinstance(found, Malformed)
    assert found.fault is fault


def test_candidates_that_look_alike_are_never_guessed():
    alike = Puzzle("x", [("A",), ("B",)], ("CD8\u2011T", "CD8-T", "B cell"))
    found = parse_tolerantly("<answer>CD8\u2013T | B cell</answer>", alike)
    assert isinstance(found, Tolerated)
    assert found.answer.labels == ("CD8\u2013T", "B cell")  # foreign, so never right


assignments = st.permutations(TYPES).map(lambda types: tuple(types[:3]))
styles = st.sampled_from([
    lambda a: f"<answer>{' | '.join(a)}</answer>",
    lambda a: f"<answer>{' | '.join(f'**{x}**' for x in a)}.</answer>",
    lambda a: "<answer>" + "\n".join(f"{i}. {x}" for i, x in enumerate(a, 1)) + "</answer>",
    lambda a: "\n".join(f"Cell {i}: {x}" for i, x in enumerate(a, 1)),
    lambda a: f"Final answer: {' | '.join(a)}",
    lambda a: f"<answer>{chr(0xff5c).join(a)}</answer>".replace("-", chr(0x2010)),
])  # fmt: skip


@given(assignments, styles)
def test_every_style_is_read_as_what_it_says(said, style):
    found = parse_tolerantly(f"<think>x</think>\n{style(said)}\n", ASKED)
    assert isinstance(found, Tolerated)
    assert found.answer.labels == said


@given(assignments, styles, assignments, styles, st.sampled_from(["\n", "\n\nOr else:\n", " "]))
def test_two_different_answers_never_give_a_right_one(one, style, other, another, between):
    text = f"<think>x</think>\n{style(one)}{between}{another(other)}"
    found = parse_tolerantly(text, ASKED)
    if one != other and isinstance(found, Tolerated):
        assert found.answer.labels != ASKED.answer
    if one == other and isinstance(found, Tolerated):
        assert found.answer.labels == one or set(found.answer.labels) - set(TYPES)


@given(assignments, styles)
def test_a_text_cut_anywhere_gives_what_was_said_or_nothing_whole(said, style):
    whole = f"<think>x</think>\n{style(said)}"
    for end in range(len(whole)):
        found = parse_tolerantly(whole[:end], ASKED)
        if isinstance(found, Tolerated):
            labels = found.answer.labels
            assert labels == said or len(labels) < 3 or set(labels) - set(TYPES)


@given(st.text() | shuffled | framed | spoilt)
def test_a_tolerant_reading_keeps_what_the_strict_one_reads(text):
    strict, found = parse_response(text), parse_tolerantly(text, ASKED)
    if isinstance(found, Tolerated):
        assert "".join(found.answer.labels) == "" or all(
            label in text or label in TYPES for label in found.answer.labels
        )
        if isinstance(strict, Answer) and set(strict.labels) <= set(TYPES):
            assert found == Tolerated(strict, ())
