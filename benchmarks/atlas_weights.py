"""Fit what genes count for in the atlas, on puzzles simulated from tables that are left out.

Run ``python benchmarks/atlas_weights.py DATA``. Of every table with five types or more, puzzles are
simulated (noise of laboratory, donor and cell, ambient RNA, shallow lists) and scored by an atlas
without the study of that table; a penalised conditional logit over candidates and over cells then
fits `marked`, `measured` and the worth of places (:class:`cello1.atlas.Weights`). No real cell is
used. ``--only NAME`` takes single sources. Prints the weights and the accuracy before and after.
The weights of the package were fitted by a program of this kind on 36 tables of 60 puzzles, one
of other random draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import logsumexp

from cello1.atlas import Atlas
from cello1.atlas.atlas import COMMON, FIRST, LAST
from cello1.atlas.build import Match, read_profiles
from cello1.atlas.genes import is_housekeeping
from cello1.recipes import read_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "atlas.yaml"
BANDS = len(COMMON) + 1
PENALTY = 0.01
START = np.array([1.0] * (2 * BANDS) + [0.0, 0.0])


def simulate(columns: Any, genes: list[str], means: Any, count: int, seed: int) -> list[Any]:
    """Return (gene lists, labels) of puzzles whose i-th cell is of the i-th label."""
    rng = np.random.default_rng(seed)
    telling = np.array([not is_housekeeping(gene) for gene in genes])
    names, shares = np.array(genes)[telling], means[:, telling]
    shares = shares / shares.sum(axis=1, keepdims=True)
    rows: dict[str, list[int]] = {}
    for i, column in enumerate(columns):
        rows.setdefault(column.label.casefold(), []).append(i)
    if len(rows) < 5:
        return []
    made = []
    for _ in range(count):
        n = int(rng.integers(5, min(15, len(rows)) + 1))
        labels = [sorted(rows)[i] for i in rng.permutation(len(rows))[:n]]
        laboratory, ambient = np.exp(rng.normal(0, 0.5, len(names))), shares.mean(axis=0)
        length, cells = rng.uniform(8, 40), []
        for label in labels:
            own = shares[rows[label][rng.integers(len(rows[label]))]]
            part = rng.beta(1, 12)
            rate = (own * (1 - part) + ambient * part) * laboratory
            rate = rate * np.exp(rng.normal(0, 0.7, len(names)))
            counts = rng.poisson(rate / rate.sum() * np.exp(rng.normal(7.3, 0.6)))
            keep = int(np.clip(rng.normal(length, length / 4), 5, 50))
            order = np.argsort(-(counts + rng.random(len(names)) / 2), kind="stable")[:keep]
            cells.append([str(names[i]) for i in order if counts[i] > 0])
        if all(cells):
            made.append((cells, labels))
    return made


def features(atlas: Atlas, puzzles: list[Any]) -> list[Any]:
    """Split the scores of every puzzle by band of genes, part of the row and place in the list."""
    flat = {"first": (0.0,) * BANDS, "last": (0.0,) * BANDS, "floor": -np.inf}
    parts = []
    for marked, measured in ((1.0, 0.0), (0.0, 1.0)):
        for band in range(BANDS):
            one = tuple(float(i == band) for i in range(BANDS))
            nothing = (0.0,) * BANDS
            parts.append((one if marked else nothing, one if measured else nothing))
    even = (1.0,) * BANDS
    atlases = [atlas.with_weights(marked=a, measured=b, **flat) for a, b in [*parts, (even, even)]]
    found = []
    for other in atlases:  # they differ in weights alone, so what is measured is shared
        other.__dict__.update({k: atlas.__dict__[k] for k in ("_columns", "_worth", "_beyond")})
        other.__dict__["_factor"] = atlas._factor
    for cells, labels in puzzles:
        listed = atlases[-1].indicator(cells)
        place = np.concatenate([np.arange(k) for k in np.diff(listed.indptr)])
        scores = [np.asarray(listed @ other.rows(labels).T) for other in atlases[:-1]]
        for wanted in (place < FIRST, place >= LAST):
            some = listed.copy()
            some.data = wanted.astype(np.float32)
            scores.append(np.asarray(some @ atlases[-1].rows(labels).T))
        stack = np.array(scores, dtype=np.float64)
        found.append(stack - stack.mean(axis=1, keepdims=True))
    return found


def loss(weights: Any, sets: list[list[Any]]) -> tuple[float, Any]:
    """Penalised surprise at the right candidate of each cell and the right cell of each type."""
    total, slope = 0.0, np.zeros(len(weights))
    for found in sets:
        for part in found:
            s, n = np.tensordot(weights, part, 1), part.shape[1]
            p = np.exp(s - logsumexp(s, axis=1, keepdims=True))
            q = np.exp(s - logsumexp(s, axis=0, keepdims=True))
            total -= float(np.log(np.diag(p) * np.diag(q) + 1e-24).sum()) / n / len(found)
            slope += (part * (p + q - 2 * np.eye(n))).sum(axis=(1, 2)) / n / len(found)
    away = weights - START / 2
    strength = PENALTY * len(sets) / 10
    return total + strength * float(away @ away), slope + 2 * strength * away


def accuracy(weights: Any, sets: list[list[Any]]) -> tuple[float, float]:
    """Return cell- and batch-level accuracy of joint assignment, tables counting alike."""
    means = []
    for found in sets:
        right = [
            linear_sum_assignment(-np.tensordot(weights, p, 1))[1] == np.arange(p.shape[1])
            for p in found
        ]
        means.append((np.mean([r.mean() for r in right]), np.mean([r.all() for r in right])))
    cell, batch = np.mean(means, axis=0)
    return float(cell), float(batch)


def main() -> None:
    """Simulate, leave out, fit."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--only", action="append", default=[], help="a source; repeatable")
    arguments.add_argument("--count", type=int, default=60, help="puzzles per table")
    args = arguments.parse_args()
    sets = []
    for number, source in enumerate(read_recipe(RECIPE).atlas.sources):
        if source.profiles is None or (args.only and source.name not in args.only):
            continue
        table = read_profiles(source, args.data, Match(source.name, "profiles"))
        puzzles = simulate(*table, args.count, number)
        if puzzles:
            atlas = Atlas.read(without=[source.study or source.name])
            atlas.rows(puzzles[0][1])
            sets.append(features(atlas, puzzles))
            print(f"{source.name}: {len(puzzles)} puzzles, without {source.study}", flush=True)
    fitted = minimize(loss, START / 2, args=(sets,), jac=True, method="L-BFGS-B").x
    print(f"before {accuracy(START, sets)}, after {accuracy(fitted, sets)} (cell, batch)")
    marked, measured = fitted[:BANDS], fitted[BANDS : 2 * BANDS]
    for name, values in (("marked", marked), ("measured", measured)):
        print(name, values.round(2).tolist())
    for name, value in (("first", fitted[-2]), ("last", fitted[-1])):
        print(name, np.maximum(-1, value / ((marked + measured) / 2)).round(2).tolist())


if __name__ == "__main__":
    main()
