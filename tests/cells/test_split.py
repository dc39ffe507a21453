"""Splits share no donor, whatever they are made by."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from cello1.cells.audit import audit
from cello1.cells.make import make_puzzles
from cello1.cells.split import SPLITS, split_puzzles
from cello1.errors import InputError
from cello1.recipes import BuildSettings

FIELDS = {"donor": "donor_id", "dataset": "dataset", "tissue": "tissue", "disease": "disease"}


def split(puzzles, **settings):
    return split_puzzles(puzzles, BuildSettings(**settings))


def donors(puzzles):
    return {p.meta["donor_id"] for p in puzzles}


def assert_dealt_once(splits, puzzles):
    dealt = Counter(p.id for members in splits.values() for p in members)
    assert dealt == Counter(p.id for p in puzzles)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("seed", range(5))
def test_neither_donors_nor_units_are_shared(crowd, kind, seed):
    puzzles = crowd(12, seed)
    splits = split(puzzles, split=kind, seed=seed)
    assert_dealt_once(splits, puzzles)
    for a, b in combinations(splits.values(), 2):
        assert not donors(a) & donors(b)
        if kind != "donor":
            assert not {p.meta[FIELDS[kind]] for p in a} & {p.meta[FIELDS[kind]] for p in b}


def test_donors_tie_the_units_that_they_span(make_puzzle):
    """d1 ties lung to blood and file a to file b; d2 follows although it never met lung."""
    at = [("d1", "lung", "a"), ("d1", "blood", "b"), ("d2", "blood", "b")]
    at += [("d3", "liver", "c"), ("d4", "skin", "e")]
    puzzles = [make_puzzle(d, tissue=t, dataset=f) for d, t, f in at]
    for kind in ("tissue", "dataset"):
        splits = split(puzzles, split=kind)
        assert {"d1", "d2"} in [donors(s) for s in splits.values()]
        assert all(len(s) >= 1 for s in splits.values())


def test_one_name_in_two_files_is_one_person(make_puzzle):
    puzzles = [make_puzzle(d, dataset=f) for d in ("d1", "d2", "d3") for f in ("a", "b")]
    splits = split(puzzles)
    assert sorted(len(s) for s in splits.values()) == [2, 2, 2]


@pytest.mark.parametrize("kind", FIELDS)
def test_a_pool_is_tied_to_the_named_donors_of_its_file(make_puzzle, kind):
    puzzles = [make_puzzle(f"d{i}", dataset="a", tissue=f"t{i}", disease=f"x{i}") for i in range(3)]
    puzzles += [make_puzzle("pooled:a", dataset="a", pooled=True, tissue="t", disease="x")]
    puzzles += [
        make_puzzle(f"e{i}", dataset=f"b{i}", tissue=f"u{i}", disease=f"y{i}") for i in range(3)
    ]
    splits = split(puzzles, split=kind)
    assert {"d0", "d1", "d2", "pooled:a"} in [
        donors(s) - {"e0", "e1", "e2"} for s in splits.values()
    ]


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2)])
def test_fractions_hold_overall_and_for_every_n(crowd, fractions):
    puzzles = crowd(80)
    splits = split(puzzles, fractions=fractions)
    total = Counter(len(p.cells) for p in puzzles)
    for name, share in zip(SPLITS, fractions, strict=True):
        assert len(splits[name]) / len(puzzles) == pytest.approx(share, abs=0.03)
        for n, count in Counter(len(p.cells) for p in splits[name]).items():
            assert count / total[n] == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("sizes", [[3, 4, 5], [3, 3, 4, 5], [4, 4, 4], [3, 4, 4, 5, 6, 6]])
def test_no_split_stays_empty_while_there_are_units_for_it(make_puzzle, sizes):
    """Also when every donor has puzzles of one size, and that size is its own."""
    puzzles = [make_puzzle(f"d{i}", n=n) for i, n in enumerate(sizes) for _ in range(4)]
    assert all(split(puzzles).values())


@pytest.mark.parametrize("kind", FIELDS)
def test_too_few_units_are_refused_with_the_choices(make_puzzle, kind):
    puzzles = [make_puzzle(d, n=n) for d in ("d1", "d2") for n in (3, 4)]
    with pytest.raises(InputError, match=rf"split by {kind}, too few.*--split none"):
        split(puzzles, split=kind)


def test_the_order_of_the_puzzles_does_not_change_who_is_tested(crowd):
    puzzles = crowd(20)
    first = {name: donors(members) for name, members in split(puzzles).items()}
    assert {n: donors(m) for n, m in split(puzzles[::-1]).items()} == first


def test_within_a_split_the_order_is_kept(crowd):
    puzzles = crowd(20)
    place = {p.id: i for i, p in enumerate(puzzles)}
    for members in split(puzzles).values():
        assert [place[p.id] for p in members] == sorted(place[p.id] for p in members)


def test_another_seed_tests_on_other_donors(crowd):
    puzzles = crowd(20)
    assert len({frozenset(donors(split(puzzles, seed=s)["test"])) for s in range(5)}) > 1


def test_a_split_by_cell_shares_donors_but_no_cell(make_cells, save, small):
    plan = small(split="cell")
    puzzles, _ = make_puzzles(save(make_cells(donors=1, cells=40)), plan)
    splits = split_puzzles(puzzles, plan)
    assert_dealt_once(splits, puzzles)
    assert all(donors(members) == {"D0"} for members in splits.values())
    found = audit(splits)
    assert found.passed
    assert found.declared == ("donors",)
    assert any("same donors" in mark for mark in found.marks)


def test_a_split_by_puzzle_is_marked_as_leaking(make_cells, save, small):
    plan = small(split="puzzle", per_n=40)
    puzzles, _ = make_puzzles(save(make_cells(donors=1, cells=2)), plan)
    splits = split_puzzles(puzzles, plan)
    assert_dealt_once(splits, puzzles)
    found = audit(splits)
    assert not found.passed
    assert any("LEAKING" in mark for mark in found.marks)


def test_without_a_split_all_puzzles_stay_together(crowd):
    puzzles = crowd(3)
    assert split(puzzles, split="none") == {"all": puzzles}
