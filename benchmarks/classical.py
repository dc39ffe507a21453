"""What deciding together is worth: classical solvers alone and jointly on donors never seen.

Run ``python benchmarks/classical.py FILE.h5ad``; meant for Kang et al. 2018
(doi:10.1038/nbt.4042), the 8 named donors of its 2,800-cell extract. Every donor in turn is
held out whole, the next one validates, the others train, so each puzzle is answered by a model
that never saw its donor, and intervals resample all donors.

Prints cell- and batch-level accuracy with 95 % intervals, the paired difference of joint and
alone, and, since the scorer counts no repeated label as right, the plain share of right labels
of the per-cell answers as well.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import cello1 as co
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.recipes import BuildSettings, SolveSettings
from cello1.scoring.evaluate import Evaluation, compare, donors_of, score_all
from cello1.scoring.statistics import clustered_interval
from cello1.solvers.base import Failure, Response
from cello1.solvers.choose import CLASSICAL, choose_solver
from cello1.terminal.tables import interval, paired_table, scores_table, show


def cross_validate(puzzles: list[Puzzle], name: str, joint: bool) -> dict[str, str]:
    """Answer the puzzles of every donor by a solver that learned from the others."""
    donors = sorted({p.meta["donor_id"] for p in puzzles})
    texts: dict[str, str] = {}

    def keep(puzzle_id: str, result: Response | Failure) -> None:
        assert isinstance(result, Response)
        texts[puzzle_id] = result.text

    for i, held_out in enumerate(donors):
        judge = donors[(i + 1) % len(donors)]
        by_donor = {d: [p for p in puzzles if p.meta["donor_id"] == d] for d in donors}
        train = [p for d in donors if d not in (held_out, judge) for p in by_donor[d]]
        asked = SolveSettings(solver=name, alone=not joint)
        solver = choose_solver(asked, train, by_donor[judge])
        solver.solve(by_donor[held_out], keep)
    return texts


def plain_share(puzzles: list[Puzzle], texts: dict[str, str]) -> str:
    """Return the share of cells whose label is right, repeated or not, with its interval."""
    shares = []
    for puzzle in puzzles:
        response = parse_response(texts[puzzle.id])
        assert isinstance(response, Answer)
        keys = [label_key(label) for label in response.labels]
        shares.append(
            np.mean([k == g for k, g in zip(keys, puzzle.answer_keys or (), strict=True)])
        )
    return interval(clustered_interval(shares, donors_of(puzzles)))


def draw(evaluations: dict[str, Evaluation], path: Path) -> None:
    """Draw batch-level accuracy, alone beside jointly, with intervals."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    names = [name for name in CLASSICAL if name != "chance"]
    for offset, how, colour in ((0.2, "alone", "#b8b8b8"), (-0.2, "jointly", "#2a6f97")):
        bars = [evaluations[f"{name} ({how})"].overall.batch_accuracy for name in names]
        middle = [bar.estimate for bar in bars]
        spread = [
            [m - b.low for m, b in zip(middle, bars, strict=True)],
            [b.high - m for m, b in zip(middle, bars, strict=True)],
        ]
        places = np.arange(len(names)) + offset
        label = {"alone": "each cell alone", "jointly": "the whole batch together"}[how]
        axes.barh(places, middle, 0.36, xerr=spread, color=colour, capsize=3, label=label)
        for place, bar in zip(places, bars, strict=True):
            axes.annotate(
                f"{bar.estimate:.3f}",
                (bar.high, place),
                (4, 0),
                textcoords="offset points",
                va="center",
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("batches with every cell right (95 % interval over 8 held-out donors)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, 0.6)
    axes.legend(frameon=False, loc="lower right")
    plt.rcParams["svg.hashsalt"] = "cello1"
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=160)


def main() -> None:
    """Build, answer, score."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--per-n", type=int, default=100)
    arguments.add_argument("--figure", type=Path, help="write the picture of the README")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = BuildSettings(split="none", per_n=args.per_n)
        made = co.build([args.file], Path(folder) / "puzzles", settings)
        puzzles = co.read_puzzles(made.folder / "all.parquet")
    print(f"{len(puzzles)} puzzles, N: {made.audit.n_histogram}")
    evaluations, scored, plain = {}, {}, {}
    for name in CLASSICAL:
        for joint in (False, True):
            key = f"{name} ({'jointly' if joint else 'alone'})"
            texts = cross_validate(puzzles, name, joint)
            evaluations[key] = co.evaluate(puzzles, texts)
            scored[key] = score_all(puzzles, texts)
            plain[key] = plain_share(puzzles, texts)
    show(scores_table(evaluations))
    pairs = {
        f"{name}: jointly - alone": compare(scored[f"{name} (jointly)"], scored[f"{name} (alone)"])
        for name in CLASSICAL
    }
    show(paired_table(pairs))
    print("plain share of right labels (repeats count):")
    for key, text in plain.items():
        print(f"  {key:22} {text}")
    if args.figure:
        draw(evaluations, args.figure)


if __name__ == "__main__":
    main()
