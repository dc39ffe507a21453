"""The wheel, not the checkout: build it, install it elsewhere, and use what each extra is for.

Run ``make test-wheel``, or ``python benchmarks/wheel.py`` where ``uv`` and ``twine`` are.
Builds sdist and wheel, lets twine check both, looks for the files that a wheel could lack, and
then, for every environment below, makes a new venv outside the repository, installs the wheel with
its extra, and runs the commands that a user of it would run, on real cells that ship in scanpy.
Prints a table with the megabytes of each environment and the seconds its installation took.

``--only NAME ...`` takes some environments, ``--pin`` gives constraints (by default
``torch==2.13.0``, of which there is a wheel without CUDA), ``--keep FOLDER`` works there,
``--wheel FILE`` takes one that is built already.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WANTED = (
    "cello1/py.typed",
    "cello1/atlas/embedded/",
    "cello1/models/mini/model.safetensors",
    "cello1/models/mini/tokenizer.json",
    "cello1/models/mini/chat_template.jinja",
    "cello1/models/mini/README.md",
    "cello1/pages/templates/",
    "cello1/citations/aliases.csv",
    "cello1/cells/human_genes.tsv.gz",
    "cello1/solvers/markers.csv",
    "cello1_cellpuzzles.py",
    ".dist-info/licenses/LICENSE",
    ".dist-info/licenses/NOTICE",
    ".dist-info/entry_points.txt",
)
MAKE_CELLS = (
    "import scanpy as sc; a = sc.datasets.pbmc68k_reduced(); "
    "a.obs['cell_type'] = a.obs['bulk_labels']; a.obs['donor_id'] = 'one'; a.write('cells.h5ad')"
)
ONE_STEP = """
sft:
  model: {model}
  traces: traces/reasoning.parquet
  rank: 4
  alpha: 8
  max_length: 2048
  held_out: 0
  solve: 0
  trainer: {{max_steps: 1, per_device_train_batch_size: 1, gradient_accumulation_steps: 1}}
"""


def uv(*arguments: object, check: bool = True) -> bool:
    """Run uv, which makes environments and installs into them many times faster than pip."""
    return not subprocess.run(
        [sys.executable, "-m", "uv", *map(str, arguments)], check=check
    ).returncode


class Box:
    """A venv outside the repository, with a folder to work in.

    Parameters
    ----------
    folder
        New.
    python
        Version to make it with.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.venv = folder / "venv"
        uv("venv", "--quiet", "--no-python-downloads", "--python", python, self.venv)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}

    def run(self, *line: object, code: int = 0) -> str:
        """Run a command of this venv; anything but `code` ends the program."""
        command, *arguments = map(str, line)
        start = time.perf_counter()
        done = subprocess.run(
            [self.venv / "bin" / command, *arguments],
            cwd=self.work, env=self.environment, text=True, capture_output=True,
        )  # fmt: skip
        said = done.stdout + done.stderr
        short = " ".join([command, *arguments]).split("\n")[0][:90]
        print(f"  {time.perf_counter() - start:6.1f} s  {short}", flush=True)
        if done.returncode != code:
            sys.exit(f"{short}: exit {done.returncode}, expected {code}\n{said[-3000:]}")
        return said

    def refuse(self, wanted: str, *line: object) -> None:
        """Run what needs an extra that is not there: one line must name it."""
        said = self.run(*line, code=1).strip()
        if wanted not in said or "Traceback" in said:
            sys.exit(f"expected one line with {wanted!r}, got:\n{said}")

    def megabytes(self) -> float:
        """Return the size of site-packages without bytecode, which comes as it is used."""
        site = next((self.venv / "lib").glob("python*")) / "site-packages"
        files = (f for f in site.rglob("*") if f.is_file() and f.suffix != ".pyc")
        return sum(f.lstat().st_size for f in files) / 1e6


def base(box: Box) -> None:
    """Solve, annotate and report by the atlas: no torch."""
    _cells(box)
    box.run("cello1", "demo", "--out", "demo")
    box.run("cello1", "solve", "puzzles", "--out", "runs/default")
    box.run("cello1", "eval", "runs/default")
    box.run("cello1", "report", "runs/default")
    box.run("cello1", "annotate", "cells.h5ad", "-o", "labelled.h5ad")
    box.run("python", "-c", "import torch", code=1)
    box.refuse("cello1[local]", "cello1", "solve", "puzzles", "--solver", "mini",
               "--out", "runs/m")  # fmt: skip
    box.refuse("cello1[api]", "cello1", "solve", "puzzles", "--solver", "openai:m",
               "--base-url", "http://127.0.0.1:9/v1", "--out", "runs/o")  # fmt: skip
    (box.work / "sft.yaml").write_text("sft: {model: m, traces: puzzles/all.parquet}")
    box.refuse("cello1[train]", "cello1", "sft", "sft.yaml", "--out", "runs/sft")
    box.refuse("cello1[gguf]", "cello1", "export", "gguf", "mini", "--out", "mini.gguf")
    box.refuse("cello1[census]", "cello1", "build", "census:2025-11-08", "--out", "census")


def local(box: Box) -> None:
    """Ask the embedded model, rating and writing."""
    _cells(box)
    for name, more in (("rates", ()), ("writes", ("--valid", "--max-new-tokens", "150"))):
        run = f"runs/{name}"
        box.run("cello1", "solve", "puzzles", "--solver", "mini", *more, "--out", run)
        box.run("cello1", "eval", run)


def api(box: Box) -> None:
    """Ask a server on this machine."""
    _cells(box)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    box.run("cello1", "solve", "puzzles", "--solver", "openai:m", "--base-url", url,
            "--out", "runs/api")  # fmt: skip
    server.shutdown()
    box.run("cello1", "eval", "runs/api")


def train(box: Box) -> None:
    """Distil from the atlas, train one step, merge, and ask the result."""
    _cells(box)
    box.run("cello1", "distill", "puzzles", "--teacher", "atlas", "--out", "traces")
    embedded = "from cello1.solvers.local.mini import FOLDER; print(FOLDER)"
    model = box.run("python", "-c", embedded).strip().splitlines()[-1]
    (box.work / "sft.yaml").write_text(ONE_STEP.format(model=model))
    box.run("cello1", "sft", "sft.yaml", "--out", "sft")
    box.run("cello1", "merge", "sft", "--out", "tuned")
    box.run("cello1", "solve", "puzzles", "--solver", "hf:tuned", "--decode", "assign",
            "--out", "runs/tuned")  # fmt: skip


def _cells(box: Box) -> None:
    box.run("python", "-c", MAKE_CELLS)
    box.run("cello1", "build", "cells.h5ad", "--out", "puzzles", "--split", "none",
            "--n-min", "3", "--n-max", "4", "--per-n", "6")  # fmt: skip


class Echo(BaseHTTPRequestHandler):
    """A server of the OpenAI kind that names the candidates in the order it reads them."""

    def do_POST(self) -> None:
        """Answer one chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        labels = question.rpartition("cell types:\n")[2].split("\n")
        text = f"<think>In order.</think>\n<answer>{' | '.join(labels)}</answer>"
        choice = {"index": 0, "finish_reason": "stop",
                  "message": {"role": "assistant", "content": text}}  # fmt: skip
        answer = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Case:
    """One environment: an interpreter, an extra, and what is done with it."""

    python: str
    extra: str
    use: Callable[[Box], None]


CASES = {
    "base-3.11": Case("3.11", "", base),
    "base-3.13": Case("3.13", "", base),
    "api": Case("3.11", "[api]", api),
    "local": Case("3.11", "[local]", local),
    "train": Case("3.11", "[train]", train),
}


def make(folder: Path) -> Path:
    """Build, check and look into sdist and wheel; return the wheel."""
    # The wheel is made from the sdist, so what that lacks the wheel lacks, too.
    uv("build", "--quiet", "--out-dir", folder, ROOT)
    made = sorted(folder.glob("cello1*"))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *made], check=True)
    wheel = next(path for path in made if path.suffix == ".whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = [want for want in WANTED if not any(want in name for name in names)]
    ours = ("cello1/", "cello1_cellpuzzles.py", "cello1-")
    foreign = [name for name in names if not name.startswith(ours)]
    if missing or foreign:
        sys.exit(f"{wheel.name} lacks {missing}; does not belong there: {foreign}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(names)} files")
    return wheel


def tried(case: Case, wheel: Path, folder: Path, pins: Path) -> tuple[str, float, float]:
    """Install the wheel in a new environment and use it; return version, megabytes and seconds."""
    box = Box(folder, case.python)
    start = time.perf_counter()
    python = box.venv / "bin" / "python"
    wanted = f"cello1{case.extra} @ {wheel.as_uri()}"
    uv("pip", "install", "--quiet", "--python", python, "-c", pins, wanted)
    seconds = time.perf_counter() - start
    uv("pip", "check", "--quiet", "--python", python)
    version = box.run("cello1", "--version").strip()
    where = box.run("python", "-c", "import cello1; print(cello1.__file__)")
    if str(box.venv) not in where:
        sys.exit(f"it is {where.strip()} that was used, not the wheel")
    case.use(box)
    return version, box.megabytes(), seconds


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pin", nargs="*", default=["torch==2.13.0"])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--wheel", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        (folder / "dist").mkdir(parents=True)
        wheel = options.wheel.absolute() if options.wheel else make(folder / "dist")
        (folder / "pins.txt").write_text("\n".join(options.pin))
        for name in options.only:
            case = CASES[name]
            if not uv("python", "find", "--no-python-downloads", case.python, check=False):
                print(f"{name}: left out, no Python {case.python}")
                continue
            print(f"{name}:")
            try:
                rows.append((name, *tried(case, wheel, folder / name, folder / "pins.txt")))
            except SystemExit as failed:
                print(f"{name}: FAILED: {failed}")
                rows.append((name, "failed", 0.0, 0.0))
            if options.keep is None:
                shutil.rmtree(folder / name)
    print(f"\n{'environment':<14}{'version':<20}{'site-packages, MB':>18}{'install, s':>12}")
    for name, version, size, seconds in rows:
        print(f"{name:<14}{version:<20}{size:>18,.0f}{seconds:>12.0f}")
    sys.exit(any(version == "failed" for _, version, _, _ in rows))


if __name__ == "__main__":
    main()
