from __future__ import annotations

import re

import pytest

from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import chance, compare, evaluate, score_all

TYPES = ["T cell", "B cell", "NK cell", "mast cell", "neuron"]


def puzzle(number: int, n: int = 2, m: int | None = None, **meta: object) -> Puzzle:
    cells = [[f"G{number}", f"C{i}"] for i in range(n)]
    return Puzzle("", cells, TYPES[: m or n], TYPES[:n], meta)


def right(p: Puzzle) -> str:
    return response_text("one two", p.answer)


def swapped(p: Puzzle) -> str:
    return response_text("one two three", (p.answer[1], p.answer[0], *p.answer[2:]))


DONORS = [puzzle(i, donor_id=f"d{i}") for i in range(12)]


def test_metrics_by_hand():
    three = [puzzle(1, 2, donor_id="a"), puzzle(2, 4, donor_id="b"), puzzle(3, 5, donor_id="c")]
    responses = {three[0].id: right(three[0]), three[1].id: swapped(three[1]), three[2].id: "no"}
    found = evaluate(three, responses).overall
    assert found.n == 3
    assert found.cell_accuracy.estimate == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found.cell_accuracy_micro.estimate == pytest.approx((2 + 2 + 0) / 11)
    assert found.batch_accuracy.estimate == pytest.approx(1 / 3)
    assert found.format_validity.estimate == pytest.approx(2 / 3)
    assert found.uniqueness.estimate == pytest.approx(2 / 3)
    assert found.length_unit == "words"
    assert found.batch_accuracy.unit == "donor"


@pytest.mark.parametrize(
    ("n", "m", "cell", "batch"),
    [(2, 2, 1 / 2, 1 / 2), (4, 4, 1 / 4, 1 / 24), (2, 5, 1 / 5, 1 / 20), (3, 5, 1 / 5, 1 / 60)],
)
def test_chance_is_that_of_a_random_assignment(n, m, cell, batch):
    assert chance(puzzle(0, n, m)) == (pytest.approx(cell), pytest.approx(batch))


def test_the_chance_of_a_set_is_the_mean_over_its_puzzles():
    both = [puzzle(1, 2, 2), puzzle(2, 2, 5)]
    found = evaluate(both, {p.id: right(p) for p in both}).overall
    assert found.chance_cell == pytest.approx((1 / 2 + 1 / 5) / 2)
    assert found.chance_batch == pytest.approx((1 / 2 + 1 / 20) / 2)


def test_length_is_in_tokens_where_they_were_counted():
    responses = {p.id: right(p) for p in DONORS}
    counted = evaluate(DONORS, responses, tokens={p.id: i for i, p in enumerate(DONORS)}).overall
    assert (counted.length, counted.length_unit) == (5.5, "tokens")
    assert evaluate(DONORS, responses).overall.length == len(right(DONORS[0]).split())


def test_breakdowns_are_by_size_and_by_origin_where_known():
    some = [
        puzzle(1, 2, tissue="lung", disease="normal"),
        puzzle(2, 2, tissue="blood", disease="normal"),
        puzzle(3, 4, tissue="lung"),
    ]
    found = evaluate(some, {p.id: right(p) if p is some[0] else "no" for p in some}).by
    sizes = {name: {key: group.n for key, group in by.items()} for name, by in found.items()}
    assert sizes == {
        "n_cells": {"2": 2, "4": 1},
        "tissue": {"blood": 1, "lung": 2},
        "disease": {"normal": 2},
    }
    assert found["tissue"]["lung"].batch_accuracy.estimate == 0.5
    assert found["n_cells"]["4"].chance_batch == pytest.approx(1 / 24)


def test_sizes_are_in_the_order_of_numbers():
    sizes = [puzzle(i, n) for i, n in enumerate([5, 2, 4, 3])]
    letters = "abcdefghijk"
    wide = Puzzle("", [[f"G{c}"] for c in letters], list(letters), list(letters))
    found = evaluate([*sizes, wide], {p.id: right(p) for p in [*sizes, wide]})
    assert list(found.by["n_cells"]) == ["2", "3", "4", "5", "11"]


def test_a_missing_response_is_noted_and_not_a_wrong_answer():
    found = evaluate(DONORS, {p.id: right(p) for p in DONORS[:10]})
    assert (found.overall.n, found.overall.batch_accuracy.estimate) == (10, 1.0)
    assert found.notes == ["2 of 12 puzzles have no response and are not counted"]


def test_nothing_to_score_is_an_error():
    with pytest.raises(InputError, match="none of the puzzles has a response"):
        evaluate(DONORS, {"unknown": "x"})


@pytest.mark.parametrize(
    ("donors", "note"),
    [
        ([f"d{i}" for i in range(12)], None),
        ([f"d{i % 4}" for i in range(12)], "4 donors: .* too narrow"),
        (["d"] * 12, "one donor only: .* nothing about other donors"),
        ([*["d"] * 11, None], "donors are not recorded"),
    ],
)
def test_few_donors_are_noted(donors, note):
    some = [puzzle(i, donor_id=donor) for i, donor in enumerate(donors)]
    notes = evaluate(some, {p.id: right(p) for p in some}).notes
    if note is None:
        assert notes == []
    else:
        assert [bool(re.search(note, found)) for found in notes] == [True]


@pytest.mark.parametrize(("key", "word"), [("pooled", "pooled"), ("synthetic", "simulated")])
def test_puzzles_of_pooled_or_simulated_cells_are_noted(key, word):
    some = [*DONORS, puzzle(99, donor_id="d99", **{key: True})]
    (note,) = evaluate(some, {p.id: right(p) for p in some}).notes
    assert word in note


def test_complaints_are_counted_by_kind_the_most_common_first():
    answers = [
        "mast | B cell",
        "neuron; old | B cell",
        "see: this at once | B cell",
        "T cell | t cell",
        "T cell | ",
        "T cell",
        "T cell | B cell",
    ]
    some = DONORS[: len(answers) + 2]
    texts = [f"<think>x</think>\n<answer>{a}</answer>" for a in answers]
    responses = dict(zip([p.id for p in some], [*texts, "hm", "ah"], strict=True))
    assert evaluate(some, responses).complaints == {
        "labels: not among the candidates": 3,
        "format: <think> appears 0 times instead of once": 2,
        "labels: empty slot": 1,
        "labels: repeated": 1,
        "labels: wrong number": 1,
    }


def test_two_runs_are_compared_over_the_puzzles_they_share():
    a = score_all(DONORS[:10], {p.id: right(p) for p in DONORS})
    b = score_all(DONORS[2:], {p.id: swapped(p) if p in DONORS[2:5] else right(p) for p in DONORS})
    found, n = compare(a, b)
    assert n == 8
    assert found["batch_accuracy"].difference.estimate == pytest.approx(3 / 8)
    assert found["cell_accuracy"].difference.estimate == pytest.approx(3 / 8)
    assert (found["batch_accuracy"].only_a, found["batch_accuracy"].only_b) == (3, 0)
    assert found["batch_accuracy"].difference.unit == "donor"
    with pytest.raises(InputError, match="no puzzle in common"):
        compare(a[:2], b)
