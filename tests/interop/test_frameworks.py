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

    from cello1.interop.verifiers import CellPuzzles, CellPuzzlesConfig

    write_puzzles(toys, tmp_path / "test.parquet")
    tasks = list(CellPuzzles(CellPuzzlesConfig(puzzles=str(tmp_path / "test.parquet"))))
    assert [task.data.id for task in tasks] == [puzzle.id for puzzle in toys]
    assert tasks[0].data.system_prompt == messages(toys[0])[0].content
    for name in METRICS:
        worth = [
            asyncio.run(getattr(task, name)(SimpleNamespace(last_reply=responses[task.data.id])))
            for task in tasks
        ]
        assert sum(worth) / len(worth) == pytest.approx(
            getattr(evaluated.overall, name).estimate, abs=1e-12
        )
