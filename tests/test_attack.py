"""The attack program counts what goes wrong: a meter that never moves would prove nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attack reads /proc")


@pytest.fixture
def attack(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("attack")


@pytest.fixture
def disturbed(attack, tmp_path):
    """A verb that leaves two records, a result and a name, and a folder to compare with them."""

    def leave(records=("a", "b"), result=b"right", **more):
        box = ground.box()
        lines = [json.dumps({"id": name}) for name in records]
        (box / "responses.jsonl").write_text("\n".join([*lines, ""]))
        (box / "result.parquet").write_bytes(result)
        for name, text in more.items():
            (box / name).write_text(text)
        return box

    ground = attack.Ground(tmp_path, 1.0, 0)
    verb = attack.Verb("toy", [], attack.Done(0, "", "usual\n"), attack.outcome(leave()))

    def blamed(**changes):
        row = attack.Row("toy")
        attack.compare(row, verb, leave(**changes), ground)
        return dict(row.faults)

    return blamed, verb, ground


def test_what_is_lost_doubled_or_left_is_counted(disturbed):
    blamed, _, ground = disturbed
    assert blamed() == {}
    assert blamed(records=("b",)) == {"lost": 1}
    assert blamed(records=("a", "b", "b")) == {"doubled": 1}
    assert blamed(result=b"wrong") == {"lost": 1}
    assert blamed(more="x") == {"files": 1}
    (ground.temporary / "left").write_text("x")
    assert blamed() == {"files": 1}


@pytest.mark.parametrize(
    ("status", "out", "err", "fault"),
    [
        (1, "", "usual\none line\n", {}),
        (1, "", "two\nlines\n", {"other": 1}),
        (-11, "", "", {"other": 1}),
        (1, "", "Traceback (most recent call last):\nboom\n", {"tracebacks": 1}),
        (0, "sk-attack-4711-never-shown", "", {"secrets": 1}),
    ],
)
def test_what_is_said_is_judged(attack, disturbed, status, out, err, fault):
    row = attack.Row("toy")
    attack.hear(row, disturbed[1], attack.Done(status, out, err), (0, 1))
    assert dict(row.faults) == fault


def test_secrets_in_files_and_processes_left_are_found(attack, tmp_path):
    (tmp_path / "run.json").write_text(f'{{"key": "{attack.KEY}"}}')
    row = attack.Row("toy")
    attack.leak(row, "toy", tmp_path)
    assert dict(row.faults) == {"secrets": 1}
    assert os.getpid() in attack.session(os.getsid(0))


def test_damage_follows_the_seed_and_changes_something(attack):
    import random

    good = bytes(range(256)) * 40
    first = [attack.damage(good, random.Random(i)) for i in range(30)]
    assert first == [attack.damage(good, random.Random(i)) for i in range(30)]
    assert all(changed != good for changed in first)


@pytest.mark.parametrize("warm", [False, True])
def test_a_command_is_started_killed_and_heard(attack, tmp_path, warm):
    ground = attack.Ground(tmp_path, 1.0, 0)
    done = attack.run(ground, ["eval", "{box}/none"], ground.box(), warm=warm)
    assert done.status == 1
    assert "none" in done.err
    assert len(done.err.splitlines()) == 1
    puzzle = Puzzle("", [["MS4A1"], ["CD3D"]], ["T cell", "B cell"], ["B cell", "T cell"])
    write_puzzles([puzzle], tmp_path / "puzzles.parquet")
    server = ["play", str(tmp_path / "puzzles.parquet"), "--out", "{box}/run"]  # never ends
    running = attack.Running(ground, server, ground.box(), warm=warm)
    running.process.kill()
    assert running.wait().status == -9
    assert running.left(1) == []


def test_the_table_takes_its_place_in_a_page(attack, tmp_path):
    rows = [attack.Row("SIGKILL", "build", 12), attack.Row("SIGKILL", "solve", 12)]
    rows.append(attack.Row("damaged files", "", 500))
    rows[1].blame("lost", "one")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{attack.BEGIN}old\n{attack.END}after\n")
    for _ in range(2):
        attack.write_markdown(page, attack.as_markdown(rows, "how."))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "how. The verbs: build, solve." in text
    assert "| SIGKILL, 2 verbs | 24 | 1 | 0 |" in text
    assert "| all | 524 | 1 |" in text
    assert text.count("| damaged files | 500 |") == 1
