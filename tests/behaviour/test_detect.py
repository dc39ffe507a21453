import numpy as np
import pytest

from cello1.behaviour.claims import COMMITTED, read_claims
from cello1.behaviour.detect import ErrorType, detect, error_types
from cello1.puzzles.answer import Answer
from cello1.solvers.assign import assign_jointly
from cello1.training.teacher.steps import find_steps
from cello1.training.teacher.teacher import tell

B, T, MONO, NK = range(4)


def claims(puzzle, text):
    return [
        (c.cell, c.label) for s in read_claims(puzzle, text) for c in s.claims
        if c.strength == COMMITTED
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cell 3 expresses MS4A1, so it is a B cell.", [(3, B)]),
        ("Cell 3: MS4A1. This must be the B cell.", [(3, B)]),
        ("**Cell 3** \u2192 **B cell**", [(3, B)]),
        ("B cell \u2192 Cell 3", [(3, B)]),
        ("The B cell must be Cell 3.", [(3, B)]),
        ("| 3 | MS4A1 | B cell |", [(3, B)]),
        ("1. classical monocyte\n2. CD8 T cell", [(1, MONO), (2, T)]),
        ("Candidates:\n1. B cell\n2. NK cell", []),
        ("Not Cell 2 is the NK cell but Cell 4.", [(4, NK)]),
        ("Cell 4 is not a CD8 T cell but an NK cell.", [(4, NK)]),
        ("Cell 4 is an NK cell rather than a CD8 T cell.", [(4, NK)]),
        ("Cell 4 has more GNLY than Cell 2, so it is the NK cell.", [(4, NK)]),
        ("Cell 2 could be an NK cell or a CD8 T cell.", []),
        ("Is Cell 2 an NK cell?", []),
        ("NKG7 is an NK cell marker.", []),
        ("NK cells express GNLY.", []),
        ("Cell 1 is a monocyte; NK cell fits Cell 4 better.", [(1, MONO)]),
        ("Cells 2 and 4 are both NK cell candidates.", []),
        ("Cell 4 is NK cell (GNLY). Next comes CD8 T cell, for which NKG7 would speak.", [(4, NK)]),
        ("Cell 4: GNLY, so likely NK cell, CD8 T cell being less supported.", [(4, NK)]),
        ("Cell 4: GNLY, so likely NK cell, with CD8 T cell close.", [(4, NK)]),
        ("1. **B cell**: look for MS4A1, CD19. Cell 3 has it.", [(3, B)]),
        ("1) B cell vs. NK cell.\n   - Cell 3 has MS4A1.", []),
        ("2) NK cell \u2192 typically GNLY.\n   \u2022 Cell 4 shows GNLY.\n"
         "3) B cell \u2192 MS4A1.\n   \u2022 Cell 3 shows MS4A1.", [(4, NK), (3, B)]),
        ("B cell: MS4A1, CD79A -> Cell 3", [(3, B)]),
        ("B cell: MS4A1, CD79A -> 3", [(3, B)]),
        ("### 1. B cell (Cell 3)\nMS4A1 leads its list.", [(3, B)]),
        ("- B cell - Cell 3: MS4A1", [(3, B)]),
        ("B cell: MS4A1 is not in Cell 2.", []),
        ("| Type | Genes | Cell |\n|---|---|---|\n| B cell | MS4A1 | 3 |", [(3, B)]),
        ("| Type | Look for |\n|---|---|\n| B cell | MS4A1 |", []),
        ("The types, one for each cell, are:\n\n1) B cell\n2) NK cell", []),
        ("Final assignment:\n\n1) classical monocyte\n2) CD8 T cell", [(1, MONO), (2, T)]),
        ("Cell 3 shows MS4A1.\nNK cells are recognised by GNLY.", []),
        ("Cell 3 does not show the clear monocyte, NK, or T cell markers.", []),
        ("Cell 3 fits a B cell rather than a fully mature NK cell.", [(3, B)]),
        ("### Cell 3\n\nMS4A1.\n**Type:** B cell", [(3, B)]),
        ("Cell 2 is an NK cell. Cell 4 is a CD8 T cell. I should swap Cells 2 and 4.",
         [(2, NK), (4, T), (2, T), (4, NK)]),
    ],
)  # fmt: skip
def test_a_claim_is_read_where_a_cell_is_given_a_type(blood, text, expected):
    assert claims(blood, text) == expected


ANSWER = ("classical monocyte", "CD8-positive, alpha-beta T cell", "B cell", "natural killer cell")


def test_a_change_of_mind_is_reflection_and_a_slip_in_the_closing_list_is_none(blood):
    changed = (
        "Cell 2: NKG7, NK cell.\nWait, Cell 4 has GNLY. Cell 4 is the NK cell. "
        "So Cell 2 is a CD8 T cell."
    )
    found = detect(blood, Answer(ANSWER, changed))
    assert found.revised == (2,)
    assert found.conflicts == ()
    slip = (
        "Cell 2 has NKG7: NK cell. Cell 4 has GNLY: CD8 T cell.\n"
        "Cell 2: CD8 T cell\nCell 4: NK cell"
    )
    found = detect(blood, Answer(ANSWER, slip))
    assert not found.self_reflection
    assert found.concluded == {2: T, 4: NK}


def test_a_type_taken_by_another_cell_leaves_its_holder_open_not_in_conflict(blood):
    text = "Cell 2 is the NK cell by NKG7. Cell 4 is the NK cell by GNLY."
    found = detect(blood, Answer(ANSWER, text))
    assert found.concluded == {4: NK}
    assert found.conflicts == ()


def test_a_reasoning_that_says_nothing_has_no_behaviour(blood):
    for text in ("", "   \n", "I do not know.", "\u0000\ud83e\udd14" * 5, "Cell " * 1000):
        found = detect(blood, Answer(ANSWER, text))
        assert (found.self_reflection, found.elimination, found.comparison) == (False,) * 3
        assert found.order == found.discussed == found.conflicts == ()


def test_each_wrong_cell_has_the_error_its_reasoning_shows(blood):
    wrong = tuple(blood.candidates[j] for j in (NK, B, T, MONO))
    text = (
        "Cell 1 shows S100A8, classical monocyte. Cell 2 shows LYZ, B cell. "
        "Cell 3 does not fit well, so it takes CD8 T cell by default."
    )
    kinds = {
        1: ErrorType.CONCLUSION,
        2: ErrorType.INCORRECT,
        3: ErrorType.FORCED,
        4: ErrorType.NONE,
    }
    answer = Answer(wrong, text)
    genes = {gene for cell in blood.cells for gene in cell}
    assert error_types(blood, answer, detect(blood, answer), [False] * 4, genes) == kinds
    plausible = Answer(wrong, "Cell 4 shows NKG7, so it is the B cell.")
    found = error_types(blood, plausible, detect(blood, plausible), [True] * 3 + [False], genes)
    assert found == {4: ErrorType.PLAUSIBLE}


def no_evidence(genes, label, rival):
    return list(genes)


def test_the_teachers_own_steps_are_found_in_its_words(blood):
    """What was done is known here from the scores, not from a person or from these rules."""
    reflected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(4, 4))
        chosen = assign_jointly(scores).tolist()
        steps = find_steps(scores, chosen)
        told = tell(blood, chosen, scores, no_evidence, rng)
        found = detect(blood, Answer(tuple(blood.candidates[j] for j in chosen), told))
        revised = {step.cell + 1 for step in steps if step.kind.startswith("back")}
        assert set(found.revised) == revised
        assert list(found.order) == list(dict.fromkeys(step.cell + 1 for step in steps))
        assert found.elimination == any("last" in step.kind for step in steps)
        assert found.conflicts == ()
        assert len(found.discussed) == 4
        reflected += bool(revised)
    assert 5 < reflected < 55
