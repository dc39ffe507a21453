"""Speed of the classical solvers, on puzzles of simulated cells (no data needed).

Run ``python benchmarks/solve.py``. Prints

* puzzles/s of every solver, reasons included;
* centroids beside scikit-learn asked for one cell at a time (the same scores, then the same
  assignment), as a ratio;
* exact one-to-one probabilities beside summing over all assignments, for 8 cells and types.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.naive_bayes import BernoulliNB

import cello1 as co
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.classical.centroids import SMOOTHING, Centroids
from cello1.solvers.classical.chance import Chance
from cello1.solvers.classical.expert import ClassicalSolver
from cello1.solvers.classical.markers import Markers


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of some calls after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def make_puzzles(folder: Path) -> list[Puzzle]:
    """Build puzzles of 8 to 15 cells from 20 types with 3,000 genes."""
    rng = np.random.default_rng(0)
    base = rng.gamma(0.3, size=3_000)
    types = [*Markers.from_file().weights][:20]
    shares = {
        t: base * np.exp(rng.normal(0, 1.5, 3_000) * (rng.random(3_000) < 0.1)) for t in types
    }
    profiles = pd.DataFrame(shares, index=[f"GENE{i}" for i in range(3_000)])
    cells = co.simulate(profiles, donors=4, cells_per_type=10)
    cells.write_h5ad(folder / "simulated.h5ad")
    settings = BuildSettings(split="none", nested_types="allowed")
    co.build([folder / "simulated.h5ad"], folder / "puzzles", settings)
    return co.read_puzzles(folder / "puzzles" / "all.parquet")


def answer_one_by_one(centroids: Centroids, peer: BernoulliNB, puzzles: list[Puzzle]) -> None:
    """Do as centroids do with a scikit-learn model that is asked cell by cell."""
    for puzzle in puzzles:
        columns = [centroids.types[c.casefold()] for c in puzzle.candidates]
        rows = []
        for genes in puzzle.cells:
            presence = np.zeros((1, len(centroids.genes)))
            presence[0, [centroids.genes[g] for g in genes if g in centroids.genes]] = 1
            rows.append(peer.predict_log_proba(presence)[0, columns])
        assign_jointly(np.array(rows))


def enumerate_all(scores: np.ndarray) -> np.ndarray:
    """Sum over every assignment, the definition itself."""
    n = len(scores)
    shares = np.zeros((n, n))
    for order in permutations(range(n)):
        weight = np.exp(sum(scores[i, j] for i, j in enumerate(order)))
        shares[range(n), order] += weight
    return shares / shares[0].sum()


def main() -> None:
    """Run and print everything."""
    with tempfile.TemporaryDirectory() as folder:
        puzzles = make_puzzles(Path(folder))
    train, test = puzzles[::2], puzzles[1::2]
    centroids = Centroids(train)
    for expert in (Chance(), Markers.from_file(), centroids):
        for joint in (False, True):
            solver = ClassicalSolver(expert, joint=joint)
            took = seconds(lambda s=solver: [s.answer(p) for p in test])
            print(f"{solver.name:22} {len(test) / took:10,.0f} puzzles/s")

    cells = [(g, a.casefold()) for p in train for g, a in zip(p.cells, p.answer or (), strict=True)]
    presence = np.zeros((len(cells), len(centroids.genes)))
    for row, (genes, _) in enumerate(cells):
        presence[row, [centroids.genes[g] for g in genes]] = 1
    labels = [centroids.types[label] for _, label in cells]
    peer = BernoulliNB(alpha=SMOOTHING, fit_prior=False).fit(presence, labels)
    ours = seconds(lambda: [assign_jointly(centroids.scores(p)) for p in test])
    theirs = seconds(lambda: answer_one_by_one(centroids, peer, test))
    print(f"\nscores and assignment, ours beside one cell at a time: {theirs / ours:.1f} x as fast")

    scores = np.random.default_rng(0).normal(size=(8, 8))
    assert np.allclose(probabilities(scores)[0], enumerate_all(scores))
    ours = seconds(lambda: probabilities(scores), 20)
    theirs = seconds(lambda: enumerate_all(scores), 1)
    print(f"exact probabilities for 8 cells beside enumeration: {theirs / ours:,.0f} x as fast")
    for n in (10, 15):
        big = np.random.default_rng(0).normal(size=(n, n))
        print(f"  {n} cells and types: {1e3 * seconds(lambda b=big: probabilities(b)):.2f} ms")


if __name__ == "__main__":
    main()
