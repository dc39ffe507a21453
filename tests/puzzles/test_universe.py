"""Notes of the genes that a data set measured."""

import random

import pytest

from cello1.errors import InputError
from cello1.puzzles.universe import genes, measured_of, note_of


def test_a_note_is_short_and_says_which_genes_were_measured() -> None:
    current = [names[0] for names in genes()]
    panel = [*random.Random(0).sample(current, 600), "NOT-A-GENE", "LINC99999"]
    for measured in (panel, current, current[:150]):
        note = note_of(measured)
        assert len(note) < 900
        assert measured_of(note) == set(measured) & set(current)


def test_older_names_count() -> None:
    older = [names for names in genes() if len(names) > 1]
    assert measured_of(note_of([names[-1] for names in older])) == {names[0] for names in older}


def test_next_to_nothing_is_not_noted() -> None:
    assert note_of([]) is None
    assert note_of(["Cd79a", "Ms4a1", "ENSG00000105369"]) is None
    assert note_of([names[0] for names in genes()][:99]) is None


def test_of_another_table_nothing_is_known() -> None:
    assert measured_of("2:whatever") is None


@pytest.mark.parametrize("damaged", ["", "1:", "1:AAAA", "x", "1:%%%%", ":", "1:" + "A" * 400])
def test_damaged_notes_are_named(damaged: str) -> None:
    with pytest.raises(InputError, match="cannot be read; expected what cello1 build writes"):
        measured_of(damaged)


def test_a_note_cut_short_is_named() -> None:
    note = note_of(names[0] for names in genes())
    with pytest.raises(InputError, match="cannot be read"):
        measured_of(note[:-8])
