import base64
import gzip
import http.client
import json
import re
import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest
from report_toys import EVIL, knows, make_runs, toy_puzzle

from cello1.errors import InputError
from cello1.play.game import Game, play
from cello1.play.server import PlayServer
from cello1.puzzles.table import write_puzzles
from cello1.report.gather import gather
from cello1.report.page import report
from cello1.runs import Run, read_records
from cello1.solvers.run import read_solved


@pytest.fixture
def file(tmp_path):
    write_puzzles([toy_puzzle(seed) for seed in range(8)], tmp_path / "puzzles.parquet")
    return tmp_path / "puzzles.parquet"


@pytest.fixture
def start(file, tmp_path):
    """Start a game and its server; everything stops at the end."""
    opened = []

    def open_game(number=3, solvers=None):
        config = {"puzzles": "x", "solver": "human"}
        run = Run(tmp_path / "me", command="solve", config=config, inputs=[file])
        opened.append(run)
        puzzles = [toy_puzzle(seed) for seed in range(8)]
        game = Game(run, puzzles, solvers or {}, number=number, seed=0)
        server = PlayServer(game, "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        opened.append(server)
        return server

    yield open_game
    for thing in reversed(opened):
        if isinstance(thing, PlayServer):
            thing.shutdown()
            thing.server_close()
        else:
            thing.__exit__(None, None, None)


def get(server, **headers):
    with urllib.request.urlopen(urllib.request.Request(server.url, headers=headers)) as reply:
        return reply.read().decode()


def post(server, value, token=None, path="answer"):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = {"x-token": server.token if token is None else token}
    request = urllib.request.Request(server.url + path, body, headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def right_labels(puzzle):
    return [puzzle.candidates.index(label) for label in puzzle.answer]


def test_the_page_asks_and_does_not_tell(start):
    html = get(start())
    assert EVIL not in html
    packed = re.search(r'id="data">([^<]+)<', html)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert len(data["puzzles"]) == 3
    assert all(set(q) == {"id", "context", "cells", "candidates"} for q in data["puzzles"])


def test_an_answer_is_kept_at_once_and_scored(start, file, tmp_path):
    server = start()
    first, second = list(server.game.pending.values())[:2]
    status, said = post(
        server, {"id": first.id, "labels": right_labels(first), "seconds": 7, "notes": "a </think>"}
    )
    assert status == 200
    assert said["right"] == [True] * len(first.cells)
    assert said["standing"] == [{"name": "you", "puzzles": 1, "batches": 1, "cells": 1.0}]
    (record,) = read_records(tmp_path / "me")
    assert (record["id"], record["seconds"]) == (first.id, 7)
    swapped = right_labels(second)
    swapped[:2] = swapped[1::-1]
    status, said = post(server, {"id": second.id, "labels": swapped, "seconds": 1.5})
    assert said["right"][:3] == [False, False, True]
    assert said["answer"] == right_labels(second)
    assert len(list(read_records(tmp_path / "me"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"id": "unknown"},
        {"labels": [0, 0, 1, 2]},
        {"labels": [0, 1, 2]},
        {"labels": [0, 1, 2, 99]},
        {"labels": [0, 1, 2, True]},
        {"labels": "abcd"},
        {"seconds": "7"},
        {"seconds": float("inf")},
        {"seconds": None},
        {"seconds": 10**400},
        {"seconds": -1},
        {"seconds": True},
    ],
)
def test_what_is_no_answer_is_refused_and_not_kept(start, tmp_path, change):
    server = start()
    puzzle = next(iter(server.game.pending.values()))
    good = {"id": puzzle.id, "labels": right_labels(puzzle), "seconds": 1}
    status, said = post(server, good | change)
    assert status == 400
    assert said["error"]
    assert not list(read_records(tmp_path / "me"))
    assert post(server, good)[0] == 200
    assert post(server, good)[0] == 400  # once


def test_other_pages_cannot_answer(start, tmp_path):
    server = start()
    puzzle = next(iter(server.game.pending.values()))
    good = {"id": puzzle.id, "labels": right_labels(puzzle), "seconds": 1}
    assert post(server, good, token="guess")[0] == 403
    assert post(server, good, path="elsewhere")[0] == 403
    assert post(server, b"x" * 200_000)[0] == 413
    assert post(server, b"{")[0] == 400
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(server, Host="evil.example")
    assert not list(read_records(tmp_path / "me"))


def raw(server, *lines, body=b""):
    """Send a request as it is, and return the status line."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        host = f"host: 127.0.0.1:{server.server_port}".encode()
        connection.sendall(b"\r\n".join([lines[0], host, *lines[1:], b"", b""]) + body)
        return connection.makefile("rb").readline()


def test_no_request_brings_a_traceback_to_the_players_terminal(start, tmp_path, capfd):
    server = start()
    puzzle = next(iter(server.game.pending.values()))
    good = {"id": puzzle.id, "labels": right_labels(puzzle), "seconds": 1}
    deep = b'{"id":' + b"[" * 49_000 + b"]" * 49_000 + b"}"
    assert post(server, deep)[0] == 400
    assert post(server, b'{"id": "x", "seconds": ' + b"9" * 6_000 + b"}")[0] == 400
    assert post(server, b"\xff\xfe{}")[0] == 400
    ask = b"POST /answer HTTP/1.1"
    for token in (b"caf\xc3\xa9", b"\xff\x80", b"\xe2\x98\x83" * 50):
        assert b"403" in raw(server, ask, b"content-length: 2", b"x-token: " + token, body=b"{}")
    assert b"413" in raw(server, ask, b"content-length: " + b"9" * 6_000)
    assert b"413" in raw(server, ask, b"content-length: -1")
    assert b"413" in raw(server, ask, b"content-length: \xb2")
    for _ in range(20):  # browsers that go away before, while and after they are answered
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            host = f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{server.server_port}\r\n\r\n"
            connection.sendall(host.encode())
    assert not list(read_records(tmp_path / "me"))
    assert post(server, good | {"notes": "\ud800 said"})[0] == 200
    assert "?" in next(iter(read_records(tmp_path / "me")))["text"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_of_the_game_is_told_in_one_line(start, capfd):
    server = start()
    server.game.questions = lambda: 1 / 0
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        get(server)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError" in said


def test_a_later_session_asks_what_is_left(file, tmp_path):
    asked = []
    for _ in range(2):
        with Run(tmp_path / "me", command="solve", config={}, inputs=[file]) as run:
            game = Game(run, [toy_puzzle(s) for s in range(8)], {}, number=5, seed=0)
            asked.append(list(game.pending))
            for puzzle in list(game.pending.values()):
                game.answer({"id": puzzle.id, "labels": right_labels(puzzle), "seconds": 1})
    assert [len(ids) for ids in asked] == [5, 3]
    assert not set(asked[0]) & set(asked[1])
    with (
        Run(tmp_path / "me", command="solve", config={}, inputs=[file]) as run,
        pytest.raises(InputError, match="all 8 puzzles are answered"),
    ):
        Game(run, [toy_puzzle(s) for s in range(8)], {}, number=5, seed=0)


def test_a_person_stands_beside_the_solvers(tmp_path):
    """Played over HTTP, the run is one that `eval` and `report` compare."""
    puzzles = [toy_puzzle(seed) for seed in range(6)]
    (solver,) = make_runs(tmp_path, puzzles, knows=knows)

    def ready(url):
        raise KeyboardInterrupt  # the server listens: this session ends here

    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "puzzles.parquet", tmp_path / "me", number=2, beside=[solver], ready=ready)
    info = json.loads((tmp_path / "me" / "run.json").read_text())
    with Run(
        tmp_path / "me",
        command="solve",
        config=info["config"],
        inputs=[tmp_path / "puzzles.parquet"],
    ) as run:
        asked, _ = read_solved(solver)
        scores = {s.puzzle.id: s.score for s in gather([solver]).solved[0].scored}
        game = Game(run, asked, {"knows": scores}, number=2, seed=0)
        for puzzle in list(game.pending.values()):
            said = game.answer({"id": puzzle.id, "labels": right_labels(puzzle), "seconds": 30})
        assert [row["name"] for row in said["standing"]] == ["you", "knows"]
        assert said["solvers"][0]["name"] == "knows"
    human = gather([solver, tmp_path / "me"]).solved[1]
    assert human.solver == "human"
    assert (human.evaluation.overall.n, human.evaluation.overall.batch_accuracy.estimate) == (2, 1)
    assert human.seconds == 30
    page = report([solver, tmp_path / "me"], tmp_path / "report.html").read_text()
    assert re.search(r">me</span><br><span class=\"small muted\">human</span>", page)
    assert "knows − me" in page
