"""The small model from nothing to its figures, by the verbs a user would type.

Run ``python benchmarks/mini.py DATA [--out runs/mini] [--table]``. DATA is a folder with ``cells``
(kang2018_ifnb2800.h5ad, kang2018_muscat_1287genes.h5ad, pbmc3k_lognorm.h5ad) and ``profiles`` (mean
profiles and cell_types.csv). Builds puzzles, trains by ``recipes/mini-cpu.yaml``, solves Kang's
held-out donors and prints each verb with its minutes. ``--table`` also prints base, traces,
rewards and drafts for greedy, valid and assign decoding (drafts also for eight votes), beside the
classical solvers, on Kang, on simulated cells of profiles never trained on, and on PBMC3k.
``benchmarks/ablations.py`` goes on from the same folder.

Called again it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from cello1.puzzles.table import read_puzzles, write_puzzles

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "mini-cpu.yaml"
DRAFTED = RECIPE.with_name("mini-drafted.yaml")  # its traces settle the batch after drafts
DECODINGS = {"greedy": [], "valid": ["--valid"], "assign": ["--decode", "assign"]}
VOTES = {"8 votes": ["--samples", "8", "--permute"]}
PRACTICE, LESSONS = "4000", "800"  # crossed puzzles to practise on, and for the teacher to answer
AMBIENT = "0.25"  # share of the genes in practice: known donors are as hard then as new ones
# What the base model is trained on with, one recipe after the other.
MORE = ("base-real", "base-listed", "base-thin", "base-drafted")
# Types told from mean profiles alone need enough of them for a puzzle.
FEWEST_TYPES, SEED = 8, "1"


def verb(*arguments: str | Path, log: Path, threads: int | None = None) -> float:
    """Run one verb of the command line and return its minutes; finished ones return at once."""
    start = time.monotonic()
    command = [sys.executable, "-m", "cello1", *map(str, arguments)]
    given = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    # Threads that wait must not spin against another training beside this one.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **given}
    with log.open("a") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code:
        sys.exit(f"cello1 {arguments[0]} failed, see {log}")
    return (time.monotonic() - start) / 60


def rich_profiles(folder: Path) -> list[Path]:
    """Return the profiles of at least so many types that are kept."""
    import pandas as pd

    types = pd.read_csv(folder / "cell_types.csv")
    kept = types[types["keep"]].groupby("profile")["cell_type"].nunique()
    names = sorted(kept[kept >= FEWEST_TYPES].index)
    return [path for name in names if (path := folder / f"{name}.parquet").exists()]


def build(data: Path, out: Path, log: Path) -> None:
    """Build the puzzles: two extracts of Kang, cells simulated from profiles, PBMC3k."""
    cells = data / "cells"
    for name in ("kang2018_ifnb2800", "kang2018_muscat_1287genes"):
        if not (out / name).exists():
            verb("build", cells / f"{name}.h5ad", "--recipe", RECIPE, "--out", out / name, log=log)
    if not (out / "simulated").exists():
        tables = rich_profiles(data / "profiles")
        verb("simulate", *tables, "--cell-types", data / "profiles" / "cell_types.csv",
             "--out", out / "simulated", "--donors", "4", "--cells-per-type", "40",
             "--seed", SEED, log=log)  # fmt: skip
    if not (out / "profiles").exists():
        verb("build", *sorted((out / "simulated").glob("*.h5ad")), "--out", out / "profiles",
             "--split", "dataset", "--n-min", "5", "--per-n", "60", "--seed", SEED,
             log=log)  # fmt: skip
    if not (out / "pbmc3k").exists():
        verb("build", cells / "pbmc3k_lognorm.h5ad", "--out", out / "pbmc3k", "--split", "none",
             "--per-n", "200", log=log)  # fmt: skip
    for name, path in tests(out).items():
        if not (out / f"test-{name}.parquet").exists():
            puzzles = read_puzzles(path)
            few = puzzles[:: max(1, len(puzzles) // 200)][:200]
            write_puzzles(few, out / f"test-{name}.parquet")


def tests(out: Path) -> dict[str, Path]:
    """Return the files of puzzles no model was trained on."""
    return {
        "kang": out / "kang2018_ifnb2800" / "test.parquet",
        "profiles": out / "profiles" / "test.parquet",
        "pbmc3k": out / "pbmc3k" / "all.parquet",
    }


def train(out: Path, log: Path) -> dict[str, float]:
    """Run the verbs of the recipe and return their minutes."""
    kang, tissues = out / "kang2018_ifnb2800", out / "profiles" / "train.parquet"
    names = ("kang2018_ifnb2800", "kang2018_muscat_1287genes", "profiles")
    files = ", ".join(str(out / name / "train.parquet") for name in names)
    practice, lessons = out / "practice.parquet", out / "lessons.parquet"
    minutes = {"base": verb("base", RECIPE, f"puzzles=[{files}]", "--out", out / "base", log=log)}
    for before, after in pairwise(("base", *MORE)):
        recipe = RECIPE.with_name(f"{after.replace('base', 'mini')}.yaml")
        minutes["base"] += verb("base", recipe, f"model={out / before / 'model'}",
                                f"puzzles=[{files}]", "--out", out / after, log=log)  # fmt: skip
    minutes["cross"] = verb("cross", kang / "train.parquet", "--out", practice,
                            "--count", PRACTICE, "--ambient", AMBIENT, log=log)  # fmt: skip
    minutes["cross"] += verb("cross", tissues, "--out", lessons, "--count", LESSONS,
                             "--seed", SEED, log=log)  # fmt: skip
    minutes["distill"] = sum(
        verb("distill", puzzles, "--recipe", recipe, "--out", traces, log=log)
        for recipe in (RECIPE, DRAFTED)
        for puzzles, traces in zip((kang, lessons), traces_of(out, recipe), strict=True)
    )
    minutes["sft"] = verb("sft", RECIPE, *student(out, RECIPE), "--out", out / "sft", log=log)
    minutes["drafts"] = verb("sft", DRAFTED, *student(out, DRAFTED), "--out", out / "drafts",
                             log=log)  # fmt: skip
    minutes["rl"] = verb("rl", RECIPE, f"model={out / 'sft' / 'model'}", f"puzzles=[{practice}]",
                         f"validation={kang / 'validation.parquet'}", "--out", out / "rl",
                         log=log)  # fmt: skip
    solved = out / "solved" / "drafts-kang-greedy"
    minutes["solve"] = solve(f"hf:{out / 'drafts' / 'model'}", "kang", solved, [], log)
    return minutes


def base_model(out: Path, recipe: Path) -> Path:
    """Return the model that is fine-tuned."""
    return out / ("base-drafted" if recipe == DRAFTED else "base-thin") / "model"


def traces_of(out: Path, recipe: Path) -> list[Path]:
    """Return the folders of traces, of Kang and of simulated cells."""
    ending = "-drafted" if recipe == DRAFTED else ""
    return [out / f"traces{ending}", out / f"traces-profiles{ending}"]


def student(out: Path, recipe: Path) -> list[str]:
    """Return what `cello1 sft` is told beside the recipe."""
    files = [str(folder / "reasoning.parquet") for folder in traces_of(out, recipe)]
    return [
        f"model={base_model(out, recipe)}",
        f"traces=[{', '.join(files)}]",
        f"validation={out / 'kang2018_ifnb2800' / 'validation.parquet'}",
    ]


def solve(solver: str, test: str, run: Path, options: list[str], log: Path) -> float:
    """Solve and evaluate the puzzles of a test."""
    puzzles = run.parents[1] / f"test-{test}.parquet"
    minutes = verb("solve", puzzles, "--solver", solver, "--out", run, "--max-new-tokens", "800",
                   *options, log=log)  # fmt: skip
    return minutes + verb("eval", run, log=log)


def table(out: Path, log: Path) -> None:
    """Solve every test with every model and the classical solvers, and print the figures."""
    models = {
        "base": base_model(out, RECIPE),
        "sft": out / "sft" / "model",
        "rl": out / "rl" / "model",
        "drafts": out / "drafts" / "model",
    }
    trained = ["--train", str(out / "kang2018_ifnb2800" / "train.parquet"),
               "--validation", str(out / "kang2018_ifnb2800" / "validation.parquet")]  # fmt: skip
    print("| test | model | decoding | cell-level | batch-level | format | unique |")
    print("|---|---|---|---|---|---:|---:|")
    for test in tests(out):
        runs = {("chance", "alone"): ("chance", ["--alone"])}
        for classical in ("markers", "centroids"):
            learned = trained if classical == "centroids" else []
            if test == "profiles":
                learned = []  # the types of other tissues are known to the markers alone
                if classical == "centroids":
                    continue
            runs[classical, "alone"] = (classical, [*learned, "--alone"])
            runs[classical, "jointly"] = (classical, learned)
        for name, model in models.items():
            for how, options in (DECODINGS | (VOTES if name == "drafts" else {})).items():
                runs[name, how] = (f"hf:{model}", options)
        for (name, how), (solver, options) in runs.items():
            run = out / "solved" / f"{name}-{test}-{how}"
            solve(solver, test, run, options, log)
            print(f"| {test} | {name} | {how} | {figures(run)} |", flush=True)


def figures(run: Path) -> str:
    """Return cell and batch accuracy with their intervals, format validity and uniqueness."""
    overall = json.loads((run / "metrics.json").read_text("utf-8"))["overall"]
    cells = []
    for name in ("cell_accuracy", "batch_accuracy"):
        entry = overall[name]
        cells.append(f"{entry['estimate']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]")
    cells += [f"{overall[name]['estimate']:.3f}" for name in ("format_validity", "uniqueness")]
    return " | ".join(cells)


def main() -> None:
    """Run and print everything."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/mini"))
    arguments.add_argument("--table", action="store_true")
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "log.txt"
    build(args.data, args.out, log)
    minutes = train(args.out, log)
    for name, spent in minutes.items():
        print(f"{name:8} {spent:5.1f} min")
    run = args.out / "solved" / "drafts-kang-greedy"
    print(f"together {sum(minutes.values()):5.1f} min; Kang, held-out donors: {figures(run)}")
    if args.table:
        table(args.out, log)


if __name__ == "__main__":
    main()
