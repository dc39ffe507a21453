import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from cello1.puzzles.prompt import user_message
from cello1.puzzles.puzzle import Puzzle

START_SECONDS = 120
MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B"],
    "T cell": ["CD3D", "CD3E", "TRAC"],
    "monocyte": ["LYZ", "CD14", "S100A8"],
    "platelet": ["PPBP", "PF4", "GP9"],
}


def toy_puzzle(seed: int, donor: str) -> Puzzle:
    """Four blood cells; each lists two of its three markers among genes that tell nothing."""
    rng = np.random.default_rng(seed)
    types = [str(t) for t in rng.permutation(list(MARKERS))]
    cells = []
    for name in types:
        known = rng.choice(MARKERS[name], 2, replace=False)
        noise = rng.choice([f"RPL{i}" for i in range(1, 30)], 6, replace=False)
        cells.append([str(g) for g in rng.permutation([*known, *noise])])
    candidates = [str(t) for t in rng.permutation(types)]
    return Puzzle("Blood.", cells, candidates, types, {"donor_id": donor})


@pytest.fixture(scope="session")
def toy():
    return toy_puzzle


@pytest.fixture
def toys():
    return [toy_puzzle(seed, f"d{seed % 5}") for seed in range(60)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a tiny random model whose tokenizer was trained on puzzle text."""
    from tiny import make_model, make_tokenizer

    texts = [user_message(toy_puzzle(seed, "d")) for seed in range(60)]
    return make_model(tmp_path_factory.mktemp("models") / "tiny", make_tokenizer(texts))


@pytest.fixture(scope="session")
def language(tiny_model):
    """The same, loaded."""
    from cello1.solvers.local.language import LanguageModel

    return LanguageModel(tiny_model)


@pytest.fixture
def answers():
    """Solve puzzles and return the results by id."""

    def call(solver, puzzles):
        results = {}
        solver.solve(puzzles, results.__setitem__)
        return results

    return call


@pytest.fixture
def serve(tmp_path):
    """Start `transformers serve` with a model folder and return the server's address."""
    running = []

    def start(model):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        log = tmp_path / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--dtype", "float32"], env=environment, stdout=output, stderr=output
            )
        running.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not answering(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return f"http://127.0.0.1:{port}/v1"

    yield start
    for process in running:
        process.terminate()
        try:
            process.wait(10)
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
