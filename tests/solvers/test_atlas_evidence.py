"""Evidence in the prompt: true, compact, told apart from runs without it."""

import json
import re
from dataclasses import replace

import misbehaving as bad
import pytest

from cello1.errors import InputError, PuzzleError, UseError
from cello1.puzzles.prompt import (
    EVIDENCE_HEADING,
    evidence_section,
    has_evidence,
    messages,
    read_user_message,
    response_text,
    user_message,
    with_evidence,
)
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.recipes import DistillSettings, SolveSettings, checked
from cello1.report.gather import gather
from cello1.runs import read_records, read_run
from cello1.solvers.base import RemoteSolver, Response
from cello1.solvers.calibrated import same_solver
from cello1.solvers.choose import choose_solver, evidence_for
from cello1.solvers.evidence import GENES, NAMED, AtlasEvidence
from cello1.solvers.run import solve
from cello1.solvers.told import shown
from cello1.training.distill import distill as distilling
from cello1.training.distill.distill import distill
from cello1.training.run.traces import read_traces

LINE = re.compile(r"Cell (\d+): (.+)")
ITEM = re.compile(r"(.+) (\d+) %(?: \((.+)\))?")
STRANGE = Puzzle(
    "Blood.",
    [["CD79A", "MS4A1", "RPL3"], ["CD3D", "CD3E", "RPL4"], ["ZZ1", "ZZ2"]],
    ["T cell", "B cell", "cell of my own (50 %: CD3D)"],
)


@pytest.fixture(scope="module")
def atlas():
    return AtlasEvidence()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = bad.Server()
    yield server
    server.stop()


def items(puzzle):
    """Read a section back: for each cell (label, percent, genes)."""
    lines = evidence_section(puzzle).strip().split("\n")
    assert lines[0] == EVIDENCE_HEADING
    found = [LINE.fullmatch(line) for line in lines[1 : 1 + len(puzzle.cells)]]
    assert [int(m[1]) for m in found] == [*range(1, len(puzzle.cells) + 1)]
    each = [[ITEM.fullmatch(item).groups() for item in m[2].split(" | ")] for m in found]
    return [[(a, int(b), c.split(", ") if c else []) for a, b, c in items] for items in each]


def test_it_names_candidates_and_genes_of_the_cell_and_is_right_where_markers_are(atlas, toys):
    for puzzle in atlas(toys):
        for cell, said, gold in zip(puzzle.cells, items(puzzle), puzzle.answer, strict=True):
            assert 1 <= len(said) <= NAMED
            assert [p for _, p, _ in said] == sorted((p for _, p, _ in said), reverse=True)
            assert sum(p for _, p, _ in said) <= 101
            assert all(len(genes) <= GENES and {*genes} <= {*cell} for _, _, genes in said)
            assert {label for label, _, _ in said} <= {*puzzle.candidates}
            assert said[0][0] == gold
        assert len(evidence_section(puzzle)) < 200 * len(puzzle.cells)


def test_the_row_stays_as_it_is(atlas, toys, tmp_path):
    told = atlas(toys)
    assert [p.id for p in told] == [p.id for p in toys]
    for before, after in zip(toys, told, strict=True):
        assert user_message(after) == user_message(before)
        assert messages(after)[0] == messages(before)[0]
        assert messages(after)[1].content == user_message(before) + evidence_section(after)
        assert read_user_message(user_message(after)).candidates == before.candidates
    write_puzzles(told, tmp_path / "told.parquet")
    again = read_puzzles(tmp_path / "told.parquet")
    assert [messages(p) for p in again] == [messages(p) for p in told]


def test_it_says_what_it_does_not_know_and_a_label_cannot_forge_it(atlas):
    (told,) = atlas([STRANGE])
    last = evidence_section(told).split("\n")[-1]
    assert last == f"It knows nothing of: {STRANGE.candidates[2]}"
    said = items(told)
    assert said[0][0][0] == "B cell"
    assert said[1][0][0] == "T cell"
    assert said[2][0][2] == []


def test_permuting_cells_moves_their_evidence(atlas, toys):
    (told,) = atlas(toys[:1])
    moved = told.permute_cells([3, 1, 0, 2])
    assert items(moved) == [items(told)[i] for i in (3, 1, 0, 2)]


@pytest.mark.parametrize(
    ("cells", "known"),
    [
        ([[("B cell", 90, ())]], {}),
        ([[("neuron", 90, ())], [], []], {}),
        ([[("B cell", 90, ("XIST",))], [], []], {}),
        ([[], [], []], {"not at all": ["x\ny"]}),
    ],
)
def test_evidence_that_does_not_fit_is_refused(cells, known):
    with pytest.raises(PuzzleError, match="evidence"):
        messages(with_evidence(STRANGE, cells, known))


@pytest.mark.parametrize("told", ["text", [[["B cell", "many", []]], [], []], [[1], [], []]])
def test_damaged_evidence_is_one_clear_error(told):
    with pytest.raises(PuzzleError, match="evidence"):
        messages(replace(STRANGE, meta={"cell_evidence": told}))


@pytest.mark.parametrize("solver", ["chance", "markers", "centroids", "atlas", "atlas+mini"])
def test_it_is_for_solvers_that_read_text(solver):
    with pytest.raises(UseError, match="evidence cannot be used with solver"):
        checked(SolveSettings, {"solver": solver, "evidence": "atlas"})


def test_an_atlas_can_leave_studies_out_of_the_evidence():
    asked = {"solver": "openai:m", "evidence": "atlas", "without": ["nobody"]}
    with pytest.raises(InputError, match="nobody"):
        choose_solver(checked(SolveSettings, asked))
    with pytest.raises(UseError, match="without cannot be used"):
        checked(SolveSettings, {**asked, "evidence": None})


@pytest.mark.parametrize("samples", [1, 3])
def test_a_server_gets_it_and_the_estimate_counts_it(server, toys, samples):
    more = {"base_url": server.url, "samples": samples, "permute": samples > 1}
    plain = choose_solver(SolveSettings(solver="openai:m", **more))
    solver = choose_solver(SolveSettings(solver="openai:m", evidence="atlas", **more))
    assert isinstance(solver, RemoteSolver)
    chats = [chat[1]["content"] for chat in solver.dry_run(toys[:3])]
    assert len(chats) == 3 * samples
    assert all(EVIDENCE_HEADING in chat for chat in chats)
    assert solver.estimate(toys)["prompt_tokens"] > plain.estimate(toys)["prompt_tokens"]
    found = {}
    solver.solve(toys[:3], found.__setitem__)
    assert set(found) == {p.id for p in toys[:3]}
    assert all(isinstance(r, Response) for r in found.values())
    sent = [body["messages"][1]["content"] for body in server.bodies()]
    assert sorted(sent) == sorted(chats)


def test_a_local_model_reads_it_in_both_decodings(tiny_model, toys, answers):
    for decode in ("generate", "assign"):
        settings = {"solver": f"hf:{tiny_model}", "decode": decode, "max_new_tokens": 4}
        plain = choose_solver(SolveSettings(**settings))
        told = choose_solver(SolveSettings(**settings, evidence="atlas"))
        assert told.name == f"{plain.name} with evidence"
        assert [*map(has_evidence, shown(told, toys[:2]))] == [True, True]
        a, b = answers(plain, toys[:2]), answers(told, toys[:2])
        assert all(b[i].prompt_tokens > a[i].prompt_tokens for i in a)


def test_runs_with_and_without_it_never_mix(tiny_model, toys, tmp_path):
    write_puzzles(toys[:2], tmp_path / "p.parquet")
    asked = {"solver": f"hf:{tiny_model}", "max_new_tokens": 4}
    told = solve(tmp_path / "p.parquet", SolveSettings(**asked, evidence="atlas"), tmp_path / "a")
    plain = solve(tmp_path / "p.parquet", SolveSettings(**asked), tmp_path / "b")
    config = read_run(told)["config"]
    assert config["prompt"] == "1+atlas-1"
    assert config["evidence"]["from"] == "atlas"
    assert "evidence" not in read_run(plain)["config"]
    assert not same_solver(told, plain)
    with pytest.raises(InputError, match="evidence"):
        solve(tmp_path / "p.parquet", SolveSettings(**asked), told)
    names = [run.solver for run in gather([told, plain]).solved]
    assert names[0] == f"{names[1]}, with evidence of the atlas (prompt 1+atlas-1)"


def test_rows_that_come_with_it_are_asked_without_unless_it_is_asked_for(
    atlas, tiny_model, toys, tmp_path
):
    write_puzzles(atlas(toys[:2]), tmp_path / "told.parquet")
    write_puzzles(toys[:2], tmp_path / "plain.parquet")
    asked = SolveSettings(solver=f"hf:{tiny_model}", max_new_tokens=4)
    tokens = []
    for name in ("told", "plain"):
        run = solve(tmp_path / f"{name}.parquet", asked, tmp_path / name)
        tokens.append({r["id"]: r["prompt_tokens"] for r in read_records(run)})
    assert tokens[0] == tokens[1]


def test_traces_keep_what_the_teacher_saw(server, toys, tmp_path):
    write_puzzles(toys[:3], tmp_path / "p.parquet")
    gold = {user_message(p): p.answer for p in toys}

    def answer(handler, body):
        question, heading, _ = body["messages"][1]["content"].partition(f"\n\n{EVIDENCE_HEADING}")
        text = response_text("Read.", gold[question]) if heading else "no evidence"
        handler.send(200, bad.completion({"role": "assistant", "content": text}))

    server.script = [answer]
    settings = DistillSettings(
        teacher="openai:m", samples=1, evidence="atlas",
        options={"base_url": server.url, "without": ["PanglaoDB"]},
    )  # fmt: skip
    made = distill(tmp_path / "p.parquet", tmp_path / "run", settings)
    traces = read_traces(made.folder / distilling.TRACES)
    assert len(traces) == 3
    sent = {body["messages"][1]["content"] for body in server.bodies()}
    assert {messages(trace)[1].content for trace in traces} == sent


def test_the_option_of_a_teacher_is_the_setting_of_the_distillation():
    with pytest.raises(UseError, match="options cannot set evidence"):
        checked(DistillSettings, {"options": {"evidence": "atlas"}})


def test_an_offline_teacher_makes_traces_with_it_and_resumes_only_the_same(toys, tmp_path):
    write_puzzles(toys[:8], tmp_path / "p.parquet")
    settings = DistillSettings(teacher="markers", samples=1, evidence="atlas")
    made = distill(tmp_path / "p.parquet", tmp_path / "run", settings)
    traces = read_traces(made.folder / distilling.TRACES)
    assert traces
    assert all(EVIDENCE_HEADING in messages(trace)[1].content for trace in traces)
    assert json.loads((made.folder / "run.json").read_text())["config"]["prompt"] == "1+atlas-1"
    with pytest.raises(InputError, match="evidence"):
        distill(
            tmp_path / "p.parquet", tmp_path / "run", DistillSettings(teacher="markers", samples=1)
        )


def test_evidence_of_settings_is_that_of_their_atlas():
    tell = evidence_for(SolveSettings(solver="atlas"))
    assert tell.settings["evidence"]["without"] == []
