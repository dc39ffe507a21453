"""Nothing that can be typed or fed to the command line ends in a traceback, or in our own fault.

A sample runs every time; CELLO1_FUZZ=300 (or any number) runs more, with CELLO1_FUZZ_SEED another.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import typer
from report_toys import toy_puzzle

from cello1 import cli
from cello1.cli.app import app
from cello1.puzzles.table import write_puzzles

LINES = int(os.environ.get("CELLO1_FUZZ", "60"))
SEED = int(os.environ.get("CELLO1_FUZZ_SEED", "0"))
SECONDS = 120
VERBS = sorted(typer.main.get_command(app).commands)
WORDS = [
    "", " ", "x", "-1", "0", "1", "3", "1e999", "nan", "9" * 5_000, "[/]", "[red]", "\x1b[31m",
    "é|", "a=b", "=", "a.b.c=1", "[" * 3_000, "{a: &x [*x]}", "openai:m", "hf:", "mini", "chance",
    "hf:no/such/model", "markers", "centroids", "train", "http://u:p@h:99999/v1", "--", "none",
    "donor", "1,2",
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of every kind that is wrong somewhere."""
    here = tmp_path_factory.mktemp("fed")
    puzzles = [toy_puzzle(seed, n=3) for seed in range(6)]
    write_puzzles(puzzles, here / "good.parquet")
    write_puzzles(puzzles, here / "good.jsonl")
    (here / "folder").mkdir()
    write_puzzles(puzzles, here / "folder" / "test.parquet")
    (here / "empty").mkdir()
    (here / "loop").symlink_to(here / "loop")
    good = (here / "good.parquet").read_bytes()
    row = json.loads((here / "good.jsonl").read_text().split("\n")[0])
    contents = {
        "nothing.parquet": b"", "torn.parquet": good[:300], "noise.h5ad": bytes(range(256)) * 9,
        "hdf.h5ad": b"\x89HDF\r\n\x1a\n" + bytes(500), "deep.json": b"[" * 50_000 + b"]" * 50_000,
        "number.jsonl": b"1" * 5_000 + b"\n", "null.json": b"null", "list.jsonl": b"[1]\n",
        "rows.json": json.dumps([row | {"user_msg": 7}]).encode(),
        "meta.jsonl": json.dumps(row | {"meta": "[" * 50_000}).encode(),
        "answer.jsonl": json.dumps(row | {"assistant_msg": ["a"]}).encode(),
        "latin.txt": "é\nB cell".encode("latin-1"), "wide.csv": "gene,a\nx,y\n".encode("utf-16"),
        "recipe.yaml": b"sft: {model: x, traces: [y]}\nrl: {model: x, puzzles: [y]}\n"
        b"base: {puzzles: [z]}\n",
        "list.yaml": b"- a\n- b\n", "odd.yaml": b"build: {n_min: [1]}\n",
        "deep.yaml": b"a: " + b"[" * 3_000, "self.yaml": b"build: &a {b: *a}\n",
        "like.yaml": b"like: like.yaml\n",
        "number.yaml": b"build: {n_min: " + b"7" * 5_000 + b"}\n",
        "laugh.yaml": b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (i, i, b",".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 108)),
    }  # fmt: skip
    for name, content in contents.items():
        (here / name).write_bytes(content)
    runs = {
        "list": "[]", "text": "{", "other": '{"command": 1, "config": {}, "inputs": {}}',
        "solve": '{"command": "solve", "config": {"puzzles": "x"}, "inputs": {}}',
        "deep": '{"command": ' + "[" * 50_000,
        "odd": '{"command": "sft", "config": {}, "inputs": 3}',
    }  # fmt: skip
    for name, text in runs.items():
        (here / f"run-{name}").mkdir()
        (here / f"run-{name}" / "run.json").write_text(text)
        (here / f"run-{name}" / "responses.jsonl").write_text('{"id": 1}\n{"id": "a"}\nnull\n')
        (here / f"run-{name}" / "log.jsonl").write_text('{"step": "x"}\n[]\n1\n')
    for name, text in {"list": "[]", "empty": "{}", "type": '{"model_type": "x"}'}.items():
        (here / f"model-{name}").mkdir()
        (here / f"model-{name}" / "config.json").write_text(text)
    return [*sorted(here.iterdir()), here / "missing.h5ad", here / "missing", Path("/dev/null")]


def line(rng, verb, files, out):
    """Write a command with arguments that are mostly wrong."""
    command = typer.main.get_command(app).commands[verb]
    arguments = [verb]
    for parameter in command.params:
        if parameter.name in ("help", "host", "port", "workers"):
            continue
        argument = parameter.param_type_name == "argument"
        if parameter.name == "out":
            arguments += [parameter.opts[0], str(out / rng.choice("abc"))]
            continue
        if not argument and rng.random() > 0.25:
            continue
        value = str(rng.choice(files)) if rng.random() < (0.9 if argument else 0.4) else ""
        value = value or rng.choice(WORDS)
        if argument:
            # Without a file, demo runs as it does in a test of its own.
            arguments += [value] * (verb == "demo" or rng.random() < 0.95)
        else:
            arguments += [rng.choice(parameter.opts)]
            arguments += [] if getattr(parameter, "is_flag", False) else [value]
    if rng.random() < 0.1:
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(WORDS))
    return arguments


@pytest.mark.parametrize("number", range(LINES))
def test_wrong_commands_end_in_one_line(number, files, tmp_path, monkeypatch, capsys):
    rng = random.Random(1_000 * SEED + number)
    verb = VERBS[number % len(VERBS)]
    arguments = line(rng, verb, files, tmp_path)
    monkeypatch.setattr(sys, "argv", ["cello1", *arguments])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    # A game that can be played waits for a player.
    monkeypatch.setattr("cello1.play.game.serve", lambda *_, **__: None)

    def late(*_):
        raise AssertionError(f"{arguments} takes longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code or 0) in (0, 1, 2)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err, arguments
    assert "fault of cello1" not in said.err, (
        said.err.replace("\n", " ")[-700:] + str(arguments)[:300]
    )
    assert "\x1b[31m" not in said.err
