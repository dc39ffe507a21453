import asyncio
import json
import logging
import socket
import time
from collections import Counter
from itertools import pairwise

import misbehaving as bad
import pytest
from tenacity import Future, RetryCallState

from cello1.errors import InputError, UseError
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.prompt import messages
from cello1.puzzles.table import write_puzzles
from cello1.recipes import SolveSettings
from cello1.runs import read_records
from cello1.scoring.score import score
from cello1.solvers.base import Failure, RemoteSolver
from cello1.solvers.choose import choose_solver
from cello1.solvers.endpoint import limits as endpoint_limits
from cello1.solvers.endpoint.reply import TryAgainError, retry_after
from cello1.solvers.endpoint.solver import EndpointSolver
from cello1.solvers.run import read_solved, solve
from cello1.solvers.vote import VotingSolver

KEY = "sk-this-must-never-be-seen-0123456789"
BACK_OFF = endpoint_limits._BACK_OFF


@pytest.fixture
def server():
    server = bad.Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint_limits, "_BACK_OFF", lambda state: 0.001)


def ask(solver, puzzles):
    results = {}

    def on_done(puzzle_id, result):
        assert puzzle_id not in results
        results[puzzle_id] = result

    solver.solve(puzzles, on_done)
    return results


def ask_one(server, puzzle, *script, **settings):
    server.script = [*script]
    settings = {"retries": 2, "timeout": 5.0, **settings}
    return ask(EndpointSolver("m", base_url=server.url, **settings), [puzzle])[puzzle.id]


PASSING = {
    "429": (bad.error(429, "slow down"), "HTTP 429: slow down"),
    "429 with seconds": (bad.error(429, "slow down", retry_after="0.01"), "HTTP 429"),
    "429 with a date": (bad.retry_at(-5), "HTTP 429"),
    "500": (bad.error(500, "oops"), "HTTP 500: oops"),
    "503": (bad.error(503, retry_after="soon"), "HTTP 503"),
    "slow drip": (bad.slow_drip, "no complete answer in time"),
    "truncated": (bad.truncated_json, "JSON cannot be used: Invalid JSON: EOF"),
    "hangs up": (bad.cut_connection, "the connection failed"),
    "reset": (bad.reset, "the connection failed"),
    "wrong type": (bad.wrong_type, "text/html instead of JSON"),
    "torn gzip": (bad.torn_gzip, "cannot be decompressed"),
    "empty": (bad.says({"content": ""}), "holds no text"),
    "blank": (bad.says({"content": "\n  "}), "holds no text"),
    "only an end token": (bad.says({"content": "<|im_end|>"}), "holds no text"),
    "no choices": (bad.no_choices, "no choices: upstream is down"),
    "no text": (bad.says({"content": None}), "holds no text"),
    "no message": (bad.says(None), "JSON cannot be used: choices.0.message"),
    "lone surrogate": (bad.lone_surrogate, "JSON cannot be used"),
    "broken off": (bad.says({"content": "<think>"}, "abort"), "aborted the answer"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again_then_answered_or_failed(server, toys, name):
    behave, reason = PASSING[name]
    # Only the drip is about time; a busy machine must not make the others late.
    timeout = 0.3 if name == "slow drip" else 10.0
    answered = ask_one(server, toys[0], behave, behave, bad.right, timeout=timeout)
    assert answered.text == bad.expected(toys[0])
    assert len(server.requests) == 3
    failed = ask_one(server, toys[1], behave, timeout=timeout)
    assert isinstance(failed, Failure)
    assert reason in failed.reason
    assert failed.reason.endswith("(tried 3 times)")
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (bad.error(400, "content policy", code="content_filter"), "HTTP 400: content policy"),
        (bad.error(400, "maximum context length is 512 tokens, not 900"), "512 tokens, not 900"),
        (bad.error(403, "not for you"), "HTTP 403: not for you"),
        (bad.error(404, "no model m"), "HTTP 404: no model m"),
        (bad.says({"content": "<think>"}, "content_filter"), "content filter stopped"),
        (bad.says({"content": None, "refusal": "I will not"}), "refused: I will not"),
        (bad.huge(200), "larger than 4 MiB"),
        (bad.huge(500), "larger than 4 MiB"),
        (bad.compressed, "compressed with br"),
        (bad.bomb, "larger than 4 MiB"),
    ],
)
def test_what_will_not_pass_fails_at_once_with_a_reason(server, toys, behave, reason):
    result = ask_one(server, toys[0], behave)
    assert isinstance(result, Failure)
    assert reason in result.reason
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_a_failure(toys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        result = ask(EndpointSolver("m", base_url=url, retries=1), toys[:1])[toys[0].id]
    assert result.reason.startswith("the connection failed")


@pytest.mark.parametrize(
    "behave", [bad.error(429, retry_after="1"), bad.retry_at(2.0)], ids=["seconds", "date"]
)
def test_retry_after_is_honoured_by_all_requests(server, toys, behave):
    server.script = [behave, bad.right]
    results = ask(EndpointSolver("m", base_url=server.url, in_flight=2), toys)
    assert {i: r.text for i, r in results.items()} == {p.id: bad.expected(p) for p in toys}
    after = [start - server.starts[0] for start in server.starts]
    assert sum(seconds < 0.95 for seconds in after) <= 12  # those that started before the 429 came
    assert after[-1] < 5


def test_retry_after_reads_seconds_dates_and_nonsense():
    assert retry_after({"retry-after": "7.5"}) == 7.5
    assert retry_after({"retry-after": "-1"}) == 0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "later"}) is retry_after({}) is None


def test_waits_are_as_long_as_the_server_asks_else_random_and_longer_each_time(monkeypatch):
    monkeypatch.setattr(endpoint_limits, "_BACK_OFF", BACK_OFF)

    def wait(asked, attempt):
        state = RetryCallState(None, None, (), {})
        state.attempt_number, state.outcome = attempt, Future(attempt)
        state.outcome.set_exception(TryAgainError("no", asked))
        return endpoint_limits.wait_before_retry(state)

    assert all(2.0 <= wait(2.0, 5) <= 2.5 for _ in range(50))
    early, late = ([wait(None, attempt) for _ in range(100)] for attempt in (1, 6))
    assert max(early) <= 0.5
    assert 8 < max(late) <= 16
    assert len(set(late)) == 100


def test_a_pause_of_hours_stops_the_run_and_the_rest_stays_owed(server, toys):
    server.script = [bad.error(429, "daily limit", retry_after="36000")]
    solver = EndpointSolver("m", base_url=server.url, in_flight=2)
    results = ask(solver, toys)
    assert 1 <= len(results) <= 2
    assert "36000 s" in solver.stopped


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (bad.error(401, f"bad key {KEY}"), "does not accept OPENAI_API_KEY"),
        (bad.error(402), "no credit left"),
        (bad.error(429, code="insufficient_quota"), "no credit left"),
    ],
)
def test_a_refused_key_or_an_empty_account_stops_the_run(server, toys, behave, message):
    server.script = [behave]
    with pytest.raises(InputError, match=message) as caught:
        ask(EndpointSolver("m", base_url=server.url, in_flight=4), toys)
    assert KEY not in str(caught.value)
    assert len(server.requests) <= 4


def test_an_answer_cut_off_by_length_is_kept_as_it_is_and_scores_nothing(server, toys):
    result = ask_one(server, toys[0], bad.says({"content": "<think>hm"}, "length"))
    assert (result.text, result.finish_reason) == ("<think>hm", "length")
    assert (result.prompt_tokens, result.completion_tokens) == (100, 50)
    assert score(toys[0], result.text).cell_accuracy == 0
    nothing = ask_one(server, toys[0], bad.says({"content": None}, "length"))
    assert (nothing.text, nothing.finish_reason) == ("", "length")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            {"reasoning_content": "hm", "content": "\n\n<answer>a | b</answer>\n"},
            "<think>hm</think>\n<answer>a | b</answer>",
        ),
        (
            {"reasoning": "a <answer>b</answer> <thi<think>nk>", "content": "<answer>c</answer>"},
            "<think>a  b  <thi nk></think>\n<answer>c</answer>",
        ),
        (
            {"reasoning": "hm", "content": "<think>own</think>\n<answer>a</answer>"},
            "<think>own</think>\n<answer>a</answer>",
        ),
        ({"reasoning_content": "hm", "content": "a | b"}, "<think>hm</think>\na | b"),
        ({"reasoning": {"not": "text"}, "content": "a | b"}, "a | b"),
    ],
)
def test_thoughts_in_a_field_of_their_own_become_the_think_block(server, toys, message, text):
    assert ask_one(server, toys[0], bad.says(message)).text == text
    has_block = "<answer>" in message["content"]
    assert isinstance(parse_response(text), Answer) == has_block


@pytest.mark.parametrize(
    ("refused", "objection", "fails"),
    [
        (
            "system",
            "System role not supported",
            lambda body: body["messages"][0]["role"] == "system",
        ),
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            lambda body: "max_tokens" in body,
        ),
        (
            "temperature",
            "'temperature' does not support 0 with this model",
            lambda body: "temperature" in body,
        ),
        ("seed", "Extra inputs are not permitted: seed", lambda body: "seed" in body),
    ],
)
def test_what_a_server_does_not_take_is_put_otherwise_for_the_rest(
    server, toys, refused, objection, fails
):
    server.script = [bad.unless(objection, fails)]
    solver = EndpointSolver("m", base_url=server.url, in_flight=2, retries=0)
    results = ask(solver, toys)
    assert {i: r.text for i, r in results.items()} == {p.id: bad.expected(p) for p in toys}
    assert solver.refused == {refused}
    assert 61 <= len(server.requests) <= 62
    last = server.bodies()[-1]
    assert last.get("max_completion_tokens", last.get("max_tokens")) == 3500
    if refused == "system":
        asked = {body["messages"][0]["content"] for body in server.bodies()[-20:]}
        assert asked <= {"\n\n".join(m.content for m in messages(p)) for p in toys}


def test_a_refusal_with_no_other_form_is_a_failure(server, toys):
    result = ask_one(server, toys[0], bad.error(400, "max_tokens is not supported"))
    assert result.reason == "HTTP 400: max_tokens is not supported"
    assert len(server.requests) == 2


def test_no_more_requests_in_flight_than_asked_for_and_no_more_tasks(server, toys):
    server.delay, tasks = 0.01, []
    solver = EndpointSolver("m", base_url=server.url, in_flight=4)
    solver.solve(toys, lambda *_: tasks.append(len(asyncio.all_tasks())))
    assert server.peak == 4
    assert len(tasks) == 60
    assert max(tasks) <= 4 + 1


def test_requests_per_minute_are_kept(server, toys):
    ask(EndpointSolver("m", base_url=server.url, per_minute=1200, in_flight=8), toys[:16])
    assert server.starts[-1] - server.starts[0] >= 15 * 0.05 * 0.8


def test_requests_start_evenly_and_not_in_a_pause():
    starts = []

    async def caller(pace):
        for _ in range(4):
            await pace.wait()
            starts.append(time.monotonic())

    async def all_callers():
        pace = endpoint_limits.Pace(6000)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(caller(pace))
            await asyncio.sleep(0.05)
            pace.pause(0.3)

    asyncio.run(all_callers())
    gaps = sorted(b - a for a, b in pairwise(starts))
    assert len(starts) == 16
    assert gaps[0] >= 0.0099
    assert gaps[-1] >= 0.28


def test_samples_have_seeds_of_their_own(server, toys):
    for sample in (0, 1):
        ask(EndpointSolver("m", base_url=server.url, seed=3, sample=sample), toys[:1])
    seeds = [body["seed"] for body in server.bodies()]
    assert seeds[0] == 3
    assert seeds[1] != 3


def test_asking_again_costs_nothing(server, toys, tmp_path, monkeypatch):
    settings = {"base_url": server.url, "cache": tmp_path / "cache", "price_in": 1, "price_out": 1}
    first = ask(EndpointSolver("m", **settings), toys[:20])
    monkeypatch.delenv("OPENAI_API_KEY")
    server.script = [bad.error(500)]
    again = EndpointSolver("m", **settings)
    results = ask(again, toys[:20])
    assert {i: r.text for i, r in results.items()} == {i: r.text for i, r in first.items()}
    assert {r.completion_tokens for r in results.values()} == {50}
    assert (again.cached, again.spent, len(server.requests)) == (20, 0, 20)
    for other in ({"temperature": 1.0}, {"sample": 1}, {"seed": 1}, {"max_new_tokens": 9}):
        assert EndpointSolver("m", **settings, **other).estimate(toys[:20])["cached"] == 0
    assert EndpointSolver("n", **settings).estimate(toys[:20])["cached"] == 0


def test_a_torn_line_of_the_cache_is_asked_again_and_failures_are_not_kept(server, toys, tmp_path):
    settings = {"base_url": server.url, "cache": tmp_path, "retries": 0}
    server.script = [bad.error(500)] * 3 + [bad.right]
    ask(EndpointSolver("m", **settings), toys[:20])
    (file,) = tmp_path.glob("*.jsonl")
    key, rest = file.read_text().split("\n")[0][9:73], '"text": 7, "finish_reason": "stop"'
    odd = f'{{"key": "{key}", {rest}, "prompt_tokens": [], "completion_tokens": 1}}\n'
    deep = "[" * 100_000 + "\n" + "1" * 5_000 + "\n"
    file.write_bytes(b"not json\n" + file.read_bytes()[:-7])
    (tmp_path / "0.jsonl").write_text(odd + deep + "null\n{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    solver = EndpointSolver("m", **settings)
    results = ask(solver, toys[:20])
    assert {i: r.text for i, r in results.items()} == {p.id: bad.expected(p) for p in toys[:20]}
    assert solver.cached == 16
    assert EndpointSolver("m", **settings).estimate(toys[:20])["cached"] == 20


def test_max_cost_is_never_exceeded_and_the_rest_is_owed(server, toys, tmp_path):
    write_puzzles(toys, tmp_path / "puzzles.parquet")

    def run(**settings):
        solver = EndpointSolver(
            "m", base_url=server.url, max_new_tokens=50, price_in=10, price_out=100, **settings
        )
        solve(tmp_path / "puzzles.parquet", solver, tmp_path / "run")
        return solver, sum("failure" not in r for r in read_records(tmp_path / "run"))

    each = (100 * 10 + 50 * 100) / 1e6
    most = EndpointSolver("m", price_in=10, price_out=100, max_new_tokens=50)
    most = most.estimate(toys)["max_cost"] / 60
    limit = 10 * each + most * 1.5
    first, done = run(max_cost=limit)
    assert first.spent == pytest.approx(done * each)
    assert 10 <= done <= limit / each
    assert "USD" in first.stopped
    assert len(server.requests) == done
    second, done = run(max_cost=0.0)
    assert (len(server.requests), second.spent) == (len(server.requests), 0)
    third, done = run()
    assert done == 60
    assert third.stopped is None
    assert len(server.requests) == 60
    assert third.spent + first.spent == pytest.approx(60 * each)


def test_answers_without_counts_are_charged_in_full(server, toys):
    server.script = [bad.says({"content": "a"}, usage=None)]
    solver = EndpointSolver("m", base_url=server.url, price_in=0, price_out=1, max_new_tokens=1000)
    assert ask(solver, toys[:2])[toys[0].id].completion_tokens is None
    assert solver.spent == pytest.approx(2 * 0.001)


def test_failures_are_owed_and_asked_again(server, toys, tmp_path):
    write_puzzles(toys[:20], tmp_path / "puzzles.parquet")
    server.script = [bad.truncated_json] * 4 + [bad.error(404)] * 3 + [bad.right]
    for asked in (20, 27):
        solver = EndpointSolver("m", base_url=server.url, retries=0)
        solve(tmp_path / "puzzles.parquet", solver, tmp_path / "run")
        assert len(server.requests) == asked
    puzzles, records = read_solved(tmp_path / "run")
    assert {i: r["text"] for i, r in records.items()} == {p.id: bad.expected(p) for p in puzzles}


def test_no_secret_is_ever_written(server, toys, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    write_puzzles(toys, tmp_path / "puzzles.parquet")
    server.script = [bad.echo(s) for s in (200, 203, 400, 403, 404, 429, 500, 200)]
    host = server.url.removeprefix("http://")
    kinds = {
        "run": {"base_url": server.url},
        "query": {"base_url": f"http://{host}?token=query-secret-99"},
        "user": {"base_url": f"http://someone:password-secret-99@{host}"},
    }
    for name, kind in kinds.items():
        solver = EndpointSolver("m", **kind, retries=1, cache=tmp_path / f"{name}-cache")
        solve(tmp_path / "puzzles.parquet", solver, tmp_path / name)
        assert solver.settings["base_url"] == server.url
        logging.getLogger(__name__).info("%s %s", solver.settings, solver)
    server.script = [bad.echo(401)]
    with pytest.raises(InputError) as caught:
        ask(EndpointSolver("m", base_url=server.url, sample=1), toys)
    sent = [{**headers, "path": path} for path, headers, _ in server.requests]
    assert any("query-secret-99" in request["path"] for request in sent)
    basic = {request["authorization"] for request in sent if "Basic" in request["authorization"]}
    assert len(basic) == 1
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 6
    written += [p.encode() for p in (caplog.text, *capfd.readouterr(), str(caught.value))]
    assert "HTTP Request: POST" in caplog.text
    for secret in (KEY[:8], KEY[-8:], "-secret-99", basic.pop().split()[1]):
        assert not [text for text in written if secret.encode() in text]


def test_placeholders_for_keys_are_no_secrets(server, toys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "cell")
    assert ask_one(server, toys[0], bad.right).text == bad.expected(toys[0])
    assert " | ".join(toys[0].candidates) in bad.expected(toys[0])
    assert server.requests[0][1]["authorization"] == "Bearer cell"
    assert server.requests[0][1]["accept-encoding"] == "identity"
    monkeypatch.delenv("OPENAI_API_KEY")
    ask_one(server, toys[0], bad.right)
    assert server.requests[1][1]["authorization"] == "Bearer none"


def test_a_missing_or_damaged_key_is_an_error_that_does_not_show_it(toys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        ask(EndpointSolver("m"), toys)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(InputError, match="characters that no key has") as caught:
        ask(EndpointSolver("m"), toys)
    assert KEY not in str(caught.value)


def test_a_dry_run_sends_nothing_and_shows_all(server, toys):
    solver = EndpointSolver(
        "m", base_url=server.url, price_in=1, price_out=2, max_new_tokens=1_000_000
    )
    shown = list(solver.dry_run(toys))
    estimate = solver.estimate(toys)
    assert server.requests == []
    characters = sum(len(turn["content"]) for turns in shown for turn in turns)
    assert estimate["prompts"] == 60
    assert estimate["prompt_tokens"] == pytest.approx(characters / 4, rel=0.01)
    assert estimate["max_completion_tokens"] == 60_000_000
    assert estimate["max_cost"] == pytest.approx(120 + characters / 4e6, rel=1e-4)
    ask(solver, toys)
    sent = [json.dumps(body["messages"]) for body in server.bodies()]
    assert sorted(sent) == sorted(json.dumps(turns) for turns in shown)


def test_it_works_inside_a_running_loop_as_in_notebooks_and_twice(server, toys):
    solver = EndpointSolver("m", base_url=server.url, in_flight=3)

    async def notebook():
        return ask(solver, toys[:9])

    assert len(asyncio.run(notebook())) == 9
    assert len(ask(solver, toys[9:20])) == 11


def test_an_error_of_the_caller_comes_through_and_ends_the_calls(server, toys):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        EndpointSolver("m", base_url=server.url).solve(toys, full)
    time.sleep(0.2)
    assert len(server.requests) <= 2 * 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_flight": 0}, "in_flight is 0"),
        ({"per_minute": 0}, "per_minute is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"max_cost": 1.0}, "needs both prices"),
        ({"base_url": "user:secret@host"}, "not an address such as"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UseError, match=message) as caught:
        EndpointSolver("m", **settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("permute", [False, True])
def test_votes_tell_what_they_would_send_and_what_they_spent(server, toys, permute, tmp_path):
    asking = SolveSettings(
        solver="openai:m", base_url=server.url, samples=3, permute=permute,
        price_in=10, price_out=100, max_new_tokens=50,
    )  # fmt: skip
    voting, single = choose_solver(asking), choose_solver(
        asking.model_copy(update={"samples": 1, "permute": False})
    )  # fmt: skip
    assert isinstance(voting, RemoteSolver)
    sent = list(voting.dry_run(toys[:4]))
    assert (len(sent), len(server.requests)) == (12, 0)
    assert len({str(chat) for chat in sent}) == (12 if permute else 4)
    estimate = voting.estimate(toys[:4])
    assert estimate["prompts"] == 12
    assert estimate["max_cost"] == pytest.approx(3 * single.estimate(toys[:4])["max_cost"], rel=0.1)
    ask(voting, toys[:4])
    assert Counter(str(body["messages"]) for body in server.bodies()) == Counter(map(str, sent))
    assert voting.spent == pytest.approx(12 * (100 * 10 + 50 * 100) / 1e6)
    assert voting.stopped is None


def test_a_vote_that_stops_says_why(server, toys):
    asking = SolveSettings(
        solver="openai:m", base_url=server.url, samples=2,
        price_in=10, price_out=100, max_new_tokens=50, max_cost=0.02,
    )  # fmt: skip
    voting = choose_solver(asking)
    ask(voting, toys)
    assert "USD" in voting.stopped
    assert 0 < voting.spent <= 0.02


def test_solvers_on_this_machine_are_not_remote(toys):
    for name in ("chance", "markers"):
        assert not isinstance(choose_solver(SolveSettings(solver=name)), RemoteSolver)
    local = VotingSolver(lambda k: choose_solver(SolveSettings(solver="chance", seed=k)), 3)
    assert not isinstance(local, RemoteSolver)


def test_distilling_stores_and_tells_no_password(server, toys, tmp_path, monkeypatch, capsys):
    from cello1 import cli

    write_puzzles(toys[:4], tmp_path / "puzzles.parquet")
    host = server.url.removeprefix("http://").removesuffix("/v1")
    server.script = [bad.echo(200)]

    def distill(password):
        address = f"http://me:{password}@{host}/v1?token=query-secret-99"
        arguments = ["distill", tmp_path / "puzzles.parquet", "--teacher", "openai:m"]
        arguments += ["--option", f"base_url={address}", "--samples", 1, "--out", tmp_path / "run"]
        monkeypatch.setattr("sys.argv", ["cello1", *map(str, arguments)])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr()

    said = [distill("password-secret-99"), distill("other-secret-99")]
    server.script, requests = [bad.right], len(server.requests)
    host = host.replace("127.0.0.1", "localhost")
    said.append(distill("password-secret-99"))
    assert "base_url" in said[-1].err
    assert len(server.requests) == requests
    text = "".join(part for one in said for part in one)
    text += "".join(p.read_text("utf-8", "replace") for p in tmp_path.rglob("*") if p.is_file())
    assert "run.json" in {path.name for path in tmp_path.rglob("*")}
    assert "-secret-99" not in text
