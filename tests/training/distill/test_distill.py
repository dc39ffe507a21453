import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from cello1.citations.citations import citations, gene_vocabulary
from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import messages, response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import FILTERS, read_puzzles, write_puzzles
from cello1.recipes import DistillSettings, SolveSettings
from cello1.runs import read_records
from cello1.scoring.score import score
from cello1.solvers.base import Failure, RemoteSolver, Response
from cello1.solvers.choose import choose_solver
from cello1.training.distill import distill as module
from cello1.training.distill.acceptance import answers_early, check_response, choose
from cello1.training.distill.choose_teacher import choose_teacher, hinted, hinting
from cello1.training.distill.distill import distill
from cello1.training.run.traces import read_traces, response_of

VOCABULARY = frozenset({"MS4A1", "CD3D", "LYZ"})
PAIR = Puzzle("", [["MS4A1", "RPL1"], ["CD3D", "RPL2"]], ["T cell", "B cell"], ["B cell", "T cell"])


def on(**values) -> DistillSettings:
    return DistillSettings(**values)


@pytest.fixture
def file(toys, tmp_path):
    write_puzzles(toys, tmp_path / "puzzles.parquet")
    return tmp_path / "puzzles.parquet"


class Scripted:
    """Says to each puzzle what a function of (puzzle, sample) tells it to."""

    def __init__(self, say, sample):
        self.say, self.sample, self.name = say, sample, "scripted"
        self.settings = {"solver": "scripted"}

    def solve(self, puzzles, on_done):
        for puzzle in puzzles:
            said = self.say(puzzle, self.sample)
            on_done(puzzle.id, said if isinstance(said, Failure) else Response(said))


@pytest.fixture
def script(monkeypatch):
    def use(say):
        chosen = lambda *a: lambda k: Scripted(say, k)  # noqa: E731
        monkeypatch.setattr(module, "choose_teacher", chosen)

    return use


def right(puzzle, words="I think."):
    return response_text(words, puzzle.answer)


def wrong(puzzle):
    return response_text("I think.", (*puzzle.answer[1:], puzzle.answer[0]))


def test_real_puzzles_become_true_traces_in_the_published_columns(kang, tmp_path):
    settings = on(teacher="centroids", samples=3, per_puzzle=2)
    made = distill(kang / "train.parquet", tmp_path, settings)
    traces = read_traces(tmp_path / "reasoning.parquet")
    asked = {p.id: p for p in read_puzzles(kang / "train.parquet")}
    vocabulary = gene_vocabulary(asked.values())
    assert all(score(asked[t.id], response_of(t)).exact for t in traces)
    assert all(c.true for t in traces for c in citations(t, response_of(t), vocabulary))
    assert {t.meta["teacher"] for t in traces} == {"centroids"}
    assert not any("hint" in t.meta for t in traces)
    m = made.metrics
    assert m["true_citations"] == 1.0
    assert 0.2 < m["acceptance"] < 0.9
    assert m["solved"] == len({t.id for t in traces})
    assert sum(g["solved"] for g in m["by"]["n_cells"].values()) == m["solved"]
    assert m["by"]["tissue"]["blood"]["puzzles"] == m["puzzles"] == len(asked)
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").open()]
    assert len(rejected) == sum(m["rejected"].values())
    assert all(r["reason"] for r in rejected)
    frame = pd.read_parquet(tmp_path / "reasoning.parquet")
    assert list(frame.columns[:3]) == ["system_msg", "user_msg", "assistant_msg"]
    assert {"id", "n_cells", "meta", *FILTERS} <= set(frame.columns)


def test_the_file_loads_with_datasets(file, tmp_path):
    datasets = pytest.importorskip("datasets")
    distill(file, tmp_path / "run", on(teacher="markers", samples=1))
    rows = datasets.Dataset.from_parquet(
        str(tmp_path / "run/reasoning.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert rows[0]["assistant_msg"].startswith("<think>")


def test_centroids_never_learn_from_the_donor_they_are_asked_about(toys):
    teacher = choose_teacher(on(teacher="centroids"), toys)(0)
    for donor, fold in teacher.folds.items():
        strange = Puzzle(
            "", [["ZZ1"], ["ZZ2"]], ["B cell", "T cell"], ["B cell", "T cell"], {"donor_id": donor}
        )
        again = choose_teacher(on(teacher="centroids"), [*toys, strange])(0)
        assert "ZZ1" not in again.teachers[fold].expert.genes
        assert any("ZZ1" in t.expert.genes for t in again.teachers)


def test_hint_is_marked_and_always_right(file, toys, tmp_path):
    made = distill(file, tmp_path / "run", on(teacher="markers", samples=1, hint=True))
    traces = read_traces(tmp_path / "run/reasoning.parquet")
    assert len(traces) == len(toys)
    assert all(t.meta["hint"] is True for t in traces)
    assert made.metrics["hint"] is True


def test_a_language_model_with_a_hint_sees_the_answer_and_the_trace_does_not(toys):
    told = hinted(toys[0])
    assert " | ".join(toys[0].answer) in messages(told)[0].content
    assert told.id == toys[0].id
    assert "system_msg" not in toys[0].meta


def test_a_sample_of_a_language_model_is_its_own(toys):
    settings = on(teacher="openai:m", samples=4, options={"base_url": "http://127.0.0.1:9/v1"})
    teacher = choose_teacher(settings, toys)
    assert [teacher(k).settings["sample"] for k in range(4)] == [0, 1, 2, 3]
    assert teacher(2).settings["temperature"] == 1.0


def test_rejected_for_format_and_wrong_cells(toys, script, file, tmp_path):
    script(lambda p, k: [right(p), wrong(p), "no tags"][k])
    made = distill(file, tmp_path / "run", on(samples=3))
    assert made.metrics["rejected"] == {"format": len(toys), "wrong": len(toys)}
    assert made.metrics["response_acceptance"] == pytest.approx(1 / 3, abs=1e-6)
    reasons = {json.loads(line)["reason"] for line in (tmp_path / "run/rejected.jsonl").open()}
    assert reasons == {"4 of 4 cells are wrong", "<think> appears 0 times instead of once"}


@pytest.mark.parametrize(
    ("settings", "words", "kind"),
    [
        (on(min_words=3), "Too short.", "length"),
        (on(max_words=2), "This is too long.", "length"),
        (on(min_true_genes=1.0), "Cell 1 has MS4A1 and LYZ.", "genes"),
        (on(min_true_genes=0.5), "Cell 1 has MS4A1 and LYZ.", "accepted"),
        (on(min_true_genes=1.0), "Cell 1 has MS4A1, cell 2 too. Cell 2 has LYZ.", "genes"),
        (on(min_true_genes=1.0), "Cell 1 has MS4A1 and no CD3D.\nCell 2: CD3D.", "accepted"),
        (on(min_true_genes=0.1), "No gene at all.", "genes"),
        (on(no_early_answer=True), "B cell, then T cell.\nCell 1 has MS4A1.", "early answer"),
        (on(no_early_answer=True), "On offer: T cell, B cell.\nCell 1 has MS4A1.", "accepted"),
        (on(), "Too short. B cell, T cell. Cell 1 has LYZ.", "accepted"),
    ],
)
def test_filters_refuse_what_they_must(settings, words, kind):
    verdict = check_response(PAIR, right(PAIR, words), settings, VOCABULARY)
    assert verdict.kind == kind
    assert verdict.accepted == (kind == "accepted")


def test_a_type_named_like_a_gene_is_no_citation():
    puzzle = Puzzle("", [["CD4"], ["CD8A"]], ["CD8A T cell", "CD4 T cell"], None)
    text = "Cell 1 is not CD8A T cell but CD4 T cell.\nCell 2 has CD4."
    found = citations(puzzle, text, frozenset({"CD4", "CD8A"}))
    assert [(c.cell, c.gene, c.true) for c in found] == [(2, "CD4", False)]


def test_the_answer_in_cell_order_before_any_gene_is_a_leak():
    assert answers_early(PAIR, "B cell | T cell since MS4A1", VOCABULARY)
    assert not answers_early(PAIR, "MS4A1 so B cell, T cell", VOCABULARY)


def test_what_is_kept_of_several_accepted(toys):
    puzzle = PAIR
    texts = ["Cell 1 has MS4A1. Cell 2 has CD3D. Long it is.", "Short.", "Cell 1 has MS4A1 here."]
    records = [{"text": right(puzzle, t), "sample": k} for k, t in enumerate(texts)]

    def kept(**values):
        chosen = choose(puzzle, records, on(**values), VOCABULARY)
        return [r["sample"] for r in chosen]

    assert kept(keep="shortest") == [1]
    assert kept(keep="longest") == [0]
    assert kept(keep="best_supported", per_puzzle=2) == [0, 2]
    assert sorted(kept(keep="random", per_puzzle=9)) == [0, 1, 2]
    assert {kept(keep="random", seed=s)[0] for s in range(20)} == {0, 1, 2}
    records.append({"text": records[1]["text"], "sample": 3})
    assert kept(keep="shortest", per_puzzle=9) == [1, 2, 0]


def test_with_a_target_only_the_unsolved_are_asked_again(toys, script, file, tmp_path):
    easy = {p.id for p in toys[:10]}
    script(lambda p, k: right(p) if p.id in easy or k == 2 else wrong(p))
    made = distill(file, tmp_path / "run", on(samples=5, target=25))
    asked = [(r["puzzle"], r["sample"]) for r in read_records(tmp_path / "run")]
    assert {p for p, k in asked if k == 0} == {p.id for p in toys}
    assert {p for p, k in asked if k == 1} == {p.id for p in toys} - easy
    assert max(k for _, k in asked) == 2
    assert made.metrics["traces"] == 25
    assert easy <= {t.id for t in read_traces(tmp_path / "run/reasoning.parquet")}


def test_failures_are_owed_and_asked_again(script, file, tmp_path):
    script(lambda p, k: Failure("line is dead") if int(p.id, 16) % 2 else right(p))
    made = distill(file, tmp_path / "run", on(samples=1))
    assert made.owed > 0
    assert made.why == "line is dead"
    script(lambda p, k: right(p))
    again = distill(file, tmp_path / "run", on(samples=1))
    assert again.owed == 0
    assert again.metrics["traces"] == 40


def test_nothing_accepted_is_one_clear_error(script, file, tmp_path):
    script(lambda p, k: wrong(p))
    with pytest.raises(
        InputError, match=r"none of the 40 responses of scripted was accepted.*hint"
    ):
        distill(file, tmp_path / "run", on(samples=1))
    assert not (tmp_path / "run/reasoning.parquet").exists()


def test_puzzles_without_answers_are_refused(toys, tmp_path):
    bare = Puzzle("", toys[1].cells, toys[1].candidates)
    write_puzzles([toys[0], bare], tmp_path / "p.parquet")
    with pytest.raises(InputError, match="1 of 2 puzzles without an answer, the first in row 2"):
        distill(tmp_path / "p.parquet", tmp_path / "run", on())


def test_another_setting_does_not_mix_into_a_run(file, tmp_path):
    distill(file, tmp_path / "run", on(teacher="markers", samples=1))
    with pytest.raises(InputError, match="keep was 'shortest' and is now 'longest'"):
        distill(file, tmp_path / "run", on(teacher="markers", samples=1, keep="longest"))


def test_unknown_teachers_and_options_are_wrong_use(toys):
    with pytest.raises(UseError, match="no solver 'oracle'"):
        choose_teacher(on(teacher="oracle"), toys)
    with pytest.raises(UseError, match="speed"):
        choose_teacher(on(teacher="markers", options={"speed": 3}), toys)
    with pytest.raises(ValueError, match="options cannot set samples"):
        on(options={"samples": 3})


def test_killed_and_resumed_gives_the_same_traces(file, tmp_path):
    command = [sys.executable, "-c", KILLED, str(file), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    process = subprocess.run(command, env=environment, check=False)
    assert process.returncode == -signal.SIGKILL
    with (tmp_path / "killed/responses.jsonl").open("ab") as torn:
        torn.write(b'{"id": "half a li')
    before = {r["id"] for r in read_records(tmp_path / "killed")}
    assert len(before) == 30
    settings = on(teacher="centroids", samples=3, temperature=8.0, target=38)
    distill(file, tmp_path / "killed", settings)
    distill(file, tmp_path / "whole", settings)
    ids = [r["id"] for r in read_records(tmp_path / "killed")]
    assert len(ids) == len(set(ids))
    assert before < set(ids)
    for name in ("reasoning.parquet", "rejected.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


KILLED = """
import os, signal, sys
from cello1.recipes import DistillSettings
from cello1.training.distill.distill import distill
def die(done, total):
    if done == 30:
        os.kill(os.getpid(), signal.SIGKILL)
settings = DistillSettings(teacher="centroids", samples=3, temperature=8.0, target=38)
distill(sys.argv[1], sys.argv[2], settings, watch=die)
"""


def test_the_verb_prints_a_table_and_resumes(file, tmp_path):
    from typer.testing import CliRunner

    from cello1.cli import app

    call = ["distill", str(file), "--teacher", "markers", "--samples", "2", "--out"]
    first = CliRunner().invoke(app, [*call, str(tmp_path / "run")])
    assert first.exit_code == 0, first.output
    assert "teacher: markers" in first.output
    assert "100.0 % of" in " ".join(first.output.split())  # the terminal may be narrow
    again = CliRunner().invoke(app, [*call, str(tmp_path / "run"), "--json"])
    assert json.loads(again.output)["traces"] > 0
    odd = CliRunner().invoke(app, [*call, str(tmp_path / "odd"), "--option", "speed"])
    assert isinstance(odd.exception, UseError)


def test_a_hint_forwards_what_a_remote_teacher_says(toys):
    pytest.importorskip("openai")
    asking = SolveSettings(solver="openai:m", base_url="http://localhost:9/v1")
    for samples in (1, 2):
        solver = choose_solver(asking.model_copy(update={"samples": samples}))
        teacher = hinting(solver)
        assert isinstance(teacher, RemoteSolver)
        assert (teacher.spent, teacher.stopped, teacher.told) == (0, None, [])
        chats = list(teacher.dry_run(toys[:2]))
        assert len(chats) == 2 * samples
        assert all("The right answer is known" in chat[0]["content"] for chat in chats)
        estimate = teacher.estimate(toys[:2])
        assert estimate["prompts"] == 2 * samples
        assert estimate["prompt_tokens"] > solver.estimate(toys[:2])["prompt_tokens"]
    assert not isinstance(hinting(choose_solver(SolveSettings(solver="chance"))), RemoteSolver)


def test_a_full_disk_names_the_file_and_the_room_left(file, tmp_path):
    """A limit on the size of files stands in for the disk."""
    command = [sys.executable, "-m", "cello1", "distill", str(file), "--teacher", "markers"]
    command += ["--out", str(tmp_path / "run")]
    limited = f"ulimit -f 8; exec {' '.join(command)}"  # blocks of 1,024 bytes
    told = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert told.returncode == 1
    assert "responses.jsonl" in told.stderr
    assert "MB free" in told.stderr
    assert "Traceback" not in told.stderr
    done = [r["id"] for r in read_records(tmp_path / "run")]
    assert done
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    ids = [r["id"] for r in read_records(tmp_path / "run")]
    assert ids[: len(done)] == done
    assert len(set(ids)) == len(ids)
