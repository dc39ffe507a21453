"""Speed of reinforcement learning, beside TRL's GRPOTrainer as it comes.

Run ``python benchmarks/rl.py [--model FOLDER] [--puzzles FILE] [--steps 3] [--tokens 200]``.
Without a model, one with random weights is made whose responses hardly ever end by themselves, so
that both sides do the same work: as many responses of the same length, the same loss over all of
them. With a model, responses end when they end, on both sides by chance.

Both trainers take the same number of steps, in turn, three times. Prints responses/s of whole steps
(medians, and the range of the paired ratio), the same in CPU time, and where ours spends its time.
The peer gets no gradient checkpointing, which is TRL's default and would slow it down.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from datasets import Dataset
from language import make_model, make_puzzles
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.recipes import RlSettings
from cello1.scoring.reward import batch
from cello1.scoring.score import score
from cello1.solvers.local.prompter import Prompter
from cello1.training.rl.rl import rl
from cello1.training.run.run_training import quiet

GROUP, GROUPS = 8, 4


def peer(model: Path, puzzles: list[Puzzle], steps: int, tokens: int, out: Path) -> None:
    """Train with TRL alone, on prompts rendered for it."""
    prompter = Prompter(model)
    rows = [
        {"prompt": prompter.vocabulary.text(prompter.prompt(p)[0]), "number": i}
        for i, p in enumerate(puzzles)
    ]

    def reward(completions: list[str], number: list[int], **_: Any) -> list[float]:
        return [batch(score(puzzles[i], c)) for i, c in zip(number, completions, strict=True)]

    config = GRPOConfig(
        output_dir=str(out),
        num_generations=GROUP,
        per_device_train_batch_size=GROUP * GROUPS,
        max_completion_length=tokens,
        max_steps=steps,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def ours(model: Path, puzzles: Path, steps: int, tokens: int, out: Path) -> dict[str, float]:
    """Train with `cello1 rl`; return where the time of the steps went."""
    trainer = {
        "num_generations": GROUP,
        "per_device_train_batch_size": GROUP * GROUPS,
        "gradient_accumulation_steps": 1,
        "max_completion_length": tokens,
        "max_steps": steps,
        "beta": 0.0,
        "save_steps": 1_000,
    }
    settings = RlSettings(
        model=str(model), puzzles=(str(puzzles),), held_out=0, method="full", max_prompt=8_000,
        evaluate_every=1_000, trainer=trainer,
    )  # fmt: skip
    rl(settings, out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    shares = [line for line in lines if "share_training" in line]
    names = ("share_generating", "share_training", "share_rewarding")
    return {name: median(line[name] for line in shares) for name in names}


def main() -> None:
    """Run and print everything."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--puzzles", type=Path)
    arguments.add_argument("--steps", type=int, default=3)
    arguments.add_argument("--tokens", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        puzzles = read_puzzles(args.puzzles) if args.puzzles else answered(make_puzzles(64))
        write_puzzles(puzzles, folder / "puzzles.parquet")
        model = args.model or make_model(folder / "model", puzzles)
        wall, spent = [], []
        for turn in range(args.rounds):
            seconds = []
            for run in (peer, ours):
                given: Any = puzzles if run is peer else folder / "puzzles.parquet"
                began, worked = time.perf_counter(), time.process_time()
                found = run(model, given, args.steps, args.tokens, folder / f"{run.__name__}{turn}")
                seconds += [time.perf_counter() - began, time.process_time() - worked]
            wall.append(seconds[::2])
            spent.append(seconds[1::2])
            assert found is not None
            shares = found
    responses = args.steps * GROUP * GROUPS
    for what, times in (("seconds", wall), ("CPU seconds", spent)):
        theirs, own = (median(column) for column in zip(*times, strict=True))
        ratios = sorted(a / b for a, b in times)
        print(f"responses per {what}: TRL {responses / theirs:.2f}, ours {responses / own:.2f}: "
              f"{median(ratios):.2f} x ({ratios[0]:.2f}-{ratios[-1]:.2f})")  # fmt: skip
    print(", ".join(f"{name.removeprefix('share_')} {share:.1%}" for name, share in shares.items()))


def answered(puzzles: list[Puzzle]) -> list[Puzzle]:
    """Take the candidates as the answer: nothing random can tell."""
    return [Puzzle(p.context, p.cells, p.candidates, p.candidates, {"donor_id": str(i)})
            for i, p in enumerate(puzzles)]  # fmt: skip


if __name__ == "__main__":
    main()
