"""One model, one set of puzzles, every harness: the same figures to the last digit.

Run ``python benchmarks/interop.py DATA`` with the folder of the shared data, or with a file of
puzzles. Of each study of ``suite.yaml`` ``--each`` puzzles are taken (25 of 8: 200). The model
(``--model``, by default the embedded one) answers them greedily in float32

* by `cello1 solve`, scored by `cello1 eval`;
* by lm-eval (``--model hf``) and Inspect (``hf`` provider), which generate and score themselves;
* by `transformers serve`, asked and scored by verifiers' `vf-eval`;
* by plain ``generate`` and ``decode(skip_special_tokens=True)``, scored by reasoning-gym;
* by llama.cpp's server from ``cello1 export gguf``, asked by ``cello1 solve --base-url``.

Every command is printed as it is run. The table has the figures that each harness reports, and on
how many puzzles its text is that of `cello1 solve`. Exits with 1 when a figure of the first five
differs; llama.cpp cuts unknown genes another way (docs/interop.md), so it is only shown.

The harnesses pin other versions than ours: ``--harness-bin`` and ``--verifiers-bin`` are the
environments of `make test-interop`, ``--llama-bin`` has ``xllamacpp``, which brings llama.cpp's own
server. Without one of them its rows are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

METRICS = ("cell_accuracy", "batch_accuracy", "format_validity", "uniqueness")
HERE = Path(__file__).parent
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
               "INSPECT_DISPLAY": "none", "LOCAL_KEY": "none"}  # fmt: skip
LLAMA_SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx = sys.argv[1], int(sys.argv[2]), 8192
params.n_parallel, params.warmup = 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@dataclass
class Found:
    """What one harness says.

    Attributes
    ----------
    figures
        Metric -> its mean over all puzzles, as the harness reports it.
    texts
        Puzzle id -> response.
    seconds
        Of the whole command, start included.
    """

    figures: dict[str, float]
    texts: dict[str, str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """What all harnesses are given."""

    puzzles: Path
    model: Path
    work: Path
    budget: int
    batch: int
    port: int
    opened: bool
    bins: dict[str, Path]

    def run(self, where: str, command: str, *arguments: object) -> str:
        """Run a command of one environment, show it, and return what it printed."""
        line = [str(self.bins[where] / command), *map(str, arguments)]
        print("$", shlex.join([command, *line[1:]]), flush=True)
        done = subprocess.run(
            line, env=os.environ | ENVIRONMENT, cwd=self.work, text=True, capture_output=True
        )
        said = done.stdout + done.stderr
        with (self.work / f"{where}-{command}.log").open("a") as log:
            log.write(said)
        if done.returncode:
            sys.exit(f"{command} ended with {done.returncode}:\n{said[-3000:]}")
        return done.stdout

    @contextmanager
    def server(self, where: str, command: str, port: int, *arguments: object) -> Iterator[None]:
        """Keep a server running until it is no longer needed."""
        line = [str(self.bins[where] / command), *map(str, arguments)]
        print("$", shlex.join([command, *line[1:]]), "&", flush=True)
        with (self.work / f"{where}-server.log").open("w") as log:
            process = subprocess.Popen(line, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)
            try:
                until = time.monotonic() + 120
                while not _answers(f"http://127.0.0.1:{port}/health"):
                    if process.poll() is not None or time.monotonic() > until:
                        sys.exit(f"{command} does not answer; see {log.name}")
                    time.sleep(0.5)
                yield
            finally:
                process.terminate()
                process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def cello1(job: Job, solver: str = "", *more: object, run: str = "run") -> Found:
    """Solve and evaluate with our own commands."""
    asked = (solver, *more) if solver else (f"hf:{job.model}", "--decode", "generate")
    job.run("ours", "cello1", "solve", job.puzzles, "--solver", *asked,
            "--max-new-tokens", job.budget, "--out", run)  # fmt: skip
    said = json.loads(job.run("ours", "cello1", "eval", run, "--json"))["runs"][run]["overall"]
    lines = (job.work / run / "responses.jsonl").read_text("utf-8").splitlines()
    texts = {r["id"]: r["text"] for r in map(json.loads, lines) if "text" in r}
    return Found({name: said[name]["estimate"] for name in METRICS}, texts)


def lm_eval(job: Job) -> Found:
    """Run the task folder through the Language Model Evaluation Harness."""
    job.run("ours", "cello1", "export", "lm-eval", job.puzzles, "--out", "task",
            "--max-new-tokens", job.budget, *["--opened"] * job.opened)  # fmt: skip
    job.run("harness", "lm_eval", "--include_path", "task", "--tasks", "cellpuzzles",
            "--apply_chat_template", "--model", "hf",
            "--model_args", f"pretrained={job.model},dtype=float32", "--device", "cpu",
            "--batch_size", job.batch, "--output_path", "lm-eval", "--log_samples")  # fmt: skip
    report = json.loads(next((job.work / "lm-eval").rglob("results_*.json")).read_text("utf-8"))
    means = report["results"]["cellpuzzles"]
    samples = next((job.work / "lm-eval").rglob("samples_*.jsonl")).read_text("utf-8")
    rows = map(json.loads, samples.splitlines())
    texts = {row["doc"]["id"]: row["resps"][0][0] for row in rows}
    return Found({name: means[f"{name},none"] for name in METRICS}, texts)


def inspect(job: Job) -> Found:
    """Run the task that Inspect finds by its entry point."""
    job.run("harness", "inspect", "eval", "cello1/cellpuzzles", "-T", f"puzzles={job.puzzles}",
            "-T", f"max_tokens={job.budget}", *["-T", "opened=true"] * job.opened,
            "--model", "hf/local",
            "-M", f"model_path={job.model}", "-M", "dtype=float32", "-M", "device=cpu",
            "-M", "do_sample=false", "--max-connections", job.batch,
            "--log-dir", "inspect", "--log-format", "json")  # fmt: skip
    log = json.loads(next((job.work / "inspect").glob("*.json")).read_text("utf-8"))
    means = {score["name"]: score["metrics"] for score in log["results"]["scores"]}
    figures = {
        name: next(means[name][key]["value"] for key in ("accuracy", "mean") if key in means[name])
        for name in METRICS
    }
    texts = {s["id"]: s["output"]["choices"][0]["message"]["content"] for s in log["samples"]}
    return Found(figures, texts)


def verifiers(job: Job) -> Found:
    """Ask a local server by vf-eval, which scores."""
    from cello1.puzzles.answer import assembled

    serve = ("serve", job.model, "--dtype", "float32", "--device", "cpu", "--port", job.port)
    with job.server("harness", "transformers", job.port, *serve):
        job.run("verifiers", "vf-eval", "cello1-cellpuzzles",
                "--env.taskset.puzzles", job.puzzles, "-m", job.model,
                "--client.base-url", f"http://127.0.0.1:{job.port}/v1",
                "--client.api-key-var", "LOCAL_KEY", "--sampling.temperature", "0",
                *["--env.taskset.opened", "True"] * job.opened,
                "--sampling.max-tokens", job.budget, "--env.agent.runtime.type", "subprocess",
                "--max-concurrent", 1, "--no-push", "--no-rich", "-o", "vf",
                "--run.dir", "run")  # fmt: skip
    lines = (job.work / "vf" / "run" / "traces.jsonl").read_text("utf-8").splitlines()
    traces = [json.loads(line)["traces"][0] for line in lines]
    rows = [
        trace["metrics"] | {name: r["score"] for name, r in trace["rewards"].items()}
        for trace in traces
    ]
    said = {t["task"]["data"]["id"]: t["nodes"][-1]["message"] for t in traces}
    # This server sends what stands between the tags of a reasoning in a field of its own.
    texts = {
        key: assembled(message.get("content") or "", message.get("reasoning_content") or "")
        for key, message in said.items()
    }
    return Found(_means(rows), texts)


def reasoning_gym(job: Job) -> Found:
    """Generate as any script does, and score by the data set's own method."""
    arguments = (job.puzzles, job.model, job.budget, job.batch, int(job.opened), "gym.json")
    job.run("harness", "python", Path(__file__).resolve(), "--gym", *arguments)
    return Found(**json.loads((job.work / "gym.json").read_text("utf-8")))


def llama_cpp(job: Job) -> Found:
    """Ask llama.cpp's server by our own client."""
    file, port = job.work / "model.gguf", job.port + 1
    job.run("ours", "cello1", "export", "gguf", job.model, "--out", file, "--dtype", "float32")
    with job.server("llama", "python", port, "-c", LLAMA_SERVER, file, port):
        url = f"http://127.0.0.1:{port}/v1"
        return cello1(job, "openai:model", "--base-url", url, "--in-flight", 1, run="llama")


def _gym(puzzles: str, folder: str, budget: str, batch: str, opened: str, out: str) -> None:
    """Run in the environment of the harnesses."""
    import torch
    from reasoning_gym import create_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cello1.interop.reasoning_gym import NAME
    from cello1.puzzles.table import read_puzzles

    size = len(read_puzzles(Path(puzzles)))
    data = create_dataset(NAME, puzzles=puzzles, size=size, opened=bool(int(opened)))
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts, rows = {}, []
    for start in range(0, size, int(batch)):
        items = [data[i] for i in range(start, min(size, start + int(batch)))]
        asked = [item["metadata"]["row"] for item in items]
        chats = [
            [{"role": "system", "content": row["system_msg"]},
             {"role": "user", "content": row["user_msg"]}]
            for row in asked
        ]  # fmt: skip
        prompts = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        said = model.generate(**prompts, do_sample=False, max_new_tokens=int(budget))
        answers = tokenizer.batch_decode(
            said[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for item, row, answer in zip(items, asked, answers, strict=True):
            texts[row["id"]] = answer
            figures = data.figures(answer, item)
            rows.append(figures | {"batch_accuracy": data.score_answer(answer, item)})
    Path(out).write_text(json.dumps({"figures": _means(rows), "texts": texts}))


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    from numpy import mean

    return {name: float(mean([row[name] for row in rows])) for name in METRICS}


HARNESSES: dict[str, tuple[tuple[str, ...], Callable[[Job], Found]]] = {
    "cello1 eval": ((), cello1),
    "lm-eval": (("harness",), lm_eval),
    "Inspect": (("harness",), inspect),
    "verifiers": (("harness", "verifiers"), verifiers),
    "reasoning-gym": (("harness",), reasoning_gym),
    "llama.cpp": (("llama",), llama_cpp),
}


def draw(data: Path, each: int, file: Path) -> None:
    """Take puzzles of every study of the suite, evenly over those that are built."""
    import suite
    import yaml

    from cello1.puzzles.table import write_puzzles

    manifest = yaml.safe_load((HERE / "suite.yaml").read_text("utf-8"))
    taken: dict[str, Any] = {}
    for name in manifest["studies"]:
        with tempfile.TemporaryDirectory() as folder:
            built = suite.build(data, manifest, name, Path(folder))
        new = [puzzle for puzzle in built if puzzle.id not in taken]
        taken |= {p.id: p for p in (new[i * len(new) // each] for i in range(each))}
    write_puzzles([*taken.values()], file)


def _bare(text: str) -> str:
    """Drop blanks beside tags, which servers that part reasoning and answer drop."""
    return re.sub(r"\s*(</?(?:think|answer)>)\s*", r"\1", text.strip()).removeprefix("<think>")


def timed(name: str, job: Job) -> Found:
    """Run one harness, and say how long it took with its start; one that fails has no figures."""
    start = time.perf_counter()
    try:
        found = HARNESSES[name][1](job)
    except SystemExit as failed:
        print(f"{name}: {failed}", flush=True)
        found = Found(dict.fromkeys(METRICS, float("nan")), {})
    found.seconds = time.perf_counter() - start
    return found


def tell(found: dict[str, Found]) -> bool:
    """Print the table; say whether all harnesses agree."""
    ours = found["cello1 eval"]
    print(f"\n{'':<15}" + "".join(f"{name:>20}" for name in METRICS) + f"{'same text':>14}{'s':>7}")
    agree = True
    for name, one in found.items():
        same = sum(_bare(one.texts.get(i, "")) == _bare(text) for i, text in ours.texts.items())
        cells = "".join(f"{one.figures[metric]!r:>20}" for metric in METRICS)
        print(f"{name:<15}{cells}{f'{same} of {len(ours.texts)}':>14}{one.seconds:>7.0f}")
        # Means are summed in different orders, which moves their last bit.
        equal = all(abs(one.figures[m] - ours.figures[m]) < 1e-12 for m in METRICS)
        agree &= equal or name == "llama.cpp"
    print("all agree" if agree else "they differ")
    return agree


def main() -> None:
    """Run it."""
    if sys.argv[1:2] == ["--gym"]:
        _gym(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the shared data, or a file of puzzles")
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--each", type=int, default=25)
    parser.add_argument("--first", type=int, help="only so many puzzles of a file")
    parser.add_argument("--genes", type=int, help="list only so many genes of a cell")
    parser.add_argument("--max-new-tokens", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=1, help="harnesses at a time")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--only", nargs="+", choices=HARNESSES, default=list(HARNESSES))
    parser.add_argument("--harness-bin", type=Path, default=Path(".venv-interop/bin"))
    parser.add_argument("--verifiers-bin", type=Path, default=Path(".venv-verifiers/bin"))
    parser.add_argument("--llama-bin", type=Path, default=Path(".venv-llama/bin"))
    parser.add_argument("--out", type=Path, help="keep texts and logs in this new folder")
    options = parser.parse_args()
    from cello1.puzzles.table import read_puzzles, write_puzzles
    from cello1.solvers.local.mini import FOLDER
    from cello1.solvers.local.prompter import Prompter

    with tempfile.TemporaryDirectory() as temporary:
        work = (options.out or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=options.out is None)
        puzzles = work / "puzzles.parquet"
        if options.data.is_dir():
            draw(options.data, options.each, puzzles)
        else:
            write_puzzles(read_puzzles(options.data)[: options.first], puzzles)
        if options.genes:
            read = read_puzzles(puzzles)
            cells = [[genes[: options.genes] for genes in p.cells] for p in read]
            shorter = [replace(p, cells=c) for p, c in zip(read, cells, strict=True)]
            write_puzzles(shorter, puzzles)
        bins = {"ours": Path(sys.executable).parent, "harness": options.harness_bin.absolute(),
                "verifiers": options.verifiers_bin.absolute(),
                "llama": options.llama_bin.absolute()}  # fmt: skip
        model = (options.model or FOLDER).absolute()
        # Runners do not see a tag that the template wrote; they are told.
        opened = Prompter(model).prompt(read_puzzles(puzzles)[0])[1]
        budget, batch = options.max_new_tokens, options.batch
        job = Job(puzzles, model, work, budget, batch, options.port, opened, bins)
        chosen = []
        for name, (needs, _) in HARNESSES.items():
            missing = [need for need in needs if not bins[need].is_dir()]
            if missing or (name not in options.only and name != "cello1 eval"):
                print(f"{name}: left out" + (f", no {bins[missing[0]]}" if missing else ""))
            else:
                chosen.append(name)
        with ThreadPoolExecutor(options.parallel) as pool:
            found = dict(zip(chosen, pool.map(lambda name: timed(name, job), chosen), strict=True))
        sys.exit(0 if tell(found) else 1)


if __name__ == "__main__":
    main()
