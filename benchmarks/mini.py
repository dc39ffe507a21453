"""The small model from nothing to its figures, by the verbs a user would type.

Run ``python benchmarks/mini.py DATA [--recipe mini-short] [--out runs/mini] [--table]``. DATA is a
folder with ``cells`` and ``more_cells`` (annotated .h5ad files) and ``profiles`` (mean profiles and
cell_types.csv). Builds puzzles, trains the base model by the recipe and then, by mini-write and
mini-once, to write what it rates and to give each type once (after mini-short only to write, after
mini-gpu by mini-decide as well, to decide by what it has said), distils, fine-tunes, practises with
rewards, and prints each verb with its minutes and what each model makes of the validation sets.
``--base`` stops before the distilling.
``--table`` also prints the test sets, beside the classical solvers; nothing is chosen on them.
``benchmarks/ablations.py`` goes on from the same folder.

Called again it resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, write_puzzles

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RECIPE = RECIPES / "mini-cpu.yaml"
DECODINGS = {"greedy": [], "valid": ["--valid"], "assign": ["--decode", "assign"]}
PRACTICE = "4000"  # crossed puzzles to practise on
AMBIENT = "0.25"  # share of the genes in practice: known donors are as hard then as new ones
FEW = 200  # puzzles of a set, spread over it
# Training cells, then those nobody trains on: (file, options of `cello1 build`).
KANG = ("kang2018_ifnb2800", "kang2018_muscat_1287genes")
WHOLE = ("--split", "none", "--per-n", "60")
OTHERS = {
    "pancreas": ("cells/baron2016_pancreas350", (*WHOLE, "--n-min", "4")),
    "pancreas2812": ("more_cells/baron2016_pancreas2812_2000genes", (*WHOLE, "--n-min", "4")),
    "pbmc3k": ("cells/pbmc3k_lognorm", (*WHOLE, "--n-min", "5")),
    "hnscc": ("cells/puram2017_hnscc180", (*WHOLE, "--n-min", "5", "--pooled-donors")),
    "cortex": ("cells/cxg_cortex_culture4474_hvg2000", (*WHOLE, "--n-min", "5")),
    "liver": ("cells/he2020_liver20", (*WHOLE, "--n-min", "4")),
}
VALIDATION = ("kang-validation", "pancreas", "pancreas2812")
TEST = ("kang", "pbmc3k", "hnscc", "cortex", "liver")


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


def build(data: Path, out: Path, log: Path) -> None:
    """Build the puzzles: two extracts of Kang, split by donor, and sets nobody trains on."""
    for name in KANG:
        if not (out / name).exists():
            verb("build", data / "cells" / f"{name}.h5ad", "--recipe", RECIPE, "--out", out / name,
                 log=log)  # fmt: skip
    for name, (file, options) in OTHERS.items():
        if not (out / name).exists():
            verb("build", data / f"{file}.h5ad", "--out", out / name, *options, log=log)
    for name in (*VALIDATION, *TEST):
        path = {
            "kang": out / KANG[0] / "test.parquet",
            "kang-validation": out / KANG[0] / "validation.parquet",
        }.get(name, out / name / "all.parquet")
        if not (out / f"set-{name}.parquet").exists():
            write_puzzles(spread(read_puzzles(path), FEW), out / f"set-{name}.parquet")


def spread(puzzles: Sequence[Puzzle], few: int) -> Sequence[Puzzle]:
    """Return a few puzzles of a set, spread over it."""
    return puzzles[:: max(1, len(puzzles) // few)][:few]


def train_base(data: Path, out: Path, recipe: Path, log: Path) -> float:
    """Train the base model on all profiles and the training donors; return its minutes."""
    profiles = ", ".join(map(str, sorted((data / "profiles").glob("*.parquet"))))
    puzzles = ", ".join(str(out / name / "train.parquet") for name in KANG)
    return verb("base", recipe, f"profiles=[{profiles}]", f"puzzles=[{puzzles}]",
                f"cell_types={data / 'profiles' / 'cell_types.csv'}",
                "--out", out / "base", log=log)  # fmt: skip


def further(out: Path, recipe: Path, log: Path) -> dict[str, float]:
    """Train the base model further, to write and to decide; return the minutes."""
    parts = {"write": "mini-write", "once": "mini-once"}
    if recipe.stem == "mini-short":
        parts = {"write": "mini-write-short"}
    elif recipe.stem == "mini-gpu":
        parts["decide"] = "mini-decide"
    minutes, model = {}, out / "base" / "model"
    for name, stem in parts.items():
        minutes[name] = verb("base", recipe.with_name(f"{stem}.yaml"), f"model={model}",
                             f"sources={out / 'base' / 'sources.npz'}", "--out", out / name,
                             log=log)  # fmt: skip
        model = out / name / "model"
    return minutes


def train(out: Path, recipe: Path, log: Path) -> dict[str, float]:
    """Run the verbs behind the writing and return their minutes."""
    kang, practice = out / KANG[0], out / "practice.parquet"
    return {
        "cross": verb("cross", kang / "train.parquet", "--out", practice, "--count", PRACTICE,
                      "--ambient", AMBIENT, log=log),
        "distill": verb("distill", kang, "--recipe", recipe, "--out", out / "traces", log=log),
        "sft": verb("sft", recipe, *student(out), "--out", out / "sft", log=log),
        "rl": verb("rl", recipe, f"model={out / 'sft' / 'model'}", f"puzzles=[{practice}]",
                   f"validation={kang / 'validation.parquet'}", "--out", out / "rl", log=log),
    }  # fmt: skip


def student(out: Path) -> list[str]:
    """Return what `cello1 sft` is told beside the recipe."""
    last = next(name for name in ("decide", "once", "write") if (out / name).exists())
    return [
        f"model={out / last / 'model'}",
        f"traces=[{out / 'traces' / 'reasoning.parquet'}]",
        f"validation={out / KANG[0] / 'validation.parquet'}",
    ]


def solve(solver: str, name: str, run: Path, options: list[str], log: Path) -> float:
    """Solve and evaluate the puzzles of a set."""
    puzzles = run.parents[1] / f"set-{name}.parquet"
    minutes = verb("solve", puzzles, "--solver", solver, "--out", run, "--max-new-tokens", "1300",
                   *options, log=log)  # fmt: skip
    return minutes + verb("eval", run, log=log)


def table(out: Path, names: tuple[str, ...], models: list[str], log: Path) -> None:
    """Solve sets with every model and the classical solvers, and print the figures."""
    print("| set | model | decoding | cell-level | batch-level | format | unique |")
    print("|---|---|---|---|---|---:|---:|")
    for name in names:
        runs = {("markers", "alone"): ("markers", ["--alone"]),
                ("markers", "jointly"): ("markers", [])}  # fmt: skip
        for model in models:
            for how, options in DECODINGS.items():
                runs[model, how] = (f"hf:{out / model / 'model'}", options)
        for (model, how), (solver, options) in runs.items():
            run = out / "solved" / f"{model}-{name}-{how}"
            solve(solver, name, run, options, log)
            print(f"| {name} | {model} | {how} | {figures(run)} |", flush=True)


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
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/mini"))
    arguments.add_argument("--recipe", default="mini-cpu", help="mini-cpu, mini-short or mini-gpu")
    arguments.add_argument("--base", action="store_true", help="stop before distilling")
    arguments.add_argument("--table", action="store_true", help="solve the test sets as well")
    args = arguments.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log, recipe = args.out / "log.txt", RECIPES / f"{args.recipe}.yaml"
    build(args.data, args.out, log)
    minutes = {
        "base": train_base(args.data, args.out, recipe, log),
        **further(args.out, recipe, log),
    }
    trained = list(minutes)
    if not args.base:
        minutes |= train(args.out, recipe, log)
    for name, spent in minutes.items():
        print(f"{name:8} {spent:5.1f} min")
    print(f"together {sum(minutes.values()):5.1f} min")
    models = trained if args.base else [*trained, "sft", "rl"]
    table(args.out, VALIDATION + (TEST if args.table else ()), models, log)


if __name__ == "__main__":
    main()
