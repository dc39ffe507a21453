"""What a small model has learned after each part of its training, by study, as a figure.

Run ``python benchmarks/learning.py runs/mini base=62.8 write=85.5 once=87.8 decide=199``: folders
of models in that of ``benchmarks/mini.py``, with the millions of tokens read until then. Solves its
sets with every model by assignment and in free writing, prints the batches solved, and draws them
over the tokens (``--figure``). Measured rows are kept (``--results``): called again it resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mini import TEST, VALIDATION, spread

import cello1
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver

SETS = (*VALIDATION, *TEST)
WAYS = {"assign": "by assignment", "writing": "in writing"}


def measure(language: LanguageModel, asked: Sequence[Puzzle]) -> dict[str, float]:
    """Return the share of batches that a model solves, by assignment and in greedy writing."""
    solved = {}
    solvers = (LikelihoodSolver(language), LanguageSolver(language, max_new_tokens=1300))
    for way, solver in zip(WAYS, solvers, strict=True):
        texts: dict[str, str] = {}
        solver.solve(asked, lambda i, r, texts=texts: texts.update({i: r.text}))
        solved[way] = cello1.evaluate(asked, texts).overall.batch_accuracy.estimate
    return solved


def draw(rows: dict[tuple[str, str], dict[str, Any]], tokens: dict[str, float], path: Path) -> None:
    """Draw batches solved over tokens, one line for each set; validation sets are dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "cello1"
    figure, axes = plt.subplots(1, len(WAYS), figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, (way, title) in zip(axes, WAYS.items(), strict=True):
        for name in SETS:
            mine = sorted((read, rows[model, name][way]) for model, read in tokens.items())
            line = "--" if name in VALIDATION else "-"
            axis.plot(*zip(*mine, strict=True), line, marker=".", lw=1.2, label=name)
        axis.set(title=title, xlabel="tokens read (millions)", ylim=(-0.02, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("batches solved")
    axes[-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=160)


def main() -> None:
    """Measure what is not measured yet, print everything and draw it."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("run", type=Path, help="the folder of benchmarks/mini.py")
    arguments.add_argument("models", nargs="+", help="NAME=MILLIONS: RUN/NAME/model and its tokens")
    arguments.add_argument("--few", type=int, default=60, help="puzzles of a set")
    arguments.add_argument("--results", type=Path, help="JSON lines; by default RUN/learning.jsonl")
    arguments.add_argument("--figure", type=Path, help="an .svg or .png file")
    args = arguments.parse_args()
    tokens = {name: float(read) for name, _, read in (m.partition("=") for m in args.models)}
    results = args.results or args.run / "learning.jsonl"
    kept = results.read_text().splitlines() if results.exists() else []
    rows = {(row["model"], row["set"]): row for row in map(json.loads, kept)}
    print("| model | tokens (millions) | set | assign | writing |\n|---|---:|---|---:|---:|")
    for model, read in tokens.items():
        missing = [name for name in SETS if (model, name) not in rows]
        language = LanguageModel(args.run / model / "model") if missing else None
        for name in SETS:
            if language is not None and name in missing:
                asked = spread(read_puzzles(args.run / f"set-{name}.parquet"), args.few)
                row = {"model": model, "set": name, **measure(language, asked)}
                rows[model, name] = row
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            row = rows[model, name]
            figures = f"{row['assign']:.3f} | {row['writing']:.3f}"
            print(f"| {model} | {read} | {name} | {figures} |", flush=True)
    if args.figure:
        draw(rows, tokens, args.figure)


if __name__ == "__main__":
    main()
