import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from cello1.errors import InputError, UseError
from cello1.puzzles.prompt import messages
from cello1.puzzles.table import write_puzzles
from cello1.recipes import SolveSettings
from cello1.runs import read_records
from cello1.solvers.base import Failure, Response
from cello1.solvers.choose import choose_solver
from cello1.solvers.classical.chance import Chance
from cello1.solvers.classical.expert import ClassicalSolver
from cello1.solvers.run import cut_prompts, read_solved, remarks, solve, token_counts


class Moody:
    """Fails on the first puzzles it sees in each life."""

    name = "moody"

    def __init__(self, failures):
        self.settings = {"solver": "moody"}
        self.failures = failures

    def solve(self, puzzles, on_done):
        for i, puzzle in enumerate(puzzles):
            if i < self.failures:
                on_done(puzzle.id, Failure("no mood"))
            else:
                on_done(puzzle.id, Response("text", completion_tokens=1))


@pytest.fixture
def file(tmp_path, toys):
    write_puzzles(toys, tmp_path / "puzzles.parquet")
    return tmp_path / "puzzles.parquet"


def test_a_failure_is_no_prediction_and_is_owed_again(file, tmp_path):
    run = solve(file, Moody(failures=3), tmp_path / "run")
    assert len(read_solved(run)[1]) == 57
    solve(file, Moody(failures=1), tmp_path / "run")
    assert len(read_solved(run)[1]) == 59
    solve(file, Moody(failures=0), tmp_path / "run")
    puzzles, records = read_solved(run)
    assert set(records) == {p.id for p in puzzles}
    assert token_counts(records) == dict.fromkeys(records, 1)


def test_a_finished_run_is_left_as_it_is(file, tmp_path):
    run = solve(file, ClassicalSolver(Chance()), tmp_path / "run")
    before = (run / "responses.jsonl").read_bytes()
    solve(file, ClassicalSolver(Chance()), run)
    assert (run / "responses.jsonl").read_bytes() == before


def test_another_solver_or_other_puzzles_do_not_mix(file, tmp_path, toys):
    run = solve(file, ClassicalSolver(Chance()), tmp_path / "run")
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        solve(file, ClassicalSolver(Chance(seed=1)), run)
    write_puzzles(toys[:5], file)
    with pytest.raises(InputError, match="choose another --out"):
        solve(file, ClassicalSolver(Chance()), run)
    with pytest.raises(InputError, match="has changed since"):
        read_solved(run)


def test_moved_puzzles_are_found_when_named(file, tmp_path):
    run = solve(file, ClassicalSolver(Chance()), tmp_path / "run")
    moved = file.rename(tmp_path / "moved.parquet")
    with pytest.raises(InputError, match="--puzzles"):
        read_solved(run)
    assert len(read_solved(run, moved)[0]) == 60


def test_killed_at_any_moment_nothing_is_lost_or_doubled(file, tmp_path):
    code = (
        "import sys, time\n"
        "from cello1.solvers.run import solve\n"
        "from cello1.solvers.classical.chance import Chance\n"
        "from cello1.solvers.classical.expert import ClassicalSolver\n"
        "class Slow(ClassicalSolver):\n"
        "    def answer(self, puzzle):\n"
        "        time.sleep(0.01)\n"
        "        return super().answer(puzzle)\n"
        "def watch(done, total):\n"
        "    if done == int(sys.argv[3]):\n"
        "        time.sleep(60)  # no further: the blow finds it alive\n"
        "solve(sys.argv[1], Slow(Chance()), sys.argv[2], watch=watch)\n"
    )
    run = tmp_path / "run"
    log = run / "responses.jsonl"
    call = [sys.executable, "-c", code, str(file), str(run)]
    for lines, last, wait in ((1, 20, 0.02), (21, 40, 0.11), (41, 59, 0.05)):
        process = subprocess.Popen([*call, str(last)])
        while process.poll() is None and (
            not log.exists() or log.read_bytes().count(b"\n") < lines
        ):
            time.sleep(0.01)
        time.sleep(wait)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finished = [r["id"] for r in read_records(run)]
    assert 40 < len(finished) < 60
    subprocess.run([*call, "-1"], check=True)
    counts = Counter(r["id"] for r in read_records(run))
    assert len(counts) == 60
    assert set(counts.values()) == {1}
    assert [r["id"] for r in read_records(run)][: len(finished)] == finished
    fresh = solve(file, ClassicalSolver(Chance()), tmp_path / "fresh")
    texts = {i: r["text"] for i, r in read_solved(fresh)[1].items()}
    assert texts == {i: r["text"] for i, r in read_solved(run)[1].items()}


def test_an_unknown_solver_names_the_known_ones():
    with pytest.raises(UseError, match="chance, markers, centroids"):
        choose_solver(SolveSettings(solver="magic"))


def counted(puzzles, count):
    lengths = {p.id: sum(len(m.content) for m in messages(p)) for p in puzzles}
    return {i: {"id": i, "text": "x", "prompt_tokens": count(n)} for i, n in lengths.items()}


def test_prompts_that_a_server_cut_are_told_by_its_own_count(toys):
    for ratio in (2.0, 3.5, 5.5):
        assert remarks(toys, counted(toys, lambda n, ratio=ratio: int(n / ratio))) == []
    (said,) = remarks(toys, counted(toys, lambda n: 40))
    assert said.startswith("60 of 60 prompts were cut by the server, which says it read only 40")
    assert "context length" in said
    assert remarks(toys, counted(toys, lambda n: None)) == []


def test_prompts_of_all_lengths_that_count_the_same_round_number_were_cut(toys):
    long = [replace(p, context="Blood. " * (1_000 + 50 * i)) for i, p in enumerate(toys[:6])]
    for count, cut in ((2_048, 6), (4_095, 6), (2_200, 0)):
        records = counted(long, lambda n, count=count: count)
        assert len(cut_prompts([(p, records[p.id]) for p in long])) == cut


def test_votes_count_their_prompts_once_each(toys):
    records = counted(toys[:1], lambda n: n // 4 * 5)
    records[toys[0].id]["votes"] = {"answers": 5, "unreadable": 0, "failed": 0}
    assert remarks(toys, records) == []
    records[toys[0].id]["votes"]["answers"] = 20
    assert len(remarks(toys, records)) == 1


def test_answers_cut_off_by_their_budget_are_counted(toys):
    records = counted(toys, lambda n: None)
    records[toys[0].id]["finish_reason"] = "length"
    (said,) = remarks(toys, records)
    assert said.startswith("1 of 60 answers were cut off")


def test_solve_takes_a_name_and_keywords(toys, tmp_path):
    write_puzzles(toys[:6], tmp_path / "test.parquet")
    write_puzzles(toys[6:], tmp_path / "train.parquet")
    run = solve(tmp_path, "centroids", tmp_path / "run", alone=True)
    other = solve(tmp_path, SolveSettings(solver="chance"), tmp_path / "chance", alone=True)
    for made in (run, other):
        assert '"joint": false' in (made / "run.json").read_text()
    assert len(read_solved(run)[1]) == 6
    with pytest.raises(UseError, match="no split 'validation'"):
        solve(tmp_path, "chance", tmp_path / "other", split="validation")
    with pytest.raises(UseError, match="smaples: Extra inputs"):
        solve(tmp_path, "chance", tmp_path / "other", smaples=3)


@pytest.mark.parametrize("name", ["none.parquet", "none.json", "none.jsonl"])
def test_a_file_without_puzzles_is_an_error_and_leaves_no_run(tmp_path, name):
    write_puzzles([], tmp_path / name)
    with pytest.raises(InputError, match=f"{name} holds no puzzle"):
        solve(tmp_path / name, "chance", tmp_path / "run")
    assert not (tmp_path / "run").exists()
