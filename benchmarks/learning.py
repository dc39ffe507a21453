"""What a small model has learned after each part of its training, by study, as a figure.

Run ``python benchmarks/learning.py runs/mini base=62.8 write=85.5 once=87.8 decide=199``: folders
of models in that of ``benchmarks/mini.py``, with the millions of tokens read until then. Solves its
sets with every model by assignment and in free writing, prints the batches solved, and draws them
over the tokens (``--figure``). Measured rows are kept (``--results``): called again it resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mini import TEST, VALIDATION

import cello1
from cello1.puzzles.table import read_puzzles
from cello1.solvers.local.language import LanguageModel, LanguageSolver
from cello1.solvers.local.likelihood import LikelihoodSolver

SETS = (*VALIDATION, *TEST)
WAYS = {"assign": "by assignment", "writing": "in writing"}


def measure(model: Path, puzzles: Path, few: int) -> dict[str, float]:
    """Return the share of batches that a model solves, by assignment and in greedy writing."""
    asked = read_puzzles(puzzles)
    asked = asked[:: max(1, len(asked) // few)][:few]
    language = LanguageModel(model)
    solved = {}
    solvers = (LikelihoodSolver(language), LanguageSolver(language, max_new_tokens=1300))
    for way, solver in zip(WAYS, solvers, strict=True):
        texts: dict[str, str] = {}
        solver.solve(asked, lambda i, r, texts=texts: texts.update({i: r.text}))
        solved[way] = cello1.evaluate(asked, texts).overall.batch_accuracy.estimate
    return solved


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw batches solved over tokens, one line for each set; validation sets are dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "cello1"
    figure, axes = plt.subplots(1, len(WAYS), figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, (way, title) in zip(axes, WAYS.items(), strict=True):
        for name in SETS:
            mine = sorted((row["tokens"], row[way]) for row in rows if row["set"] == name)
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
    results = args.results or args.run / "learning.jsonl"
    rows = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    print("| model | tokens (millions) | set | assign | writing |\n|---|---:|---|---:|---:|")
    for given in args.models:
        name, _, tokens = given.partition("=")
        for key in SETS:
            mine = [r for r in rows if (r["model"], r["set"]) == (name, key)]
            if not mine:
                puzzles = args.run / f"set-{key}.parquet"
                solved = measure(args.run / name / "model", puzzles, args.few)
                mine = [{"model": name, "tokens": float(tokens), "set": key, **solved}]
                rows += mine
                with results.open("a") as file:
                    file.write(json.dumps(mine[0]) + "\n")
            row = mine[0]
            print(f"| {name} | {tokens} | {key} | {row['assign']:.3f} | {row['writing']:.3f} |",
                  flush=True)  # fmt: skip
    if args.figure:
        named = {given.partition("=")[0] for given in args.models}
        draw([row for row in rows if row["model"] in named], args.figure)


if __name__ == "__main__":
    main()
