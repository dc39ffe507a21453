import re

import pytest

from cello1.puzzles.answer import Answer, parse_response
from cello1.scoring.score import score
from cello1.solvers.classical.centroids import Centroids
from cello1.solvers.classical.chance import Chance
from cello1.solvers.classical.expert import ClassicalSolver
from cello1.solvers.classical.markers import Markers

CELL = re.compile(r"^Cell (\d+)[ :]")
SYMBOL = re.compile(r"\b(?:RPL\d+|MS4A1|CD\w+|TRAC|LYZ|S100A8|PPBP|PF4|GP9)\b")
PROBABILITY = re.compile(r"probability (\d\.\d\d)")


@pytest.fixture(params=["markers", "centroids", "chance"])
def expert(request, toys):
    if request.param == "markers":
        return Markers.from_file()
    return Centroids(toys[:40]) if request.param == "centroids" else Chance()


@pytest.mark.parametrize("joint", [True, False])
def test_every_response_is_well_formed_and_every_cited_gene_is_in_the_list(expert, toys, joint):
    solver = ClassicalSolver(expert, joint=joint)
    for puzzle in toys[40:]:
        response = parse_response(solver.answer(puzzle).text)
        assert isinstance(response, Answer)
        lines = [line for line in response.reasoning.split("\n") if CELL.match(line)]
        assert sorted(int(CELL.match(line)[1]) for line in lines) == [1, 2, 3, 4]
        for line in lines:
            cited = set(SYMBOL.findall(line))
            assert cited <= set(puzzle.cells[int(CELL.match(line)[1]) - 1])


def test_surest_cells_come_first_and_the_last_goes_by_elimination(toys):
    solver = ClassicalSolver(Centroids(toys[:40]))
    for puzzle in toys[40:]:
        lines = solver.answer(puzzle).text.split("</think>")[0].split("\n")[1:]
        shares = [float(m[1]) for line in lines if (m := PROBABILITY.search(line))]
        assert shares == sorted(shares, reverse=True)
        assert "by elimination" in lines[-1]


def test_the_reasoning_and_the_answer_agree(toys):
    solver = ClassicalSolver(Centroids(toys[:40]))
    for puzzle in toys[40:]:
        response = parse_response(solver.answer(puzzle).text)
        for line in response.reasoning.split("\n")[1:]:
            cell = int(CELL.match(line)[1]) - 1
            assert response.labels[cell] in line.split("Next comes")[0].split("Its rival")[0]


def test_alone_no_type_is_ever_taken(toys):
    solver = ClassicalSolver(Centroids(toys[:40]), joint=False)
    for puzzle in toys[40:]:
        text = solver.answer(puzzle).text
        assert "is taken by" not in text
        assert "elimination" not in text


def test_markers_and_centroids_solve_easy_puzzles(toys):
    for expert in (Markers.from_file(), Centroids(toys[:40])):
        solver = ClassicalSolver(expert)
        exact = [score(p, solver.answer(p).text).exact for p in toys[40:]]
        assert sum(exact) >= 18


def test_chance_is_uniform_and_repeats_itself(toys):
    jointly = ClassicalSolver(Chance(seed=1))
    texts = [jointly.answer(p).text for p in toys]
    assert texts == [jointly.answer(p).text for p in toys]
    assert texts != [ClassicalSolver(Chance(seed=2)).answer(p).text for p in toys]
    right = sum(score(p, t).cell_accuracy for p, t in zip(toys, texts, strict=True)) / len(toys)
    assert 0.1 < right < 0.4  # 1/4 expected, 60 puzzles of 4 cells


def test_symbols_look_as_the_test_expects(toys):
    assert all(SYMBOL.fullmatch(g) for p in toys for genes in p.cells for g in genes)
