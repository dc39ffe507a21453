"""The vLLM engine, and a real vLLM server; run by `make test-vllm`.

This folder must not be called `vllm`: a folder beside the other tests would be importable under
its name, and libraries that look for vLLM would take it for the real one.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import openai
import pytest

from cello1.errors import InputError
from cello1.puzzles.answer import Answer, parse_response
from cello1.recipes import SolveSettings
from cello1.scoring.score import score
from cello1.solvers.base import Failure
from cello1.solvers.choose import choose_solver
from cello1.solvers.endpoint.solver import EndpointSolver
from cello1.solvers.local.language import LanguageSolver
from cello1.solvers.local.vllm import VllmSolver, load
from cello1.solvers.vote import VotingSolver

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own: make test-vllm")

START_SECONDS, TOKENS = 400, 40


@pytest.fixture(scope="module")
def model(tiny_model):
    return str(tiny_model)


def texts(results):
    return {i: r.text for i, r in results.items()}


def alike(one, other):
    return sum(one[i] == other[i] for i in one) / len(one)


def test_greedy_answers_are_those_of_transformers(model, language, toys, answers):
    ours = answers(VllmSolver(model, max_new_tokens=TOKENS), toys)
    home = answers(LanguageSolver(language, max_new_tokens=TOKENS), toys)
    same = alike(texts(ours), texts(home))
    print(f"greedy texts equal: {same:.3f}")
    # Both add up float32 numbers in other orders, which decides near-ties.
    assert same >= 0.9
    for i, r in ours.items():
        assert r.prompt_tokens == home[i].prompt_tokens
        if r.text == home[i].text:
            assert r.completion_tokens == home[i].completion_tokens
            assert r.finish_reason == home[i].finish_reason
            assert r.logprob == pytest.approx(home[i].logprob, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_valid_makes_an_untrained_model_answer_every_puzzle(
    model, language, toys, answers, temperature
):
    settings = {"valid": True, "temperature": temperature, "max_new_tokens": 90}
    results = answers(VllmSolver(model, **settings), toys)
    scores = [score(p, results[p.id].text) for p in toys]
    assert all(s.format_valid and s.complete and s.uniqueness == 1.0 for s in scores)
    assert all(r.completion_tokens <= 90 and r.seconds > 0 for r in results.values())
    if temperature == 0:
        home = answers(LanguageSolver(language, **settings), toys)
        same = alike(texts(results), texts(home))
        print(f"valid greedy texts equal: {same:.3f}")
        # Labels already chosen are read as the tokenizer spells them; `GuidedWriter` reads them
        # as the model happened to, which an untrained one does oddly.
        assert same >= 0.7


def test_valid_without_room_for_thoughts(model, toys, answers):
    results = answers(VllmSolver(model, valid=True, max_new_tokens=1), toys[:8])
    for puzzle in toys[:8]:
        assert score(puzzle, results[puzzle.id].text).format_valid
        assert "<think></think>" in results[puzzle.id].text


def test_samples_depend_on_seed_and_sample(model, toys, answers):
    def sampled(puzzles, **more):
        solver = VllmSolver(model, temperature=1.0, max_new_tokens=30, **more)
        return texts(answers(solver, puzzles))

    first = sampled(toys[:10])
    again = sampled(toys[:10][::-1])
    print(f"sampled texts equal in another order: {alike(first, again):.3f}")
    assert alike(first, again) >= 0.9
    assert alike(first, sampled(toys[:10], sample=1)) == 0
    assert alike(first, sampled(toys[:10], seed=1)) == 0


def test_a_prompt_beyond_the_context_is_refused_by_name_and_the_others_go_on(
    model, language, toys, answers, monkeypatch
):
    lengths = sorted(len(language.prompt(p)[0]) for p in toys[:8])
    monkeypatch.setattr(load(model), "context", lengths[4])
    results = answers(VllmSolver(model, max_new_tokens=5), toys[:8])
    failures = {i: r for i, r in results.items() if isinstance(r, Failure)}
    assert 0 < len(failures) < 8
    assert all(i in r.reason and str(lengths[4]) in r.reason for i, r in failures.items())
    guided = answers(VllmSolver(model, valid=True, max_new_tokens=5), toys[:8])
    assert all(isinstance(r, Failure) for r in guided.values())


def test_a_run_that_is_broken_off_leaves_nothing_in_the_engine(model, toys, answers):
    plain = answers(VllmSolver(model, max_new_tokens=10), toys[:12])

    def stop(puzzle_id, result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VllmSolver(model, max_new_tokens=10).solve(toys[:12], stop)
    assert not load(model).llm.llm_engine.has_unfinished_requests()
    assert texts(answers(VllmSolver(model, max_new_tokens=10), toys[:12])) == texts(plain)


def test_votes_share_one_engine(model, toys, answers):
    settings = SolveSettings(
        solver=f"hf:{model}", engine="vllm", valid=True, samples=3, max_new_tokens=60
    )
    solver = choose_solver(settings)
    assert isinstance(solver, VotingSolver)
    assert solver.sampler(0).model is solver.sampler(1).model
    results = answers(solver, toys[:6])
    for puzzle in toys[:6]:
        assert score(puzzle, results[puzzle.id].text).format_valid
        assert 1 / 3 <= results[puzzle.id].agreement <= 1


def test_what_cannot_be_loaded_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="expected a folder with config"):
        VllmSolver(tmp_path / "nothing")


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The address of a real vLLM server with the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("server") / "log"
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        while not answering(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - start < START_SECONDS, log.read_text()
            time.sleep(0.5)
        print(f"the server started in {time.monotonic() - start:.0f} s")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answering(port):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_server_answers_as_the_model_does_at_home(served, language, toys, answers):
    solver = EndpointSolver("tiny", base_url=served, max_new_tokens=TOKENS, retries=1)
    results = answers(solver, toys[:20])
    assert solver.refused == set()
    home = answers(LanguageSolver(language, max_new_tokens=TOKENS), toys[:20])

    def plain(text):
        # The server leaves out the special tokens that an untrained model likes to write, even
        # between the bytes of one character.
        return re.sub(r"<\|\w+\|>|[^!-~]", "", text)

    one, other = ({i: plain(r.text) for i, r in both.items()} for both in (results, home))
    same = alike(one, other)
    print(f"served texts equal: {same:.3f}")
    for i, r in results.items():
        assert r.prompt_tokens == home[i].prompt_tokens
        assert 0 < r.completion_tokens <= TOKENS
        assert r.finish_reason in ("stop", "length")
    assert same >= 0.9


def test_a_server_repeats_a_seed(served, toys, answers):
    def sampled(**more):
        solver = EndpointSolver(
            "tiny", base_url=served, max_new_tokens=20, temperature=1.0, retries=1, **more
        )
        return texts(answers(solver, toys[:20]))

    first, again = sampled(), sampled()
    print(f"served samples equal: {alike(first, again):.3f}")
    assert alike(first, again) >= 0.9
    assert alike(first, sampled(seed=1)) < 0.5
    assert alike(first, sampled(sample=1)) < 0.5


def test_a_server_lets_samples_vote(served, toys, answers):
    def sampler(k):
        return EndpointSolver(
            "tiny", base_url=served, max_new_tokens=20, temperature=1.0, sample=k, retries=1
        )

    results = answers(VotingSolver(sampler, 3, permute=True), toys[:20])
    for puzzle in toys[:20]:
        result = results[puzzle.id]
        assert isinstance(parse_response(result.text), Answer)
        assert score(puzzle, result.text).uniqueness == 1.0
        assert 3 <= result.completion_tokens <= 60


def test_a_server_stops_offers_choices_and_counts(served):
    """What we may come to ask of servers that have it."""
    client = openai.OpenAI(base_url=served, api_key="none")
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "Cell 1"}], "seed": 0}
    plain = client.chat.completions.create(**ask, max_tokens=30, temperature=0)
    said = plain.choices[0].message.content
    stop = said[len(said) // 2 :][:3]
    cut = client.chat.completions.create(**ask, max_tokens=30, temperature=0, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == said[: said.index(stop)]
    assert cut.usage.completion_tokens < plain.usage.completion_tokens

    several = client.chat.completions.create(
        **ask, max_tokens=10, temperature=1, n=3, logprobs=True, top_logprobs=2
    )
    assert len({choice.message.content for choice in several.choices}) == 3
    assert all(len(c.logprobs.content) == 10 for c in several.choices)
    chosen = client.chat.completions.create(
        **ask, max_tokens=30, extra_body={"structured_outputs": {"choice": ["T cell", "B cell"]}}
    )
    assert chosen.choices[0].message.content in ("T cell", "B cell")
