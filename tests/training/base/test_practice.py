"""What practice draws: cells of one source, names of many kinds, and the same ones every time."""

import numpy as np
import pytest
from base_toys import MARKERS, as_puzzle

from cello1.errors import InputError
from cello1.scoring.ontology import term_id
from cello1.training.base.practice import MITOCHONDRIAL, NUCLEAR, Practice, Size, knowledge
from cello1.training.base.sources import Sources, gather


def test_a_draw_depends_on_seed_step_and_number_alone(practice):
    size = Size(4, 30, 2)
    practice.draw(1, 0, size)
    again = Practice(practice.sources, seed=0)
    other = Practice(practice.sources, seed=1)
    first, second = practice.draw(7, 3, size), again.draw(7, 3, size)
    assert first.names == second.names
    assert all(np.array_equal(a, b) for a, b in zip(first.cells, second.cells, strict=True))
    assert as_puzzle(practice, first) == as_puzzle(again, second)
    assert as_puzzle(practice, first) != as_puzzle(other, other.draw(7, 3, size))
    assert as_puzzle(practice, first) != as_puzzle(practice, practice.draw(7, 4, size))


def test_drawn_puzzles_are_puzzles(practice):
    for i in range(200):
        draft = practice.draw(0, i, Size(4, 50, 3))
        puzzle = as_puzzle(practice, draft)  # checks every invariant
        assert 2 <= len(puzzle.cells) <= 4
        assert all(len(set(cell)) == len(cell) <= 50 for cell in puzzle.cells)


def test_cells_of_a_profile_list_its_markers_and_what_the_means_lack(profiles):
    practice = Practice(gather([profiles], None, []), seed=0)
    found = {"own": 0, "mitochondrial": 0, NUCLEAR: 0}
    for i in range(100):
        draft = practice.draw(0, i, Size(4, 50, 0, plain=True))
        for cell, j in zip(draft.cells, draft.gold, strict=True):
            genes = {practice.genes[g] for g in cell}
            found["own"] += bool(genes & set(MARKERS[draft.names[j]]))
            found["mitochondrial"] += bool(genes & set(MITOCHONDRIAL))
            found[NUCLEAR] += NUCLEAR in genes
    cells = 100 * 4
    assert found["own"] > 0.9 * cells
    # In some studies, not in all: both are drawn once a puzzle.
    assert 0.3 * cells < found["mitochondrial"] < 0.8 * cells
    assert 0.3 * cells < found[NUCLEAR] < 0.9 * cells


def test_real_cells_stay_with_their_donor(toys):
    sources = gather([], None, [toys])
    practice = Practice(sources, seed=0)
    of_donor = {}
    for toy in toys:
        for cell, label in zip(toy.cells, toy.answer, strict=True):
            of_donor.setdefault(toy.meta["donor_id"], {}).setdefault(label, set()).update(cell)
    for i in range(50):
        draft = practice.draw(0, i, Size(3, 50, 0, plain=True))
        puzzle = as_puzzle(practice, draft)
        assert any(
            all(
                set(c) <= known[label] for c, label in zip(puzzle.cells, puzzle.answer, strict=True)
            )
            for known in of_donor.values()
        )


def test_types_come_under_many_names_and_every_name_is_true(practice):
    types = practice.sources.types
    other, invented = set(), 0
    for i in range(400):
        draft = practice.draw(1, i, Size(4, 10, 1))
        assert len({name.casefold() for name in draft.names}) == len(draft.names)
        for name, kind in zip(draft.names, draft.types, strict=True):
            if name == types[kind]:
                continue
            known = [*practice.sources.names[kind], *practice.sources.wider[kind]]
            if name in known:
                other.add(name)
                # A wider name fits no other candidate.
                for rival in draft.types[draft.types != kind]:
                    assert name not in practice.sources.wider[rival]
            elif term_id(name) is None:
                invented += 1
    assert len(other) > 5
    assert invented
    assert all(
        draft.names == [types[k] for k in draft.types]
        for draft in (practice.draw(2, i, Size(4, 10, 1, plain=True)) for i in range(50))
    )


def test_the_tables_tell_which_genes_mark_a_type(practice):
    telling, listed = knowledge(practice)
    for label, markers in MARKERS.items():
        row = telling[practice.sources.types.index(label)]
        best = {practice.genes[g] for g in np.argsort(-row)[: len(markers)]}
        assert len(best & set(markers)) >= 3
    assert listed[practice.genes.index("LYZ")] > 0.5


def test_sources_are_the_same_when_read_again(practice, tmp_path):
    path = tmp_path / "sources.npz"
    practice.sources.save(path)
    again = Sources.load(path)
    assert again.types == practice.sources.types
    assert again.genes == practice.sources.genes
    assert [t.name for t in again.tables] == ["blood_means"]
    assert np.allclose(again.tables[0].shares, practice.sources.tables[0].shares, rtol=2e-3)
    assert [group.name for group in again.lists] == [f"d{i}" for i in range(5)]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="no sources of practice"):
        Sources.load(path)


def test_columns_not_kept_are_left_out(profiles, tmp_path):
    rows = ["profile,column,cell_type,tissue,disease,development,keep"]
    rows += [f"blood_means,{c},{c},blood,normal,adult,{c != 'platelet'}" for c in MARKERS]
    (tmp_path / "types.csv").write_text("\n".join(rows))
    sources = gather([profiles], tmp_path / "types.csv", [])
    assert sources.types == sorted(set(MARKERS) - {"platelet"})
    assert sources.tables[0].contexts == [("blood", "normal", "adult")]
