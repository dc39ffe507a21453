"""The same responses through the real frameworks; `make test-interop` has them all."""

import pytest

from cello1.interop.figures import METRICS, figures
from cello1.interop.lm_eval import export_lm_eval
from cello1.puzzles.prompt import messages
from cello1.puzzles.table import write_puzzles


def test_lm_eval(toys, responses, evaluated, tmp_path):
    lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: make test-interop")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    export_lm_eval(toys, tmp_path / "tasks" / "cellpuzzles")
    by_prompt = {}
    for puzzle in toys:
        chat = [dict(message._asdict()) for message in messages(puzzle)]
        by_prompt[repr([(m["role"], m["content"]) for m in chat])] = responses[puzzle.id]

    class Spoken(LM):
        """Says what is in store for exactly our chat."""

        tokenizer_name = "spoken"

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return repr([(m["role"], m["content"]) for m in chat_history])

        def generate_until(self, requests):
            return [by_prompt[request.args[0]] for request in requests]

        def loglikelihood(self, requests):
            raise AssertionError("never asked")

        loglikelihood_rolling = loglikelihood

    found = lm_eval.simple_evaluate(
        Spoken(),
        tasks=["cellpuzzles"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks")),
        apply_chat_template=True,
        bootstrap_iters=0,
    )["results"]["cellpuzzles"]
    for name in METRICS:
        assert found[f"{name},none"] == getattr(evaluated.overall, name).estimate


def test_inspect(toys, responses, evaluated, tmp_path):
    inspect_ai = pytest.importorskip("inspect_ai", reason="needs inspect-ai: make test-interop")
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from cello1.interop.inspect import cellpuzzles

    write_puzzles(toys, tmp_path / "test.parquet")
    by_user = {messages(p)[1].content: responses[p.id] for p in toys}

    def say(prompt, tools, choice, config):
        output = ModelOutput.from_content("mockllm/model", by_user[prompt[-1].text])
        output.usage = ModelUsage()
        return output

    log = inspect_ai.eval(
        cellpuzzles(str(tmp_path / "test.parquet")),
        model=get_model("mockllm/model", custom_outputs=say),
        log_dir=str(tmp_path / "logs"),
        display="none",
    )[0]
    assert log.status == "success", log.error
    scores = {score.name: score.metrics for score in log.results.scores}
    for name in METRICS:
        mean = scores["batch_accuracy" if name == "batch_accuracy" else name]
        key = "accuracy" if name == "batch_accuracy" else "mean"
        assert mean[key].value == pytest.approx(
            getattr(evaluated.overall, name).estimate, abs=1e-12
        )
    assert scores["batch_accuracy"]["stderr"].value > 0


def test_inspect_gets_a_reasoning_back_that_its_provider_took_out(toys, responses):
    pytest.importorskip("inspect_ai", reason="needs inspect-ai: make test-interop")
    from inspect_ai.model import ContentReasoning, ContentText, ModelOutput

    from cello1.interop.inspect import _response

    text = responses[toys[0].id]
    thought, content = parted(text)
    parts = [ContentReasoning(reasoning=thought), ContentText(text=content)]
    assert _response(ModelOutput.from_content("m", parts)) == text
    assert _response(ModelOutput.from_content("m", text)) == text
    assert _response(ModelOutput()) == ""


def test_reasoning_gym(toys, responses, evaluated, tmp_path):
    gym = pytest.importorskip("reasoning_gym", reason="needs reasoning-gym: make test-interop")
    from cello1.interop import reasoning_gym as ours

    write_puzzles(toys, tmp_path / "test.parquet")
    data = gym.create_dataset(ours.NAME, puzzles=str(tmp_path / "test.parquet"), size=len(toys))
    texts = [responses[puzzle.id] for puzzle in toys]
    worth = [data.score_answer(text, item) for text, item in zip(texts, data, strict=True)]
    assert sum(worth) / len(worth) == evaluated.overall.batch_accuracy.estimate
    shifted = gym.create_dataset(
        ours.NAME, puzzles=str(tmp_path / "test.parquet"), size=5, seed=3, permute=True
    )
    again = gym.create_dataset(
        ours.NAME, puzzles=str(tmp_path / "test.parquet"), size=5, seed=3, permute=True
    )
    for i in range(5):
        assert shifted[i] == again[i]
        row = shifted[i]["metadata"]["row"]
        gold = f"<think></think>\n<answer>{shifted[i]['answer']}</answer>"
        assert figures(row, gold)["batch_accuracy"] == 1
        assert sorted(row["assistant_msg"].split(" | ")) == sorted(toys[(3 + i) % 30].answer)


def test_verifiers(toys, responses, evaluated, tmp_path):
    pytest.importorskip("verifiers.v1", reason="needs verifiers: make test-interop")
    import asyncio
    from types import SimpleNamespace

    from verifiers.v1.utils.loaders import default_harness_id, harness_class, taskset_class

    from cello1.interop.verifiers import CellPuzzles, CellPuzzlesConfig, OneAnswer

    write_puzzles(toys, tmp_path / "test.parquet")
    # As `vf-eval cello1-cellpuzzles` finds the taskset, and who asks for it.
    assert taskset_class("cello1-cellpuzzles") is CellPuzzles
    assert harness_class(default_harness_id("cello1-cellpuzzles")) is OneAnswer
    tasks = list(CellPuzzles(CellPuzzlesConfig(puzzles=str(tmp_path / "test.parquet"))))
    assert [task.data.id for task in tasks] == [puzzle.id for puzzle in toys]
    assert tasks[0].data.system_prompt == messages(toys[0])[0].content
    traces = {True: {}, False: {}}
    for task in tasks:
        text = responses[task.data.id]
        thought, content = parted(text)
        said = SimpleNamespace(reasoning_content=None)
        traces[False][task.data.id] = SimpleNamespace(last_reply=text, assistant_messages=[said])
        # As servers that take the reasoning out send it.
        said = SimpleNamespace(reasoning_content=thought)
        traces[True][task.data.id] = SimpleNamespace(last_reply=content, assistant_messages=[said])
    for name in METRICS:
        for found in traces.values():
            worth = [asyncio.run(getattr(task, name)(found[task.data.id])) for task in tasks]
            assert sum(worth) / len(worth) == pytest.approx(
                getattr(evaluated.overall, name).estimate, abs=1e-12
            )


def test_who_asks_for_verifiers_sends_the_chat_and_says_what_went_wrong(toys):
    pytest.importorskip("verifiers.v1", reason="needs verifiers: make test-interop")
    import asyncio
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from types import SimpleNamespace

    import verifiers.v1 as vf

    from cello1.interop.verifiers import OneAnswer, _data

    heard = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(200 if len(heard) == 1 else 500)
            self.end_headers()
            self.wfile.write(b"overloaded")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    harness = OneAnswer(vf.HarnessConfig(id="cello1-cellpuzzles"))
    where = (f"http://127.0.0.1:{server.server_port}/v1", "secret", {}, _data(toys[0], False))
    context = SimpleNamespace(model="m")
    good, bad = (asyncio.run(harness.launch(context, None, None, *where)) for _ in range(2))
    server.shutdown()
    assert (good.exit_code, bad.exit_code, bad.stderr) == (0, 1, "overloaded")
    chat = [message._asdict() for message in messages(toys[0])]
    assert heard[0] == (
        "/v1/chat/completions", "Bearer secret", {"model": "m", "messages": chat}
    )  # fmt: skip


def parted(text):
    """Return reasoning and rest as a server tells them apart."""
    if "</think>" not in text:
        return None, text
    thought, _, content = text.partition("</think>")
    return thought.removeprefix("<think>"), content.strip()
