"""The paper's ablations at small scale: what each way of training makes of one base model.

Run ``python benchmarks/ablations.py DATA [--out runs/mini] [--jobs 2] [--figure FOLDER]`` after
``benchmarks/mini.py`` with the same DATA and --out: base model, traces and practice are taken from
there. The arms are the recipes in ``recipes/ablations``; the start of (A), (C) and (D) is
fine-tuned once per seed. All arms of a seed read about as many tokens. Every model answers all
puzzles of Kang's two held-out donors, writing freely (greedy, and nothing guides it).

Prints a table of the arms, seed by seed and together, the paired differences behind the paper's
claims and how the arms reason, and draws the training dynamics. Called again it goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mini import KANG, RECIPE, student, verb

from cello1.behaviour.detect import ERRORS
from cello1.behaviour.measures import MEASURES, differences, measure, read_responses, summarize
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import score_all
from cello1.scoring.statistics import clustered_interval
from cello1.solvers.run import read_solved

RECIPES = RECIPE.with_name("ablations")
SEEDS = {"start": 3, "A": 3, "B": 3, "C": 1, "D": 3, "E": 1, "F": 3}
NAMES = {
    "start": "fine-tuned (the start of A, C, D)",
    "A": "(A) SFT, GRPO `batch`",
    "B": "(B) GRPO `batch` without SFT",
    "C": "(C) SFT, PPO `batch`",
    "D": "(D) SFT, GRPO `cell+batch`",
    "E": "(E) SFT on answers only",
    "F": "(F) SFT only, as many tokens as A",
}
# Differences behind the paper's claims.
PAIRS = [
    ("A", "start"), ("A", "F"), ("A", "B"), ("A", "C"), ("A", "D"), ("D", "F"), ("F", "E"),
]  # fmt: skip


class Bench:
    """Where everything is, and how an arm is trained."""

    def __init__(self, out: Path, threads: int) -> None:
        self.out, self.threads = out, threads
        self.kang = out / KANG[0]

    def model(self, arm: str, seed: int) -> Path:
        """Return the folder of a trained model."""
        return self.run(arm, seed) / "model"

    def run(self, arm: str, seed: int) -> Path:
        """Return the run folder of an arm."""
        return self.out / "ablations" / f"{arm}-{seed}"

    def train(self, arm: str, seed: int) -> None:
        """Train an arm and answer the test puzzles with it."""
        run, log = self.run(arm, seed), self.out / "ablations" / f"{arm}-{seed}.log"
        recipe = RECIPE if arm == "start" else RECIPES / f"{arm}.yaml"
        if arm in ("start", "E", "F"):
            begin = [f"model={self.model('start', seed)}"] if arm == "F" else []
            self._verb(log, "sft", recipe, *student(self.out), *begin,
                       "--seed", str(seed), "--out", run)  # fmt: skip
        else:
            start = self.out / "base" / "model" if arm == "B" else self.model("start", seed)
            engine = ("--engine", "ppo") if arm == "C" else ()
            self._verb(log, "rl", recipe, f"model={start}", *engine,
                       f"puzzles=[{self.out / 'practice.parquet'}]",
                       f"validation={self.kang / 'validation.parquet'}",
                       "--seed", str(seed), "--out", run)  # fmt: skip
        self._verb(log, "solve", self.kang / "test.parquet", "--solver",
                   f"hf:{self.model(arm, seed)}", "--max-new-tokens", "600",
                   "--out", self.solved(arm, seed))  # fmt: skip
        self._verb(log, "eval", self.solved(arm, seed))

    def solved(self, arm: str, seed: int) -> Path:
        """Return the run folder of its answers."""
        return self.out / "solved" / f"ablation-{arm}-{seed}"

    def _verb(self, log: Path, *arguments: str | Path) -> None:
        verb(*arguments, log=log, threads=self.threads)


def right(bench: Bench, arm: str) -> tuple[list[Puzzle], np.ndarray]:
    """Return the test puzzles and, seed by seed, which are right: shape (seeds, puzzles)."""
    rows = []
    for seed in range(SEEDS[arm]):
        puzzles, records = read_solved(bench.solved(arm, seed))
        scored = score_all(puzzles, {i: r["text"] for i, r in records.items()})
        exact = {s.puzzle.id: s.score.exact for s in scored}
        rows.append([exact[p.id] for p in puzzles])
    return puzzles, np.array(rows, dtype=float)


def difference(bench: Bench, first: str, second: str) -> str:
    """Return the difference of two arms in batch accuracy, paired by puzzle (means over seeds)."""
    puzzles, a = right(bench, first)
    _, b = right(bench, second)
    donors = [str(p.meta["donor_id"]) for p in puzzles]
    d = clustered_interval(a.mean(0) - b.mean(0), donors, proportion=False)
    shared = min(len(a), len(b))
    by_seed = ", ".join(f"{100 * (x - y).mean():+.1f}" for x, y in zip(a, b, strict=False))
    won = int((a[:shared] > b[:shared]).sum())
    lost = int((a[:shared] < b[:shared]).sum())
    return (
        f"{first} - {second}: {d.estimate:+.3f} [{d.low:+.3f}, {d.high:+.3f}]; by seed {by_seed} "
        f"points; {won} : {lost} puzzles"
    )


def table(bench: Bench, arms: list[str]) -> None:
    """Print every arm, seed by seed."""
    print("| arm | batch-level, by seed | mean | cell-level | format | unique | tokens |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for arm in arms:
        names = ("batch_accuracy", "cell_accuracy", "format_validity", "uniqueness")
        found = [
            json.loads((bench.solved(arm, s) / "metrics.json").read_text("utf-8"))["overall"]
            for s in range(SEEDS[arm])
        ]
        batch, *others = ([f[name]["estimate"] for f in found] for name in names)
        cells = [", ".join(f"{x:.3f}" for x in batch), f"{np.mean(batch):.3f}"]
        cells += [f"{np.mean(x):.3f}" for x in others]
        cells.append(f"{np.mean([f['length'] for f in found]):.0f}")
        print(f"| {NAMES[arm]} | {' | '.join(cells)} |")


def behaviour_table(bench: Bench, arms: list[str]) -> None:
    """Print how the responses reason, the seeds of an arm together, and what rewards change."""
    found = {arm: [read_responses(bench.solved(arm, s)) for s in range(SEEDS[arm])] for arm in arms}
    measured = {arm: measure([r for run in runs for r in run]) for arm, runs in found.items()}
    summaries = [summarize(responses, malformed) for responses, malformed in measured.values()]
    changed = differences(measured["A"][0], measured["start"][0]) if "A" in arms else {}
    print(f"\n| behaviour | {' | '.join(arms)} | A - start |")
    print(f"|---|{'---:|' * len(arms)}---|")
    for name in MEASURES:
        values = [f"{s.measures[name].estimate:.3f}" for s in summaries]
        d = changed.get(name)
        delta = "" if d is None else f"{d.estimate:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        print(f"| {name.replace('_', ' ')} | {' | '.join(values)} | {delta} |")
    for name in ERRORS:
        values = [f"{s.errors[name].estimate:.3f}" for s in summaries]
        print(f"| of the wrong cells: {name} | {' | '.join(values)} | |")


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="as for benchmarks/mini.py")
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--arms", default="GFADBCE", help="which, in this order")
    parser.add_argument("--figure", type=Path, help="draw the training dynamics into this folder")
    args = parser.parse_args()
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    bench = Bench(args.out, threads)
    (bench.out / "ablations").mkdir(parents=True, exist_ok=True)
    arms = ["start", *args.arms]
    for stage in (["start"], list(args.arms)):
        jobs = [(arm, seed) for seed in range(3) for arm in stage if seed < SEEDS[arm]]
        with ThreadPoolExecutor(args.jobs) as pool:
            for done in [pool.submit(bench.train, *job) for job in jobs]:
                done.result()
    table(bench, arms)
    for first, second in PAIRS:
        if first in arms and second in arms:
            print(difference(bench, first, second))
    behaviour_table(bench, [arm for arm in arms if arm != "E"])  # E gives no reasons
    if args.figure:
        draw(bench, [arm for arm in arms if arm in "ABCD"], args.figure)


def draw(bench: Bench, arms: list[str], folder: Path) -> None:
    """Draw the dynamics of the first seed of every arm, as the report does."""
    from cello1.report.dynamics import read_log
    from cello1.report.figures import dynamics_plots, write_figures
    from cello1.runs import read_run

    logs = [
        read_log(NAMES[arm].replace("`", ""), bench.run(arm, 0), read_run(bench.run(arm, 0)))
        for arm in arms
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_figures(dynamics_plots(logs), folder)


if __name__ == "__main__":
    main()
