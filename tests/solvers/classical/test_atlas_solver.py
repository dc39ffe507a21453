"""The atlas as a solver: jointly, alone, all at once, with reasons that are true."""

import re
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from cello1.atlas.genes import current, is_housekeeping
from cello1.cli import app
from cello1.errors import InputError, UseError
from cello1.puzzles import universe
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.recipes import SolveSettings, checked
from cello1.scoring.score import score
from cello1.solvers.base import known_partly
from cello1.solvers.choose import choose_solver
from cello1.solvers.classical.atlas import evened

GENES = {
    "plasma cell": ["MALAT1", "IGKC", "JCHAIN", "MZB1", "IGHG1", "RPL10", "XBP1", "SSR4"],
    "hepatocyte": ["ALB", "APOA1", "TTR", "FGB", "SERPINA1", "FTL", "RPLP1", "APOC3"],
    "alveolar macrophage": ["FTL", "APOC1", "C1QB", "MARCO", "FABP4", "CD68", "LYZ"],
    "natural killer cell": ["NKG7", "GNLY", "CCL5", "KLRD1", "PRF1", "B2M", "MALAT1"],
    "vein endothelial cell": ["VWF", "ACKR1", "PECAM1", "IGFBP7", "SPARCL1", "FTH1"],
}


def puzzle(order: list[int], **meta: str) -> Puzzle:
    names = [list(GENES)[i] for i in order]
    return Puzzle("From the lung.", [GENES[n] for n in names], sorted(names), names, meta)


@pytest.fixture(scope="module")
def solver():
    return choose_solver(SolveSettings(solver="atlas"))


def test_solves_and_explains_with_genes_that_tell(solver, answers) -> None:
    asked = puzzle([3, 0, 4, 1, 2], tissue="lung")
    response = answers(solver, [asked])[asked.id]
    assert score(asked, response.text).exact
    assert response.probabilities.sum(axis=1) == pytest.approx(1)
    cited = re.findall(r"\b[A-Z][A-Z0-9-]+\b(?=[, ])", response.text)
    known = {gene for genes in GENES.values() for gene in genes} & set(cited)
    assert len(known) >= 5
    assert not [g for g in known if is_housekeeping(current(g))]


def test_one_by_one_and_all_at_once_are_equal_to_the_last_bit(answers) -> None:
    asked = [puzzle([0, 1, 2]), puzzle([4, 3, 2, 1], tissue="lung"), puzzle([1, 4], disease="x")]
    asked.append(puzzle([2, 0, 3, 4, 1]))
    together = answers(choose_solver(SolveSettings(solver="atlas")), asked)
    fresh = choose_solver(SolveSettings(solver="atlas"))
    with threadpool_limits(1):  # as a worker of a cluster has it
        for one in asked[::-1]:
            alone = answers(fresh, [one])[one.id]
            assert np.array_equal(alone.scores, together[one.id].scores)
            assert np.array_equal(alone.probabilities, together[one.id].probabilities)
            assert alone.text == together[one.id].text


def test_unlisted_genes_speak_where_the_puzzle_says_what_was_measured(solver, answers) -> None:
    table = [names[0] for names in universe.genes()]
    panel = [g for g in table if g not in {"CD79A", "MS4A1", "ALB"}][:1_767]
    notes = {"whole": universe.note_of(table), "panel": universe.note_of(panel)}
    asked = {name: puzzle([0, 1, 2, 4], universe=note) for name, note in notes.items()}
    asked["unknown"] = puzzle([0, 1, 2, 4])
    found = {name: answers(solver, [p])[p.id] for name, p in asked.items()}
    for name, response in found.items():
        assert score(asked[name], response.text).exact
        others = [r for n, r in found.items() if n != name]
        assert not any(np.allclose(response.scores, other.scores) for other in others)
    # Scored in one batch, each keeps its own.
    orders = {"whole": [1, 0, 2, 3], "panel": [2, 1, 0, 3], "unknown": [3, 1, 2, 0]}
    moved = {name: p.permute_cells(orders[name]) for name, p in asked.items()}
    together = answers(solver, list(moved.values()))
    for name, one in moved.items():
        wanted = found[name].scores[orders[name]]
        np.testing.assert_allclose(together[one.id].scores, wanted, atol=1e-5)


def test_a_damaged_note_of_measured_genes_is_one_clear_error(solver, answers) -> None:
    with pytest.raises(InputError, match="which cannot be read"):
        answers(solver, [puzzle([0, 1], universe="1:AAAA")])


def test_scores_are_evened_without_changing_a_cells_order() -> None:
    scores = np.array([[8.0, -4.0, -4.0], [1.0, 0.0, -1.0]])
    even = evened(scores, np.array([9, 21]))
    assert (even.argsort(axis=1) == scores.argsort(axis=1)).all()
    # The clear cell still has the larger scores, by less than before.
    assert 1 < even[0, 0] / even[1, 0] < 8
    np.testing.assert_allclose(evened(scores, np.array([36, 90])), even / 2)
    assert (evened(np.zeros((2, 2)), np.array([0, 0])) == 0).all()


def test_order_of_cells_moves_the_answer_and_nothing_else(solver, answers) -> None:
    asked = puzzle([0, 1, 2, 3, 4])
    moved = asked.permute_cells([2, 0, 4, 1, 3])
    first, second = (answers(solver, [p])[p.id].scores for p in (asked, moved))
    np.testing.assert_allclose(first[[2, 0, 4, 1, 3]], second, atol=1e-6)


def test_says_which_candidates_it_does_not_know_itself(solver) -> None:
    said = known_partly(solver, ["B cell", "vein endothelial cell", "blob", "T cell"])
    assert said == (
        "1 of 4 candidates is known only by relatives (vein endothelial cell), 1 not at all (blob)"
    )
    assert known_partly(solver, ["B cell", "T cell"]) is None
    assert known_partly(choose_solver(SolveSettings(solver="chance")), ["B cell"]) is None
    markers = choose_solver(SolveSettings(solver="markers"))
    assert (
        known_partly(markers, ["B cell", "blob"]) == "1 of 2 candidates is known not at all (blob)"
    )


def test_centroids_say_what_they_learned() -> None:
    learned = choose_solver(SolveSettings(solver="centroids"), [puzzle([0, 1, 2])])
    said = known_partly(learned, ["plasma cell", "hepatocyte", "natural killer cell"])
    assert said == "1 of 3 candidates is known not at all (natural killer cell)"


def test_settings_of_an_atlas_fit_the_atlas_only() -> None:
    with pytest.raises(UseError, match="without cannot be used with solver markers"):
        checked(SolveSettings, {"solver": "markers", "without": ["x"]})
    with pytest.raises(UseError, match="atlas_only needs"):
        checked(SolveSettings, {"solver": "atlas", "atlas_only": True})


def test_command_line_builds_shows_and_solves(tmp_path: Path) -> None:
    table = "gene," + ",".join(GENES) + "\n"
    for name in sorted({g for genes in GENES.values() for g in genes}):
        table += name + "," + ",".join("9" if name in own else "1" for own in GENES.values()) + "\n"
    (tmp_path / "mine.csv").write_text(table)
    (tmp_path / "r.yaml").write_text(
        "atlas: {sources: [{name: mine, profiles: mine.csv, tissue: lung}]}\n"
    )
    run = CliRunner().invoke

    def said(*words: str) -> str:
        done = run(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output

    made = tmp_path / "a"
    assert "5 of 5 types" in said("atlas", "build", str(tmp_path / "r.yaml"), "--out", str(made))
    assert "plasma cell" in said(
        "atlas", "types", "--tissue", "lung", "--atlas", str(made), "--atlas-only"
    )
    assert "JCHAIN" in said("atlas", "show", "plasma cell")
    assert "PanglaoDB" in said("atlas", "show", "--json")
    write_puzzles([puzzle([0, 1, 2])], tmp_path / "p.parquet")
    for more in ([], ["--atlas-only"]):
        out = tmp_path / f"run{len(more)}"
        said(
            "solve", str(tmp_path / "p.parquet"), "--solver", "atlas", "--atlas", str(made),
            "--out", str(out), *more,
        )  # fmt: skip
    for words, message in (
        (["atlas", "types", "--tissue", "the moon"], "no source is of the tissue"),
        (["atlas", "show", "plasma sell"], "is it plasma cell"),
        (["atlas", "build", str(tmp_path / "r.yaml")], "--out"),
    ):
        failed = run(app, words)
        assert failed.exit_code != 0
        assert message in str(failed.exception)
