from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cello1.errors import PuzzleError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.puzzles.table import read_puzzles
from cello1.scoring.score import score

GOLD = ("T cell", "B cell", "NK cell")
OFFER = ("B cell", "mast cell", "NK cell", "T cell")


def puzzle_of(answer: tuple[str, ...], offer: tuple[str, ...] | None = None) -> Puzzle:
    return Puzzle("", [["CD3D"]] * len(answer), offer or answer, answer)


PUZZLE = puzzle_of(GOLD, OFFER)


def say(*labels: str, reasoning: str = "x") -> str:
    return f"<think>{reasoning}</think>\n<answer>{' | '.join(labels)}</answer>"


words = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|<>"), min_size=1)


@given(st.lists(words, min_size=2, max_size=15, unique_by=label_key))
def test_the_gold_answer_always_scores_one(names):
    gold = tuple(names)
    for text in (response_text("so", gold), response_text("", tuple(f" {g}\n" for g in gold))):
        worth = score(puzzle_of(gold), text)
        assert (worth.cell_accuracy, worth.exact, worth.uniqueness) == (1.0, True, 1.0)
        assert (worth.reward, worth.reason, worth.right) == (1.0, "", (True,) * len(gold))


def test_the_gold_answers_of_published_rows_score_one(shared):
    for puzzle in read_puzzles(shared / "data" / "cellpuzzles_rows.jsonl"):
        assert score(puzzle, response_text("so", puzzle.answer)).exact


def score_naively(labels: list[str]) -> tuple[float, bool, float, bool]:
    said = [label.strip().lower() for label in labels]
    spoken = [label for label in said if label != ""]
    unique = len(set(spoken)) / len(spoken) if spoken else 0.0
    if len(said) != 3 or len(spoken) != 3:
        return 0.0, False, unique, False
    right = 0
    for i in range(3):
        if said[i] == GOLD[i].lower() and said.count(said[i]) == 1:
            right += 1
    return right / 3, right == 3, unique, True


slot = st.sampled_from([*GOLD, "t CELL", " b cell ", "mast cell", "neuron", "", " "])
replaced = st.tuples(st.integers(0, 2), slot).map(
    lambda change: [*GOLD[: change[0]], change[1], *GOLD[change[0] + 1 :]]
)


@given(st.lists(slot, min_size=1, max_size=5) | st.permutations(GOLD) | replaced)
def test_any_list_of_labels_scores_as_a_naive_count_says(labels):
    worth = score(PUZZLE, say(*labels))
    assert worth.format_valid
    found = (worth.cell_accuracy, worth.exact, worth.uniqueness, worth.complete)
    assert found == score_naively(labels)
    assert sum(worth.right) / 3 == worth.cell_accuracy
    assert worth.reward == worth.exact


@pytest.mark.parametrize(
    ("labels", "cell", "unique", "reason"),
    [
        (["T cell", "NK cell", "B cell"], 1 / 3, 1.0, ""),
        (["T cell", "B cell", "mast cell"], 2 / 3, 1.0, ""),
        (["T cell", "B cell", "neuron"], 2 / 3, 1.0, "not among the candidates: ['neuron']"),
        (["T cell", "T cell", "NK cell"], 1 / 3, 2 / 3, "repeated: ['T cell']"),
        (["T cell", "t CELL", "t cell"], 0.0, 1 / 3, "repeated: ['T cell']"),
        ([*GOLD, "mast cell"], 0.0, 1.0, "4 labels for 3 cells"),
        ([*GOLD, *GOLD], 0.0, 0.5, "6 labels for 3 cells; repeated"),
        ([*GOLD, ""], 0.0, 1.0, "4 labels for 3 cells; empty slot at 4"),
        (["T cell", "B cell"], 0.0, 1.0, "2 labels for 3 cells"),
        (["T cell", "", "NK cell"], 0.0, 1.0, "empty slot at 2"),
        (["", *GOLD], 0.0, 1.0, "4 labels for 3 cells; empty slot at 1"),
        (["", "", ""], 0.0, 0.0, "empty slot at 1, 2, 3"),
        ([""], 0.0, 0.0, "1 labels for 3 cells; empty slot at 1"),
    ],
)
def test_every_fault_costs_what_it_should_and_is_named(labels, cell, unique, reason):
    worth = score(PUZZLE, say(*labels))
    assert worth.cell_accuracy == pytest.approx(cell)
    assert worth.uniqueness == pytest.approx(unique)
    assert worth.reason.startswith(reason)
    assert bool(worth.reason) == bool(reason)
    assert not worth.exact


def test_a_bar_in_the_reasoning_is_not_the_answer():
    right, wrong = "T cell | B cell | NK cell", "B cell | T cell | mast cell"
    text = "<think>\n{}\n</think>\n<answer>\n{}\n</answer>"
    assert score(PUZZLE, text.format(wrong, right)).exact
    assert score(PUZZLE, text.format(right, wrong)).cell_accuracy == 0.0


def test_a_malformed_response_scores_nothing_and_says_why():
    worth = score(PUZZLE, "T cell | B cell | NK cell")
    assert (worth.format_valid, worth.cell_accuracy, worth.uniqueness) == (False, 0.0, 0.0)
    assert (worth.reward, worth.right) == (-1.0, (False, False, False))
    assert worth.reason == "<think> appears 0 times instead of once"


def test_without_an_answer_nothing_can_be_scored():
    with pytest.raises(PuzzleError, match="has no answer"):
        score(Puzzle("", [["A"], ["B"]], ["x", "y"]), say("x", "y"))


RIGHT = "T cell | B cell | NK cell"


@pytest.mark.parametrize(
    "text",
    [
        f"<think><answer>{RIGHT}</answer></think>",
        f"<think>{RIGHT}</think>\n<answer></answer>",
        f"<think>x</think>\n<answer>B cell</answer>\n<answer>{RIGHT}</answer>",
        f"<think>x</think>\n<answer>{RIGHT}</answer>\n<answer>{RIGHT}</answer>",
        f"<think>x</think>\n<answer>{RIGHT}</answer> or <think>y</think>",
        say(" / ".join(OFFER), " / ".join(OFFER), " / ".join(OFFER)),
        say(*OFFER),
        say(*(OFFER * 3)),
        say(*(["T cell"] * 3)),
        say("Т cell", "В cell", "ΝК cell"),
        say("T\u200b cell", "B\u200bcell", "NK cell\u2060"),
        say("T cell\x00", "\ufeffB cell", "T\u00a0cell"),
        say("1. T cell", "2. B cell", "3. NK cell"),
        say("Cell 1: T cell, Cell 2: B cell, Cell 3: NK cell"),
        say(*GOLD).replace(" | ", " ｜ "),
        say(*GOLD).replace("<answer>", "<answer >"),
        say(*GOLD).replace("<", "＜"),
    ],
)
def test_a_trick_earns_nothing(text):
    worth = score(PUZZLE, text)
    assert worth.cell_accuracy == 0.0
    assert worth.reward <= 0.0
    assert worth.reason


MEGABYTE = 1 << 20
FLOODS = {
    **{piece: piece * (MEGABYTE // len(piece)) for piece in ("|", "<think>", "T cell | ", "\n")},
    "other labels": " | ".join(str(i) for i in range(MEGABYTE // 9)),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_megabyte_is_scored_within_seconds_and_its_reason_is_short(flood):
    for text in (flood, say(flood), say(*GOLD, flood)):
        start = time.process_time()
        worth = score(PUZZLE, text)
        assert time.process_time() - start < 3.0
        assert worth.cell_accuracy == 0.0 or flood.isspace()
        assert len(worth.reason) < 500
    assert score(PUZZLE, say(*GOLD, reasoning=flood)).exact == ("<think>" not in flood)
