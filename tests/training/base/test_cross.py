"""Crossed cells: as frequent genes, in as good an order, of one donor and type."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import cello1
from cello1.cli import app
from cello1.errors import InputError
from cello1.training.base.cross import CROSSED, cross, cross_puzzles

GENES = [f"G{i}" for i in range(60)]
LISTS = st.lists(st.permutations(GENES).map(lambda g: tuple(g[:20])), min_size=1, max_size=4)


@given(LISTS, st.integers(0, 2**32))
def test_a_crossed_cell_lists_genes_of_its_parents_once_and_what_all_have_always(parents, seed):
    cell = cross(parents, np.random.default_rng(seed))
    assert 0 < len(cell) <= 20
    assert len(set(cell)) == len(cell)
    assert set(cell) <= set().union(*parents)
    if len(set().union(*parents)) <= 20:  # nothing had to be cut off
        assert set.intersection(*map(set, parents)) <= set(cell)
    assert cell == cross(parents, np.random.default_rng(seed))


def test_genes_are_listed_as_often_as_the_parents_list_them():
    parents = [("A", "B", "C"), ("A", "B", "D"), ("A", "E", "F")]
    rng = np.random.default_rng(0)
    listed = Counter(gene for _ in range(6_000) for gene in cross(parents, rng))
    assert listed["A"] == 6_000
    # Lists longer than the longest parent lose their tail: never gene A, seldom the second place.
    assert listed["B"] / 6_000 == pytest.approx(2 / 3, abs=0.03)
    assert listed["E"] / 6_000 == pytest.approx(1 / 3, abs=0.03)
    assert all(cross(parents, rng)[0] == "A" for _ in range(50))


def test_crossed_puzzles_keep_donor_context_and_types_of_a_built_one(toys):
    made = cross_puzzles(toys, 30, seed=3)
    assert len(made) == 30
    moulds = {(p.context, frozenset(p.answer), p.meta["donor_id"]) for p in toys}
    of_donor = {}
    for toy in toys:
        for label, cell in zip(toy.answer, toy.cells, strict=True):
            of_donor.setdefault((toy.meta["donor_id"], label), set()).update(cell)
    for puzzle in made:
        donor = puzzle.meta["donor_id"]
        assert (puzzle.context, frozenset(puzzle.answer), donor) in moulds
        assert puzzle.meta[CROSSED] == 3
        assert not any(key.startswith("cell_") for key in puzzle.meta)
        for label, cell in zip(puzzle.answer, puzzle.cells, strict=True):
            assert set(cell) <= of_donor[donor, label]
        gold = " | ".join(puzzle.answer)
        assert cello1.score(puzzle, f"<think>x</think>\n<answer>{gold}</answer>").exact
    assert cross_puzzles(toys, 5, seed=3) == made[:5]
    assert cross_puzzles(toys, 5, seed=4) != made[:5]


def test_ambient_genes_come_from_the_donor_and_lists_keep_their_length(toys):
    plain = cross_puzzles(toys, 20, seed=3)
    soiled = cross_puzzles(toys, 20, seed=3, ambient=0.5)
    donor_genes = {}
    for toy in toys:
        donor_genes.setdefault(toy.meta["donor_id"], set()).update(*toy.cells)
    changed = total = 0
    for before, after in zip(plain, soiled, strict=True):
        assert before.answer == after.answer
        for old, new in zip(before.cells, after.cells, strict=True):
            assert len(new) == len(old) == len(set(new))
            assert set(new) <= donor_genes[after.meta["donor_id"]]
            changed += sum(a != b for a, b in zip(old, new, strict=True))
            total += len(old)
    assert 0.1 < changed / total <= 0.6  # a gene that is listed already stays what it is


def test_the_verb_writes_the_same_file_twice_and_refuses_puzzles_without_answers(toys, tmp_path):
    from dataclasses import replace

    source, blind = tmp_path / "train.parquet", tmp_path / "blind.parquet"
    cello1.write_puzzles(toys, source)
    cello1.write_puzzles([replace(toy, answer=None) for toy in toys], blind)
    hashes = set()
    for name in ("a", "b"):
        out = tmp_path / f"{name}.parquet"
        ran = CliRunner().invoke(app, ["cross", str(source), "--out", str(out), "--count", "7"])
        assert ran.exit_code == 0, ran.output
        hashes.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(hashes) == 1
    assert len(cello1.read_puzzles(tmp_path / "a.parquet")) == 7
    with pytest.raises(InputError, match="has an answer"):
        cross_puzzles(cello1.read_puzzles(blind), 3, 0)
