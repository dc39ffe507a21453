"""Servers that mean the same and say it differently: right answers arrive, wrong ones never do."""

import gzip
import json
import random
import zlib
from contextlib import suppress

import misbehaving as bad
import pytest

from cello1.errors import InputError, UseError
from cello1.solvers.base import Failure, Response
from cello1.solvers.endpoint import limits as endpoint_limits
from cello1.solvers.endpoint.solver import EndpointSolver

OBJECTS = [None, True, -1, 0, 1e400, 10**30, "", "x", "\x1b[31m", [], [[]], {}, {"a": {"b": []}}]


@pytest.fixture
def server():
    server = bad.Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint_limits, "_BACK_OFF", lambda state: 0.001)


def ask(server, puzzles, *script, **settings):
    server.script, results = [*script], {}
    settings = {"retries": 2, "timeout": 20.0, **settings}
    solver = EndpointSolver("m", base_url=server.url, **settings)
    solver.solve(puzzles, results.__setitem__)
    return results, solver


def halves(body):
    """Return the think block's text and the answer block of what a model would say."""
    text = bad.said(body)
    thought, _, answer = text.removeprefix("<think>").partition("</think>\n")
    return thought, answer


def wraps(make, **sending):
    """Send what `make` makes of the thoughts and the answer: a message."""

    def behave(handler, body):
        handler.send(200, bad.completion(make(*halves(body))), **sending)

    return behave


def whole(content_of):
    return wraps(lambda t, a: {"content": content_of(f"<think>{t}</think>\n{a}")})


def sends(make, **sending):
    """Send a body made of the right completion."""

    def behave(handler, body):
        content = bad.completion({"role": "assistant", "content": bad.said(body)})
        handler.send(200, make(content), **sending)

    return behave


def over(**changes):
    return sends(lambda content: content | changes)


def usage(**counts):
    return over(usage=counts)


def finish(value):
    return sends(lambda c: c | {"choices": [c["choices"][0] | {"finish_reason": value}]})


def streamed(*tail, thoughts=False, head=b""):
    def behave(handler, body):
        thought, answer = halves(body)
        text = answer if thoughts else bad.said(body)
        deltas = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": thought}] if thoughts else []
        deltas += [{"content": text[i : i + 7]} for i in range(0, len(text), 7)]
        parts = [{"choices": [{"delta": d, "finish_reason": None}]} for d in deltas]
        lines = [json.dumps(part).encode() for part in parts] + [t.encode() for t in tail]
        content = head + b"".join(b"data: " + line + b"\n\n" for line in lines)
        handler.send(200, content, kind="text/event-stream")

    return behave


STOP = '{"choices": [{"delta": {}, "finish_reason": "stop"}]}'
DIALECTS = {
    "parts": whole(lambda t: [{"type": "text", "text": t}]),
    "output text": whole(lambda t: [{"type": "output_text", "text": t, "annotations": []}]),
    "text in pieces": whole(lambda t: [{"type": "text", "text": c} for c in (t[:9], t[9:])]),
    "blocks as parts": whole(lambda t: [{"text": c} for c in t.split("\n")]),
    "nested text": whole(lambda t: [{"type": "text", "text": {"value": t}}]),
    "one part": whole(lambda t: {"type": "text", "text": t}),
    "thinking part": wraps(lambda t, a: {"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": t}]},
        {"type": "text", "text": a},
    ]}),
    "thinking text": wraps(lambda t, a: {"content": [
        {"type": "thinking", "thinking": t, "signature": "x"}, {"type": "text", "text": a},
    ]}),
    "reasoning content": wraps(lambda t, a: {"reasoning_content": t, "content": f"\n\n{a}"}),
    "reasoning": wraps(lambda t, a: {"reasoning": t, "content": a}),
    "reasoning details": wraps(lambda t, a: {
        "content": a, "reasoning_details": [{"type": "reasoning.text", "text": t}],
    }),
    "sealed details": wraps(lambda t, a: {"content": f"<think>{t}</think>\n{a}",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "AAAA"}]}),
    "reasoning summary": wraps(lambda t, a: {
        "content": a, "reasoning_details": [{"type": "reasoning.summary", "summary": t}],
    }),
    "thinking": wraps(lambda t, a: {"thinking": t, "content": a}),
    "half a tag": wraps(lambda t, a: {"reasoning_content": t, "content": f"</think>\n{a}"}),
    "end token": whole(lambda t: t + "<|im_end|>"),
    "end tokens": whole(lambda t: t + " <|eot_id|>\n<|end_of_text|> "),
    "sentence end": whole(lambda t: t + "</s>"),
    "end of turn": whole(lambda t: t + "<end_of_turn>\n<eos>"),
    "wide end token": whole(lambda t: t + "<｜end▁of▁sentence｜>"),
    "whole turn": whole(lambda t: f"<|im_start|>assistant\n{t}<|im_end|>"),
    "begin token": whole(lambda t: f"<s> {t}"),
    "gzip": sends(lambda c: gzip.compress(json.dumps(c).encode()), content_encoding="gzip"),
    "silent gzip": sends(lambda c: gzip.compress(json.dumps(c).encode())),
    "deflate": sends(lambda c: zlib.compress(json.dumps(c).encode()), content_encoding="deflate"),
    "said to be gzip": sends(lambda c: c, content_encoding="gzip"),
    "text/plain": sends(lambda c: c, kind="text/plain; charset=utf-8"),
    "octets": sends(lambda c: c, kind="application/octet-stream"),
    "byte order mark": sends(lambda c: b"\xef\xbb\xbf" + json.dumps(c).encode()),
    "utf-16": sends(lambda c: json.dumps(c).encode("utf-16")),
    "blanks around": sends(lambda c: b"\n\n  " + json.dumps(c).encode() + b"\r\n"),
    "in a list": sends(lambda c: [c]),
    "in a box": sends(lambda c: {"code": 200, "msg": "ok", "data": c}),
    "one choice": sends(lambda c: c | {"choices": c["choices"][0]}),
    "text choice": sends(lambda c: c | {"choices": [
        {"text": c["choices"][0]["message"]["content"], "finish_reason": "stop"}]}),
    "plain message": sends(lambda c: c | {"choices": [
        {"message": c["choices"][0]["message"]["content"]}]}),
    "delta": sends(lambda c: c | {"choices": [
        {"delta": c["choices"][0]["message"], "finish_reason": "stop"}]}),
    "error is null": over(error=None),
    "no id": sends(lambda c: {"choices": c["choices"]}),
    "usage null": over(usage=None),
    "usage list": over(usage=[1, 2]),
    "usage half": usage(prompt_tokens=900.5, completion_tokens=3),
    "usage words": usage(prompt_tokens="many", completion_tokens="50"),
    "usage endless": usage(prompt_tokens=-1, completion_tokens=1e400),
    "usage huge": usage(prompt_tokens=10**400, completion_tokens=True),
    "other usage": usage(input_tokens=900, output_tokens=50),
    "finish 1": finish(1),
    "finish null": finish(None),
    "finish eos": finish("eos"),
    "finish STOP": finish("STOP"),
    "finish end_turn": finish("end_turn"),
    "finish object": finish({"type": "stop", "stop": "</s>"}),
    "streamed": streamed(STOP, "[DONE]"),
    "streamed without done": streamed(STOP),
    "streamed with comments": streamed(STOP, "[DONE]", head=b": hello\n\nevent: message\n"),
    "streamed thoughts": streamed(STOP, '{"choices": [], "usage": {"prompt_tokens": 9}}', "[DONE]",
                                  thoughts=True),
    "reason in a role": wraps(lambda t, a: {"role": None, "content": f"<think>{t}</think>\n{a}",
                                            "tool_calls": [], "audio": None, "refusal": None}),
    "refusal is false": wraps(lambda t, a: {"content": f"<think>{t}</think>\n{a}",
                                            "refusal": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_right_answers_arrive_in_every_dialect_and_are_asked_for_once(server, toys, name):
    results, _ = ask(server, toys[:3], DIALECTS[name])
    assert {i: getattr(r, "text", r) for i, r in results.items()} == {
        p.id: bad.expected(p) for p in toys[:3]
    }
    assert len(server.requests) == 3


def test_there_are_more_than_thirty_dialects():
    assert len(DIALECTS) > 30


LOST = {
    "stream without end": streamed(),
    "stream with an error": streamed('{"error": {"message": "overloaded", "code": 503}}'),
    "tool call": bad.says({"content": None, "tool_calls": [{"function": {"name": "f"}}]}),
    "picture": bad.says({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
    "error 429": lambda h, b: h.send(200, {"error": {"message": "slow down", "code": 429}}),
    "rate limit": lambda h, b: h.send(200, {"error": {"message": "m", "type": "rate_limit_error"}}),
    "nothing": lambda h, b: h.send(200, b""),
    "null": lambda h, b: h.send(200, b"null"),
    "text": lambda h, b: h.send(200, b'"<answer>B cell</answer>"'),
    "deep": lambda h, b: h.send(200, b'{"choices": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    "long number": lambda h, b: h.send(200, b'{"choices": ' + b"1" * 5_000 + b"}"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_no_answer_is_owed_and_tried_as_often_as_the_rule_says(server, toys, name):
    results, _ = ask(server, toys[:1], LOST[name])
    assert isinstance(results[toys[0].id], Failure), results
    assert len(server.requests) == 3


FINAL = {
    "context": (
        {"error": {"message": "prompt is too long: context size 512", "code": 400}},
        "HTTP 400 within HTTP 200: prompt is too long: context size 512; list fewer genes per cell",
    ),
    "detail": ({"detail": "Not Found", "code": "404"}, "does this server know|knows, and"),
    "list": ([{"error": {"message": "bad", "status": "INVALID_ARGUMENT", "code": 400}}], "bad"),
}


@pytest.mark.parametrize("name", FINAL)
def test_an_error_under_status_200_fails_as_it_would_under_its_own(server, toys, name):
    body, reason = FINAL[name]
    results, _ = ask(server, toys[:1], lambda h, b: h.send(200, body))
    said = results[toys[0].id].reason
    assert any(part in said for part in reason.split("|"))
    assert len(server.requests) == 1


def test_a_wrong_key_under_status_200_stops_the_run(server, toys):
    wrong = {"error": {"message": "no", "type": "authentication_error"}}
    with pytest.raises(InputError, match="does not accept OPENAI_API_KEY"):
        ask(server, toys[:1], lambda h, b: h.send(200, wrong))


def has_system(body):
    return body["messages"][0]["role"] == "system"


def too_long(most, name="max_tokens"):
    return lambda body: body.get(name, 10**6) > most


def refuses(status, content, fails):
    """Refuse requests for which `fails`; answer the others."""

    def behave(handler, body):
        if fails(body):
            handler.send(status, {"error": content} if isinstance(content, dict) else content)
        else:
            bad.right(handler, body)

    return behave


def words(text, **fields):
    return {"message": text, **fields}


REFUSALS = {
    "gemma": (400, words("System role not supported"), has_system, "system"),
    "mistral": (400, words("Conversation roles must alternate user/assistant/user/assistant/..."),
                has_system, "system"),
    "template": (500, words("jinja2.exceptions.TemplateError: Only user and assistant roles are "
                            "supported!"), has_system, "system"),
    "alternate 500": (500, words("After the optional system message, conversation roles must "
                                 "alternate user/assistant"), has_system, "system"),
    "first user": (422, words("the conversation must start with a user message"), has_system,
                   "system"),
    "param": (400, words("Invalid value: 'system'.", param="messages[0].role"), has_system,
              "system"),
    "detail": (422, {"detail": [{"loc": ["body", "messages", 0, "role"],
                                 "msg": "Input should be 'user' or 'assistant'"}]}, has_system,
               "system"),
    "developer": (400, words("Developer instruction is not enabled for models/gemma-3"),
                  has_system, "system"),
    "unexpected": (400, words("Unexpected role 'system' after none"), has_system, "system"),
    "renamed": (400, words("Unsupported parameter: 'max_tokens' is not supported with this model. "
                           "Use 'max_completion_tokens' instead.", param="max_tokens",
                           code="unsupported_parameter"), lambda b: "max_tokens" in b,
                "max_tokens"),
    "code alone": (400, words("Nope.", param="temperature", code="unsupported_value"),
                   lambda b: "temperature" in b, "temperature"),
    "only default": (400, words("'temperature' does not support 0 with this model. Only the "
                                "default (1) value is supported."), lambda b: "temperature" in b,
                     "temperature"),
    "positive": (422, words("`temperature` must be strictly positive"),
                 lambda b: b.get("temperature") == 0, "zero"),
    "positive, then not": (400, words("temperature must be in (0, 1]; it is not supported"),
                           lambda b: "temperature" in b, "zero temperature"),
    "extra seed": (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not "
                                     "permitted", "type": "extra_forbidden"}]},
                   lambda b: "seed" in b, "seed"),
    "unknown name": (400, words("Unrecognized request argument supplied: seed"),
                     lambda b: "seed" in b, "seed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_understood_and_learned_once(server, toys, name):
    status, content, fails, refused = REFUSALS[name]
    results, solver = ask(server, toys[:12], refuses(status, content, fails), in_flight=1)
    assert {i: getattr(r, "text", r) for i, r in results.items()} == {
        p.id: bad.expected(p) for p in toys[:12]
    }
    assert solver.refused == set(refused.split())
    assert len(server.requests) == 12 + len(solver.refused)
    assert len(solver.told) == len(solver.refused - {"max_tokens"})


TOO_LONG = {
    "openai": (words("max_tokens is too large: 3500. This model supports at most 2048 completion "
                     "tokens, whereas you provided 3500."), 2048),
    "range": (words("Invalid max_tokens value, the valid range of max_tokens is [1, 2000]"), 2000),
    "groq": (words("`max_tokens` must be less than or equal to `1024`"), 1024),
    "anthropic": (words("max_tokens: 3500 > 2048, which is the maximum allowed number of output "
                        "tokens"), 2048),
    "no number": (words("max_tokens is above the limit of this deployment"), 875),
    "param": (words("This value is too large.", param="max_tokens", code="invalid_value"), 1750),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_budget_that_is_too_large_is_lowered_once_and_said(server, toys, name):
    content, most = TOO_LONG[name]
    results, solver = ask(server, toys[:8], refuses(400, content, too_long(most)), in_flight=1)
    assert all(isinstance(r, Response) for r in results.values()), results
    assert len(server.requests) <= 8 + 2
    assert server.bodies()[-1]["max_tokens"] == most
    assert any("--max-new-tokens" in line and f"{most:,}" in line for line in solver.told)


@pytest.mark.parametrize(
    "template",
    [
        "This model's maximum context length is {c} tokens. However, you requested {t} tokens "
        "({p} in the messages, {m} in the completion). Please reduce the length.",
        "'max_tokens' or 'max_completion_tokens' is too large: {m}. This model's maximum context "
        "length is {c} tokens and your request has {p} input tokens ({m} > {c} - {p}).",
        "`inputs` tokens + `max_new_tokens` must be <= {c}. Given: {p} `inputs` tokens and {m} "
        "`max_new_tokens`",
    ],
)
def test_a_budget_beyond_the_context_is_made_to_fit(server, toys, template):
    context = 2_000

    def count(body):
        return sum(len(m["content"]) for m in body["messages"]) // 3

    def behave(handler, body):
        p, m = count(body), body["max_tokens"]
        said = template.format(c=context, p=p, m=m, t=p + m)
        (bad.error(400, said) if p + m > context else bad.right)(handler, body)

    results, solver = ask(server, toys[:20], behave, in_flight=1)
    assert all(isinstance(r, Response) for r in results.values()), results
    assert len(server.requests) <= 20 + 4
    last = server.bodies()[-1]
    assert context // 2 < count(last) + last["max_tokens"] <= context
    assert any("--max-new-tokens" in line for line in solver.told)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_prompts_follow_no_redirect_to_another_place(server, toys, status):
    elsewhere = bad.Server()
    try:
        place = elsewhere.url + "/chat/completions"

        def moved(handler, body):
            handler.send(status, b"", location=place)

        with pytest.raises(InputError, match=r"redirects to .*--base-url"):
            ask(server, toys[:4], moved, in_flight=1)
        assert elsewhere.requests == []
        assert len(server.requests) == 1
    finally:
        elsewhere.stop()


def test_a_redirect_within_the_server_is_followed(server, toys):
    def behave(handler, body):
        if handler.path.endswith("/there"):
            bad.right(handler, body)
        else:
            handler.send(308, b"", location="/v1/there")

    results, _ = ask(server, toys[:2], behave)
    assert {r.text for r in results.values()} == {bad.expected(p) for p in toys[:2]}


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5://user:hunter2-secret@127.0.0.1:1", "cannot be used"),
        ("http://127.0.0.1:99999", "cannot be used"),
        ("nonsense://x", "cannot be used"),
        ("http://user:hunter2-secret@127.0.0.1:1", "connection failed"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line_without_its_password(
    monkeypatch, toys, proxy, said
):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    solver, results = EndpointSolver("m", base_url="http://example.org/v1", retries=0), {}
    try:
        solver.solve(toys[:1], results.__setitem__)
        told = results[toys[0].id].reason
    except InputError as error:
        told = str(error)
        assert "HTTP_PROXY" in told
    assert said in told or "cannot be used" in told
    assert "hunter2" not in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "url",
    [
        "http://host:99999/v1",
        "http://host:port/v1",
        "http://host:0/v1",
        "http://[::1/v1",
        "http://[zz]:80/v1",
        "http://user:pa/ss-secret@host/v1",
        "http://user:12/34-secret@host/v1",
        "http://user:pa?ss-secret@host/v1",
        "http://user:pa#ss-secret@host/v1",
        "ftp://host/v1",
        "http:///v1",
    ],
)
def test_an_odd_base_url_is_refused_without_being_shown(url):
    with pytest.raises(UseError, match="base URL") as caught:
        EndpointSolver("m", base_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1]:8000/v1", "https://u:p%2Fq@host:1/v1/?k=a@b"])
def test_a_sound_base_url_is_taken(url):
    plain = EndpointSolver("m", base_url=url).settings["base_url"]
    assert "@" not in plain
    assert plain.endswith("/v1")


def test_empty_answers_that_were_paid_for_never_exceed_the_limit(server, toys):
    prices = {"price_in": 10, "price_out": 100, "max_new_tokens": 50}
    limit = 0.03
    results, solver = ask(
        server, toys, bad.says({"content": ""}), retries=6, max_cost=limit, **prices
    )
    assert solver.spent <= limit
    assert not any(isinstance(r, Response) for r in results.values())


def mutated(rng, value):
    """Change one place of a JSON value at random."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(rng, value[at]), *value[at + 1 :]]
    return rng.choice(OBJECTS)


def test_a_thousand_mutated_bodies_end_in_answers_or_reasons(server, toys):
    rng = random.Random(0)
    kinds = [DIALECTS[k] for k in ("thinking part", "reasoning details", "no id", "finish eos")]

    class Caught:
        """Take what a dialect would send, to send it damaged."""

        def send(self, status, content, **_):
            self.content = content

    def behave(handler, body):
        caught = Caught()
        rng.choice(kinds)(caught, body)
        content = caught.content
        status = rng.choice([200] * 8 + [400, 422, 500])
        for _ in range(rng.randint(1, 3)):
            content = mutated(rng, content)
        data = json.dumps(content, default=str).encode()
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            data = data[:at] + bytes(rng.randrange(256) for _ in range(4)) + data[at + 2 :]
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        handler.send(status, data, kind=rng.choice(["application/json", "text/plain", ""]))

    answered = failed = 0
    for _ in range(20):
        with suppress(InputError):  # a body may well say that the key is wrong
            results, _ = ask(server, toys[:50], behave, retries=0)
        for result in results.values():
            if isinstance(result, Failure):
                failed += 1
                assert result.reason
                assert "\n" not in result.reason
            else:
                answered += 1
                assert result.text.strip()
    assert answered > 100
    assert failed > 100
