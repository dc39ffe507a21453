"""Speed of fine-tuning, beside a plain PyTorch loop with the same model and batches.

Run ``python benchmarks/sft.py [--model FOLDER] [--steps 40] [--rows 4]``. Without a model, one with
random weights is made. Both train on worked puzzles of the paper's size: `cello1 sft` with all it
does beside learning, and the loop everybody writes, ``model(input_ids, attention_mask,
labels).loss.backward()``. Prints tokens/s of both, their ratio, and the share of padding.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from language import make_model, make_puzzles
from transformers import AutoModelForCausalLM

from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import write_puzzles
from cello1.recipes import SftSettings
from cello1.solvers.classical.markers import Markers
from cello1.solvers.local.prompter import Prompter
from cello1.training.sft.data import IGNORED, make_examples
from cello1.training.sft.sft import sft
from cello1.training.sft.trainer import LengthSampler
from cello1.training.teacher.teacher import bias_towards, tell


def make_traces(n: int, cells: tuple[int, int] = (8, 15)) -> list[Puzzle]:
    """Make puzzles of the paper's size, each with the offline teacher's response."""
    expert, rng = Markers.from_file(), np.random.default_rng(0)
    traces = []
    for puzzle in make_puzzles(n, cells):
        gold = list(range(len(puzzle.cells)))
        reasons = tell(
            puzzle, gold, bias_towards(expert.scores(puzzle), gold), expert.evidence, rng
        )
        answer = puzzle.candidates
        meta = {"assistant_msg": response_text(reasons, answer), "donor_id": str(len(traces) % 9)}
        traces.append(Puzzle(puzzle.context, puzzle.cells, answer, answer, meta))
    return traces


def plain_loop(model_folder: Path, traces: list[Puzzle], rows: int, steps: int) -> float:
    """Train as one would by hand, and return the median tokens/s of a step, padding left out."""
    examples = make_examples(traces, Prompter(model_folder))
    order = iter(LengthSampler([len(example) for example in examples], rows, seed=0))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    speeds = []
    for _ in range(steps):
        batch = [examples[next(order)].row() for _ in range(rows)]
        start = time.perf_counter()
        lengths = [len(row["input_ids"]) for row in batch]
        ids = torch.zeros(rows, max(lengths), dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for i, (row, length) in enumerate(zip(batch, lengths, strict=True)):
            ids[i, :length], mask[i, :length] = torch.tensor(row["input_ids"]), 1
            labels[i, :length] = torch.tensor(row["labels"])
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        speeds.append(sum(lengths) / (time.perf_counter() - start))
    return median(speeds)


def fine_tuning(
    model_folder: Path, traces: Path, rows: int, steps: int, out: Path
) -> tuple[float, float]:
    """Train by `cello1 sft`, and return the median tokens/s of a step and the padding."""
    trainer = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "logging_steps": 1,
        "learning_rate": 1e-4,
    }
    settings = SftSettings(
        model=str(model_folder), traces=(str(traces),), method="full", held_out=0.0, solve=0,
        trainer=trainer,
    )  # fmt: skip
    sft(settings, out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    learned = [line for line in lines if "tokens_per_second" in line]
    padding = [line["padding_waste"] for line in learned]
    return median(line["tokens_per_second"] for line in learned), sum(padding) / len(padding)


def main() -> None:
    """Run both in turn, so that they meet the same machine, and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--rows", type=int, default=4)
    args = arguments.parse_args()
    traces = make_traces(max(200, args.rows * args.steps))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or make_model(folder / "model", traces)
        write_puzzles(traces, folder / "traces.parquet")
        rounds = []
        for i in range(3):
            plain = plain_loop(model, traces, args.rows, args.steps)
            ours, padding = fine_tuning(
                model, folder / "traces.parquet", args.rows, args.steps, folder / f"run{i}"
            )
            rounds.append((ours / plain, ours, plain))
    ratios = sorted(ratio for ratio, _, _ in rounds)
    _, ours, plain = sorted(rounds)[1]
    print(f"cello1 sft {ours:,.0f} tokens/s, plain loop {plain:,.0f}: {ratios[1]:.2f} x "
          f"({ratios[0]:.2f}-{ratios[2]:.2f}); padding {padding:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
