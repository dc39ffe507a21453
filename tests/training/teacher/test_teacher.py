import re

import numpy as np
import pytest

from cello1.citations.citations import citations, gene_vocabulary
from cello1.errors import InputError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.scoring.score import score
from cello1.solvers.assign import assign_jointly
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.classical.markers import Markers
from cello1.training.teacher.steps import find_steps
from cello1.training.teacher.teacher import Teacher, bias_towards, tell
from cello1.training.teacher.wording import HARD_WORDS, clause

LINE = re.compile(r"(?:Back to )?Cell \d+\b")


def reasoning(text: str) -> str:
    response = parse_response(text)
    assert isinstance(response, Answer)
    return response.reasoning


@pytest.fixture(params=["markers", "centroids"])
def expert(request, kang):
    if request.param == "markers":
        return Markers.from_file()
    return Centroids(read_puzzles(kang / "train.parquet"))


def test_on_real_cells_every_gene_is_true_and_lines_are_short(kang, expert):
    puzzles = read_puzzles(kang / "train.parquet")
    vocabulary, cited = gene_vocabulary(puzzles), 0
    for sample, hint in ((0, False), (1, False), (0, True)):
        teacher = Teacher(expert, sample=sample, hint=hint)
        for puzzle in puzzles:
            text = reasoning(teacher.answer(puzzle).text)
            found = citations(puzzle, text, vocabulary)
            cited += len(found)
            assert all(c.true for c in found)
            assert text.startswith(("Blood, ", "Context: Blood, "))
            *lines, closing = text.split("\n")[1:]
            assert closing.startswith("In order: Cell 1 is ")
            for line in lines:
                assert LINE.match(line)
                # Only two long labels in one sentence may go beyond what is aimed at.
                plain = re.sub("|".join(map(re.escape, puzzle.candidates)), "X", line)
                assert len(plain.split()) <= HARD_WORDS
    assert cited > 15 * len(puzzles)


def test_every_gene_cited_has_a_comma_and_a_blank_behind_it(kang, expert):
    puzzles = read_puzzles(kang / "train.parquet")
    vocabulary = gene_vocabulary(puzzles)
    teacher = Teacher(expert)
    for puzzle in puzzles:
        text = reasoning(teacher.answer(puzzle).text)
        for label in sorted(puzzle.candidates, key=len, reverse=True):
            text = text.replace(label, "TYPE")
        for gene in {c.gene for c in citations(puzzle, text, vocabulary)}:
            assert re.findall(rf"(?<![\w-]){re.escape(gene)}(?![\w-])(?!, )", text) == []


def test_every_cell_ends_with_the_type_it_is_told_to_have(kang, expert):
    teacher = Teacher(expert, sample=2)
    for puzzle in read_puzzles(kang / "train.parquet"):
        response = parse_response(teacher.answer(puzzle).text)
        for i, label in enumerate(response.labels, start=1):
            lines = [
                x
                for x in response.reasoning.split("\n")
                if re.search(rf"^(Back to )?Cell {i}\b", x)
            ]
            assert label in lines[-1]
        closing = "; ".join(f"Cell {i} is {x}" for i, x in enumerate(response.labels, start=1))
        assert response.reasoning.endswith(f"\nIn order: {closing}.")


def test_surest_first_and_the_last_by_elimination(toys):
    for puzzle in toys:
        lines = reasoning(Teacher(Markers.from_file()).answer(puzzle).text).split("\n")
        assert re.search(r"eliminat", lines[-2])
        steps = find_steps(
            Markers.from_file().scores(puzzle),
            assign_jointly(Markers.from_file().scores(puzzle)).tolist(),
        )
        assert steps[0].margin == max(s.margin for s in steps if s.kind == "settle")


# The surest lead is cell 1's for A, but cell 2 can take nothing else.
CONFLICT = np.array([[0, -3, -3.5], [0, -2, -20], [-1.5, 0, -20]], dtype=float)


def conflict() -> Puzzle:
    return Puzzle("", [["GA", "GC"], ["GA2", "GX"], ["GB", "GY"]], ["A", "B", "C"], ["C", "A", "B"])


def evidence(genes, label, rival):
    return [gene for gene in genes if gene.startswith(f"G{label}")]


def test_an_earlier_choice_is_revised_when_a_later_cell_needs_the_type():
    puzzle, chosen = conflict(), assign_jointly(CONFLICT).tolist()
    assert chosen == [2, 0, 1]
    steps = [(s.kind, s.cell, s.label) for s in find_steps(CONFLICT, chosen)]
    assert steps == [("settle", 0, 0), ("settle", 2, 1), ("take", 1, 0), ("back_last", 0, 2)]
    lines = tell(puzzle, chosen, CONFLICT, evidence, np.random.default_rng(0)).split("\n")
    assert lines[1].startswith("Cell 1")
    assert "A" in lines[1]
    assert lines[3].startswith("Cell 2")
    assert "Cell 1" in lines[3]
    assert lines[4].startswith("Back to Cell 1:")
    assert "C" in lines[4]


def test_any_assignment_can_be_told_and_every_cell_ends_where_it_should():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(2, 7))
        m = n + int(rng.integers(0, 3))
        scores = rng.normal(size=(n, m)) * 4
        chosen = rng.permutation(m)[:n].tolist()
        final = {}
        for step in find_steps(scores, chosen):
            final[step.cell] = step.label
        assert [final[i] for i in range(n)] == chosen


def test_steering_makes_a_known_answer_the_best_and_no_more_than_that():
    rng = np.random.default_rng(1)
    for _ in range(100):
        scores = rng.normal(size=(5, 6)) * 3
        gold = rng.permutation(6)[:5].tolist()
        assert assign_jointly(bias_towards(scores, gold)).tolist() == gold
        best = assign_jointly(scores).tolist()
        np.testing.assert_array_equal(bias_towards(scores, best), scores)


def test_a_hint_makes_every_response_right(toys):
    teacher = Teacher(Markers.from_file(), sample=3, temperature=30.0, hint=True)
    blind = Teacher(Markers.from_file(), sample=3, temperature=30.0)
    assert all(score(p, teacher.answer(p).text).exact for p in toys)
    assert not all(score(p, blind.answer(p).text).exact for p in toys)
    bare = Puzzle("", toys[0].cells, toys[0].candidates)
    with pytest.raises(InputError, match="no answer"):
        teacher.answer(bare)


def test_wording_varies_by_puzzle_and_sample_and_is_repeatable(toys):
    expert = Markers.from_file()
    texts = [Teacher(expert).answer(p).text for p in toys]
    assert texts == [Teacher(expert).answer(p).text for p in toys]
    assert texts != [Teacher(expert, seed=1).answer(p).text for p in toys]
    assert len({reasoning(t).split("\n")[0] for t in texts}) == 4
    verbs = {
        line.split()[2] for t in texts for line in t.split("\n") if re.match(r"Cell \d+ \w", line)
    }
    assert {"shows", "lists", "has", "expresses", "carries"} <= verbs
    puzzle = toys[0]
    assert len({Teacher(expert, sample=k).answer(puzzle).text for k in range(8)}) > 4


def test_a_cell_without_telling_genes_is_said_to_have_none(toys):
    blank = Puzzle("", [["XA", "XB"], ["XC", "XD"]], ["a", "b"], ["a", "b"])
    text = reasoning(Teacher(Markers.from_file()).answer(blank).text)
    assert "no telling gene" in text or "nothing decides" in text
    assert not re.search(r"X[A-D]", text)


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (
            "These cells were taken from blood of one donor. The donor was diagnosed with lupus.",
            "Blood, lupus",
        ),
        (
            "The cell is from a female at the 73-year-old stage, originating from the lung. The "
            "patient has been diagnosed with chronic obstructive pulmonary disease. ",
            "Lung, chronic obstructive pulmonary disease",
        ),
        ("Liver sample. More.", "Liver sample"),
        ("", "No context"),
    ],
)
def test_the_context_is_said_in_one_clause(context, said):
    assert clause(context) == said


def test_as_listed_no_cell_is_left_out_or_taken_back_and_every_gene_is_true(kang, expert):
    puzzles = read_puzzles(kang / "train.parquet")
    vocabulary = gene_vocabulary(puzzles)
    teacher = Teacher(expert, order="listed")
    for puzzle in puzzles:
        response = teacher.answer(puzzle)
        said = parse_response(response.text)
        assert isinstance(said, Answer)
        *lines, last = said.reasoning.split("\n")
        assert last == ""
        for i, (line, label) in enumerate(zip(lines, said.labels, strict=True), start=1):
            begins = re.escape(f"Cell {i} is {label}")
            assert re.fullmatch(rf"{begins}(: .+, among others)?\.", line)
        assert all(c.true for c in citations(puzzle, said.reasoning, vocabulary))
        assert "Back to" not in said.reasoning
        # Both orders tell of the same assignment.
        assert said.labels == parse_response(Teacher(expert).answer(puzzle).text).labels


def test_drafts_name_the_two_best_of_each_cell_alone_and_then_each_type_goes_once(kang, expert):
    puzzles = read_puzzles(kang / "train.parquet")
    vocabulary, disputed = gene_vocabulary(puzzles), 0
    for puzzle in puzzles:
        text = Teacher(expert, order="drafted").answer(puzzle).text
        said = parse_response(text)
        assert isinstance(said, Answer)
        assert all(c.true for c in citations(puzzle, said.reasoning, vocabulary))
        *lines, last = said.reasoning.split("\n")
        assert last == ""
        n = len(puzzle.cells)
        drafts, heading, given = lines[:n], lines[n], lines[n + 1 :]
        assert heading == "Each type once:"
        firsts = []
        for i, (draft, row) in enumerate(zip(drafts, expert.scores(puzzle), strict=True), start=1):
            first, second = (puzzle.candidates[j] for j in np.argsort(-row, kind="stable")[:2])
            begins = re.escape(f"Cell {i} is {first} or {second}")
            assert re.fullmatch(rf"{begins}(: .+, among others)?\.", draft)
            firsts.append(first)
        disputed += len(set(firsts)) < n
        for i, (line, label) in enumerate(zip(given, said.labels, strict=True), start=1):
            assert line == f"Cell {i} is {label}."
        assert said.labels == parse_response(Teacher(expert).answer(puzzle).text).labels
    assert disputed  # there is something to settle
