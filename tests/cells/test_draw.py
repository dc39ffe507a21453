"""What a drawn puzzle is made of: one group, different types, fresh cells, fair candidates."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cello1.cells.build import build
from cello1.cells.draw import Group, draw_puzzles
from cello1.cells.make import make_puzzles
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BuildSettings
from cello1.scoring.ontology import above, term_id

FLAT = [
    "B cell", "natural killer cell", "classical monocyte", "megakaryocyte", "erythrocyte",
    "mast cell", "neutrophil", "hepatocyte", "fibroblast", "endothelial cell",
]  # fmt: skip
NESTED = ["T cell", "regulatory T cell", "CD4-positive, alpha-beta T cell"]


def groups_of(*sizes):
    """One group per dict of type -> number of cells; cells are numbered through."""
    groups, start = [], 0
    for i, counts in enumerate(sizes):
        cells = {}
        for kind, count in counts.items():
            cells[kind] = np.arange(start, start + count)
            start += count
        groups.append(Group(f"g{i}", cells))
    return groups


def draw(groups, names=FLAT, dataset="file", **settings):
    plan = BuildSettings(**{"n_min": 3, "n_max": 3, "per_n": 10, **settings})
    return draw_puzzles(dataset, groups, names, {}, plan)


group = st.dictionaries(st.integers(0, len(FLAT) - 1), st.integers(1, 5), min_size=1, max_size=8)
plans = st.fixed_dictionaries(
    {"n_min": st.integers(2, 3), "n_max": st.integers(3, 5), "per_n": st.integers(1, 40)}
    | {"seed": st.integers(0, 99), "distractors": st.integers(0, 3)}
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(group, min_size=1, max_size=3), plan=plans)
def test_every_puzzle_keeps_the_rules(sizes, plan):
    groups = groups_of(*sizes)
    drawn = draw(groups, **plan)
    for d in drawn.draws:
        assert plan["n_min"] <= len(d.cells) == len(set(d.types)) <= plan["n_max"]
        for cell, kind in zip(d.cells, d.types, strict=True):
            assert cell in groups[d.group].cells[kind]
        assert len(d.candidates) == len(set(d.candidates)) == len(d.types) + plan["distractors"]
        assert set(d.types) <= set(d.candidates)
    assert len({frozenset(d.cells) for d in drawn.draws}) == len(drawn.draws)
    counts = Counter(len(d.cells) for d in drawn.draws)
    for n in range(plan["n_min"], plan["n_max"] + 1):
        assert counts[n] + drawn.shortfall.get(n, 0) == plan["per_n"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(group, min_size=1, max_size=2), plan=plans)
def test_no_cell_is_used_again_while_an_unused_one_of_its_type_remains(sizes, plan):
    groups, used = groups_of(*sizes), Counter()
    for d in draw(groups, **plan).draws:
        for cell, kind in zip(d.cells, d.types, strict=True):
            fresh = [c for c in groups[d.group].cells[kind].tolist() if not used[c]]
            assert not used[cell] or not fresh
        used.update(d.cells)


def test_every_group_that_can_serve_a_size_gets_its_share():
    groups = groups_of(*[dict.fromkeys(range(6), 9)] * 4, {0: 9, 1: 9})
    counts = Counter(d.group for d in draw(groups, per_n=22).draws)
    assert sorted(counts.values()) == [5, 5, 6, 6]
    assert 4 not in counts


def test_all_puzzles_there_are_can_be_asked_for():
    """4 types with one cell each make 4 different puzzles of 3; no fifth, no endless search."""
    drawn = draw(groups_of(dict.fromkeys(range(4), 1)), per_n=50)
    assert 3 <= len(drawn.draws) <= 4
    assert drawn.shortfall == {3: 50 - len(drawn.draws)}


def types_together(drawn, names):
    return {frozenset(names[t] for t in d.types) for d in drawn.draws}


def test_nested_types_never_share_a_puzzle_by_default():
    names = [*NESTED, *FLAT[:4]]
    drawn = draw(groups_of(dict.fromkeys(range(7), 9)), names, n_max=5, per_n=60)
    sets = types_together(drawn, names)
    assert all(not {"T cell", "regulatory T cell"} <= types for types in sets)
    assert all(not above([term_id(t) for t in types]).any() for types in sets)
    assert {"T cell", "regulatory T cell"} <= set().union(*sets)  # each still has its turn


def test_nested_types_may_share_a_puzzle_by_option():
    names = [*NESTED, *FLAT[:4]]
    groups = groups_of(dict.fromkeys(range(7), 9))
    drawn = draw(groups, names, per_n=60, nested_types="allowed")
    assert any({"T cell", "regulatory T cell"} <= t for t in types_together(drawn, names))
    assert drawn.largest == [7]
    assert draw(groups, names).largest == [6]


@pytest.mark.parametrize("pair", [("B cell", "B cells"), ("NK cell", "natural killer cell")])
def test_two_names_of_one_type_never_share_a_puzzle(pair):
    names = [*pair, *FLAT[2:5]]
    drawn = draw(groups_of(dict.fromkeys(range(5), 9)), names, per_n=40)
    assert all(not set(pair) <= types for types in types_together(drawn, names))


def test_the_largest_size_is_reached_although_nesting_allows_one_choice_only():
    """`T cell` bars both of the others, so three types are possible only without it."""
    names = ["T cell", "regulatory T cell", "CD8-positive, alpha-beta T cell", "B cell"]
    drawn = draw(groups_of(dict.fromkeys(range(4), 5)), names, per_n=5)
    assert drawn.largest == [3]
    assert len(drawn.draws) == 5
    assert types_together(drawn, names) == {frozenset(names[1:])}


def test_labels_the_ontology_does_not_know_are_kept_and_counted():
    names = ["cluster seven", *FLAT[:3]]
    drawn = draw(groups_of(dict.fromkeys(range(4), 9)), names, per_n=30)
    assert drawn.unknown_types == ["cluster seven"]
    assert any("cluster seven" in types for types in types_together(drawn, names))


def test_ids_that_the_file_gives_its_types_tell_of_nesting(make_cells, save, small):
    rename = {"B cell": ("my T", "CL:0000084"), "erythrocyte": ("my Treg", "CL:0000815")}
    adata = make_cells(types=10)
    for old, (name, term) in rename.items():
        rows = adata.obs["cell_type"] == old
        adata.obs.loc[rows, ["cell_type", "cell_type_ontology_term_id"]] = name, term
    puzzles, report = make_puzzles(save(adata), small(per_n=40))
    assert report.unknown_types == []
    assert all(not {"my T", "my Treg"} <= set(p.answer) for p in puzzles)
    assert {"my T", "my Treg"} <= {label for p in puzzles for label in p.answer}


def test_distractors_fit_no_cell():
    names = [*NESTED, *FLAT]
    drawn = draw(groups_of(dict.fromkeys(range(len(names)), 9)), names, per_n=60, distractors=4)
    assert len(drawn.draws) == 60
    order = above([term_id(name) for name in names])
    for d in drawn.draws:
        others = set(d.candidates) - set(d.types)
        assert len(others) == 4
        assert not any(order[o, t] or order[t, o] for o in others for t in d.types)


def test_distractors_are_types_that_cells_of_the_file_have(make_cells, save, small):
    """Neither `unknown` nor a category without cells is a type."""
    adata = make_cells(types=6)
    names = adata.obs["cell_type"].astype(str)
    names[names == "classical monocyte"] = "unknown"
    adata.obs["cell_type"] = names.astype("category").cat.add_categories(["doublet"])
    puzzles, _ = make_puzzles(save(adata), small(n_min=3, n_max=3, distractors=1, per_n=20))
    assert len(puzzles) == 20
    assert {label for p in puzzles for label in p.candidates} == set(names) - {"unknown"}


def test_too_few_types_for_the_distractors_are_explained(make_cells, save, small):
    puzzles, report = make_puzzles(save(make_cells(types=5)), small(n_min=4, distractors=3))
    assert (puzzles, report.status) == ([], "no puzzles")
    assert "distractors" in report.message


def test_candidates_are_sorted_by_option(make_cells, save, small):
    puzzles, _ = make_puzzles(save(make_cells()), small(candidate_order="sorted", distractors=2))
    assert all(list(p.candidates) == sorted(p.candidates, key=str.casefold) for p in puzzles)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_the_order_of_the_candidates_tells_nothing_of_the_cells(order):
    """With 2,000 puzzles every share lies within 5 standard deviations of chance."""
    groups = groups_of(dict.fromkeys(range(10), 300))
    plan = {"n_min": 5, "n_max": 5, "per_n": 2000, "distractors": 2, "candidate_order": order}
    drawn = draw(groups, **plan)
    places = np.array([[d.candidates.index(t) for t in d.types] for d in drawn.draws])
    first = np.bincount(np.argmin(places, axis=1), minlength=5)  # the cell of the first candidate
    assert abs(first - 400).max() < 5 * np.sqrt(400)
    if order == "shuffled":
        for column in places.T:
            counts = np.bincount(column, minlength=7)
            assert abs(counts - 2000 / 7).max() < 5 * np.sqrt(2000 / 7)


def content(drawn):
    return [(d.cells, d.candidates) for d in drawn.draws]


def test_seed_and_data_set_change_the_puzzles_and_nothing_else_does():
    groups = groups_of(*[dict.fromkeys(range(6), 9)] * 2)
    base = content(draw(groups))
    assert content(draw(groups)) == base
    assert content(draw(groups, seed=1)) != base
    assert content(draw(groups, dataset="other")) != base
    assert content(draw(groups, split="none", fractions=(0.5, 0.2, 0.3))) == base


def test_another_file_beside_it_does_not_change_a_files_puzzles(make_cells, save, small):
    paths = [save(make_cells(seed=i), name) for i, name in enumerate(("a", "b", "c"))]
    plan = small(split="none")
    together = build(paths, paths[0].parent / "all", plan)
    alone, _ = make_puzzles(paths[1], plan)
    built = [p for p in read_puzzles(together.folder / "all.parquet") if p.meta["dataset"] == "b"]
    assert built == alone
