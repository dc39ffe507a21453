"""Fit what the atlas weighs its sources by, and embed it with where it comes from.

Run ``python benchmarks/atlas_weights.py DATA`` with the folder of the shared data. Of every table
with five types or more, puzzles are simulated (noise of laboratory, donor and cell, ambient RNA,
shallow lists, here and there a wider name for a type) and scored by an atlas without the study of
that table: once as it is, and once without half of the types of that table, wherever they stand,
so that they are known by markers and relatives alone. A penalised logit over the candidates of a
cell and over the cells of a candidate then fits `marked`, `measured`, the same for types without a
table, and what places in a list count (:class:`cello1.atlas.Weights`). No real cell is used.

The temperature is fitted on real cells of validation studies: donors 1039 and 107 of Kang 2018, and
Baron 2016; for figures about one of these two, on the other and on simulated puzzles. Accuracy on
the validation sets is printed for the weights of before and those fitted, and with half of the
types hidden. Writes ``weights.json`` beside the embedded atlas, with the command and the hashes of
all that went in. ``--check`` fits them anew and compares. What is simulated and scored is kept in
the folder ``--cache``, so that a killed call goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize
from scipy.sparse import csr_array
from scipy.special import logsumexp

import cello1 as co
from cello1.atlas import Atlas
from cello1.atlas import atlas as atlas_module
from cello1.atlas.atlas import COMMON, EMBEDDED, FIRST, LAST, Weights
from cello1.atlas.build import Match, read_profiles
from cello1.atlas.genes import is_housekeeping
from cello1.atlas.source import Source
from cello1.recipes import BuildSettings, read_recipe
from cello1.recipes.atlas import AtlasSource
from cello1.runs import replacing
from cello1.scoring.calibration import fit_temperature
from cello1.scoring.ontology import above_of, distance, information, term_id, term_label
from cello1.solvers.assign import probabilities

RECIPE = Path(__file__).parents[1] / "recipes" / "atlas.yaml"
BANDS = len(COMMON) + 1
COUNT = 60  # puzzles per table
BY_TISSUE = 15  # tables of more tissues than this give puzzles of one tissue each
WIDER = 0.12  # share of names that are replaced by that of the type above
CONTENDERS = 6_000  # genes of a table that can reach a list
TEMPERATURE = 1.34
PENALTY, PLACES_PENALTY = 0.0005, 0.02
# Real cells that no figure is about: file, settings of the build, donors.
VALIDATION: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "Kang, 1039 and 107": (
        "Kang 2018",
        "cells/kang2018_ifnb2800.h5ad",
        {"n_min": 8, "n_max": 12, "per_n": 150},
        ("1039", "107"),
    ),
    "Kang, 1039 and 107, 1,287 genes": (
        "Kang 2018",
        "cells/kang2018_muscat_1287genes.h5ad",
        {"n_min": 8, "n_max": 8, "per_n": 200},
        ("1039", "107"),
    ),
    "pancreas": (
        "Baron 2016",
        "cells/baron2016_pancreas350.h5ad",
        {"n_min": 4, "n_max": 5, "per_n": 100},
        (),
    ),
    "pancreas, 2,000 genes": (
        "Baron 2016",
        "more_cells/baron2016_pancreas2812_2000genes.h5ad",
        {"n_min": 4, "n_max": 6, "per_n": 100},
        (),
    ),
}


class Case(NamedTuple):
    """A puzzle: gene lists, candidates, and the place of each cell's type among them."""

    cells: list[list[str]]
    candidates: list[str]
    gold: list[int]


class Scored(NamedTuple):
    """What the scores of cases are weighed together of.

    Attributes
    ----------
    parts
        Centred over the cells, shape (cases, places in the list (first, middle, last), expected
        and beyond, parts of `COMMON`, cells, candidates).
    known
        Shape (cases, candidates).
    gold
        Shape (cases, cells).
    weight
        Of each case, shape (cases,).
    """

    parts: Any
    known: Any
    gold: Any
    weight: Any


def simulate(columns: Any, genes: list[str], means: Any, count: int, seed: int) -> list[Case]:
    """Draw puzzles from mean profiles."""
    rng = np.random.default_rng(seed)
    telling = np.array([not is_housekeeping(gene) for gene in genes])
    names, shares = np.array(genes)[telling], means[:, telling]
    best = np.argsort(-shares.max(axis=0), kind="stable")[:CONTENDERS]
    names, shares = names[best], shares[:, best]
    shares = shares / shares.sum(axis=1, keepdims=True)
    tissues = sorted({column.tissue for column in columns})
    apart = tissues if len(tissues) > BY_TISSUE else [None]
    made = []
    for tissue in apart:
        rows: dict[str, list[int]] = {}
        for i, column in enumerate(columns):
            if tissue is None or column.tissue == tissue:
                rows.setdefault(column.label.casefold(), []).append(i)
        if len(rows) < 5:
            continue
        for _ in range(count if tissue is None else max(1, count // 10)):
            n = int(rng.integers(5, min(15, len(rows)) + 1))
            labels = [sorted(rows)[i] for i in rng.permutation(len(rows))[:n]]
            own = [shares[rows[label][rng.integers(len(rows[label]))]] for label in labels]
            cells = draw(own, shares.mean(axis=0), names, rng)
            if all(cells):
                made.append(Case(cells, wider(labels, rng), list(range(n))))
    return made


def draw(own: list[Any], ambient: Any, names: Any, rng: np.random.Generator) -> list[list[str]]:
    """Draw the gene lists of one laboratory's cells."""
    laboratory = np.exp(rng.normal(0, 0.5, len(names)))
    length, cells = rng.uniform(8, 40), []
    for mean in own:
        part = rng.beta(1, 12)
        rate = (mean * (1 - part) + ambient * part) * laboratory
        rate = rate * np.exp(rng.normal(0, 0.7, len(names)))
        counts = rng.poisson(rate / rate.sum() * np.exp(rng.normal(7.3, 0.6)))
        keep = int(np.clip(rng.normal(length, length / 4), 5, 50))
        order = np.argsort(-(counts + rng.random(len(names)) / 2), kind="stable")[:keep]
        cells.append([str(names[i]) for i in order if counts[i] > 0])
    return cells


def wider(labels: list[str], rng: np.random.Generator) -> list[str]:
    """Replace some names by that of the type above, where it still means one of them only."""
    names = list(labels)
    for i, label in enumerate(labels):
        term = term_id(label)
        if rng.random() >= WIDER or term is None:
            continue
        up = [t for t in sorted(above_of(term)) if distance(t, term) == 1 and information(t) >= 0.3]
        others = [term_id(name) or name for k, name in enumerate(names) if k != i]
        up = [t for t in up if t not in others and not any(t in above_of(o) for o in others)]
        if up and (name := term_label(up[rng.integers(len(up))])):
            names[i] = name.casefold()
    return names


def hide(sources: Sequence[Source], keys: set[str]) -> list[Source]:
    """Return the sources without the columns of some types; lists of markers stay."""
    kept = []
    for source in sources:
        rows = [i for i, c in enumerate(source.columns) if c.key not in keys]
        if source.is_table and rows:
            columns = tuple(source.columns[i] for i in rows)
            source = replace(source, columns=columns, values=csr_array(source.values[rows]))
        if rows or not source.is_table:
            kept.append(source)
    return kept


@lru_cache(maxsize=2)  # tables of one study follow each other
def atlas_without(study: str, hidden: bool) -> Atlas:
    """Return the embedded atlas without a study, and perhaps without half of all types."""
    others = [s for s in Atlas.read().sources if s.study != study]
    return Atlas(hide(others, half_of(study))) if hidden else Atlas(others)


def half_of(study: str) -> set[str]:
    """Choose half of the types of the atlas, for each study others."""
    return {k for k in Atlas.read().keys if zlib.crc32(f"{study} {k}".encode()) % 2}


def scored(atlas: Atlas, cases: Sequence[Case], weight: float) -> list[Scored]:
    """Split the scores of cases by place, part of the row and part of `COMMON`; by size."""
    labels = sorted({label for case in cases for label in case.candidates})
    at = {label: j for j, label in enumerate(labels)}
    parts = atlas.parts([atlas._key(label) for label in labels])
    bands = [atlas.by_commonness([float(i == b) for i in range(BANDS)]) for b in range(BANDS)]
    rows = [part * band for part in (parts.expected, parts.beyond) for band in bands]
    listed = atlas.indicator([cell for case in cases for cell in case.cells])
    place = np.concatenate([np.arange(k) for k in np.diff(listed.indptr)])
    split = []
    for wanted in (place < FIRST, (place >= FIRST) & (place < LAST), place >= LAST):
        some = csr_array((wanted.astype(np.float32), listed.indices, listed.indptr), listed.shape)
        split.append([some @ row.T for row in rows])
    stack = np.array(split, dtype=np.float32)
    groups: dict[tuple[int, int], list[tuple[Any, Any, Any]]] = {}
    start = 0
    for case in cases:
        stop, own = start + len(case.cells), [at[label] for label in case.candidates]
        part = stack[:, :, start:stop][:, :, :, own]
        part = part - part.mean(axis=2, keepdims=True)
        shape = (3, 2, BANDS, len(case.cells), len(own))
        groups.setdefault(shape[-2:], []).append(
            (part.reshape(shape), parts.known[own], np.array(case.gold))
        )
        start = stop
    return [
        Scored(*(np.array(x) for x in zip(*of, strict=True)), np.full(len(of), weight / len(cases)))
        for of in groups.values()
    ]


# What the parts of scores depend on: the cache is made anew when any of it changes.
CODE = (
    *(simulate, draw, wider, hide, half_of, scored, atlas_module._Columns),
    *(Atlas.parts, Atlas._beyond, Atlas._expected, Atlas._named, Atlas._named_worth),
    *(Atlas._kinship, Atlas._factor.func, Atlas._gain_and_worth.func, Atlas._listed),
)
NUMBERS = ("pseudo", "decline", "noise", "study", "tissue", "disease", "ridge")


def of_table(data: Path, source: AtlasSource, number: int, cache: Path) -> list[Scored]:
    """Simulate the puzzles of one table and score them without its study; kept in the cache."""
    code = "".join(map(inspect.getsource, CODE))
    numbers = (source, number, COUNT, WIDER, CONTENDERS, *(getattr(Weights, n) for n in NUMBERS))
    made_of = f"{code}{numbers}".encode() + (EMBEDDED / "atlas.npz").read_bytes()
    kept = cache / f"{hashlib.sha256(made_of).hexdigest()[:16]}.npz"
    if not kept.exists():
        table = read_profiles(source, data, Match(source.name, "profiles"))
        cases, found = simulate(*table, COUNT, number), []
        if cases:
            study = source.study or source.name
            found += scored(atlas_without(study, False), cases, 1.0)
            found += scored(atlas_without(study, True), cases, 0.5)
        arrays = {
            f"{i} {name}": v for i, one in enumerate(found) for name, v in one._asdict().items()
        }
        with replacing(kept) as part, part.open("wb") as file:
            np.savez(file, number=len(found), **arrays)
    with np.load(kept) as arrays:
        return [
            Scored(*(arrays[f"{i} {name}"] for name in Scored._fields))
            for i in range(int(arrays["number"]))
        ]


def joined(sets: Sequence[Scored]) -> list[Scored]:
    """Put cases of one size together."""
    sizes: dict[tuple[int, ...], list[Scored]] = {}
    for one in sets:
        sizes.setdefault(one.parts.shape[-2:], []).append(one)
    return [Scored(*map(np.concatenate, zip(*of, strict=True))) for of in sizes.values()]


def unpacked(vector: Any) -> tuple[Any, Any]:
    """Return what parts weigh, (known or alone, parts, bands), and what places do, (3, bands)."""
    weights = vector[: 4 * BANDS].reshape(2, 2, BANDS)
    first, last = vector[4 * BANDS :].reshape(2, BANDS)
    return weights, np.stack([1 + first, np.ones(BANDS), 1 + last])


def scores_of(vector: Any, one: Scored) -> Any:
    """Return the scores of cases, shape (cases, cells, candidates)."""
    (full, alone), places = unpacked(vector)
    summed = np.einsum("cqpbik,qb->cpbik", one.parts, places)
    known = one.known[:, None, :]
    return np.einsum("cpbik,pb->cik", summed, full) * known + np.einsum(
        "cpbik,pb->cik", summed, alone
    ) * (1 - known)


def loss(vector: Any, sets: Sequence[Scored]) -> tuple[float, Any]:
    """Penalised surprise at the right candidate of each cell and the right cell of each type."""
    total, slope = 0.0, np.zeros(len(vector))
    (full, alone), places = unpacked(vector)
    for one in sets:
        summed = np.einsum("cqpbik,qb->cpbik", one.parts, places)
        known = one.known[:, None, :]
        s = (
            np.einsum("cpbik,pb->cik", summed, full) * known
            + np.einsum("cpbik,pb->cik", summed, alone) * (1 - known)
        ).astype(np.float64)
        right = np.zeros_like(s)
        np.put_along_axis(right, one.gold[:, :, None], 1.0, axis=2)
        log_p, log_q = (s - logsumexp(s, axis=a, keepdims=True) for a in (2, 1))
        weight = (one.weight / s.shape[1])[:, None, None]
        total -= float((weight * right * (log_p + log_q)).sum())
        away = weight * (np.exp(log_p) + np.exp(log_q) - 2 * right)
        of_full, of_alone = away * known, away * (1 - known)
        slope[: 2 * BANDS] += np.einsum("cpbik,cik->pb", summed, of_full).ravel()
        slope[2 * BANDS : 4 * BANDS] += np.einsum("cpbik,cik->pb", summed, of_alone).ravel()
        per_part = np.einsum("cqpbik,cik->qpb", one.parts, of_full) * full
        per_part += np.einsum("cqpbik,cik->qpb", one.parts, of_alone) * alone
        by_place = per_part.sum(axis=1)
        slope[4 * BANDS :] += np.concatenate([by_place[0], by_place[2]])
    number = sum(one.weight.sum() for one in sets)
    strength, of_places = PENALTY * number, PLACES_PENALTY * number
    flat, bare, around = full.ravel() - 0.5, (alone - full).ravel(), vector[4 * BANDS :]
    total += strength * float(flat @ flat + bare @ bare) + of_places * float(around @ around)
    slope[: 2 * BANDS] += 2 * strength * (flat - bare)
    slope[2 * BANDS : 4 * BANDS] += 2 * strength * bare
    slope[4 * BANDS :] += 2 * of_places * around
    return total, slope


def fit(sets: Sequence[Scored]) -> Any:
    """Fit all weights."""
    start = np.concatenate([np.full(4 * BANDS, 0.5), np.zeros(2 * BANDS)])
    found = minimize(loss, start, (sets,), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x


def weights_of(vector: Any, **others: float) -> Weights:
    """Write what was fitted as weights."""
    (full, alone), places = unpacked(vector)
    fields = {
        "marked": full[0],
        "measured": full[1],
        "marked_alone": alone[0],
        "measured_alone": alone[1],
        "first": places[0] - 1,
        "last": places[2] - 1,
    }
    return Weights(**{name: tuple(np.round(v, 3).tolist()) for name, v in fields.items()}, **others)


def vector_of(weights: Weights) -> Any:
    """Write weights as what is fitted."""
    names = ("marked", "measured", "marked_alone", "measured_alone", "first", "last")
    return np.concatenate([getattr(weights, name) for name in names])


def accuracy(vector: Any, sets: Sequence[Scored]) -> tuple[float, float]:
    """Return cell- and batch-level accuracy of joint assignment."""
    right = []
    for one in sets:
        for s, gold in zip(scores_of(vector, one), one.gold, strict=True):
            right.append(linear_sum_assignment(-s)[1] == gold)
    return float(np.mean([r.mean() for r in right])), float(np.mean([r.all() for r in right]))


def temperature(vector: Any, together: Sequence[Sequence[Scored]], at_most: int = 60) -> float:
    """Fit the temperature of joint probabilities, on some cases of every set."""
    scores: list[Any] = []
    gold: list[Any] = []
    for sets in together:
        for one in sets:
            share = max(1, at_most * len(one.gold) // sum(len(o.gold) for o in sets))
            scores += list(scores_of(vector, one)[:share].astype(np.float64))
            gold += list(one.gold[:share])
    return fit_temperature(scores, gold, lambda s: probabilities(s)[0])


def validation_cases(data: Path, folder: Path) -> dict[str, list[Case]]:
    """Build the puzzles of the validation studies."""
    found = {}
    for name, (_, file, build, donors) in VALIDATION.items():
        settings = BuildSettings(split="none", **build)
        co.build([data / file], folder / name, settings)
        puzzles = co.read_puzzles(folder / name / "all.parquet")
        found[name] = [
            Case(
                [list(cell) for cell in p.cells],
                list(p.candidates),
                [p.candidate_index[key] for key in p.answer_keys],
            )
            for p in puzzles
            if not donors or p.meta["donor_id"] in donors
        ]
    return found


def hashes(data: Path) -> dict[str, str]:
    """Return what the weights were made from: file -> SHA-256."""
    here = Path(__file__)
    files = {f"benchmarks/{here.name}": here, "recipes/atlas.yaml": RECIPE}
    files |= {f"embedded/{n}": EMBEDDED / n for n in ("atlas.npz", "atlas.json", "symbols.tsv.gz")}
    for source in read_recipe(RECIPE).atlas.sources:
        if source.profiles is not None:
            files[f"DATA/{source.profiles}"] = data / source.profiles
    files |= {f"DATA/{file}": data / file for _, file, _, _ in VALIDATION.values()}
    return {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in sorted(files.items())}


def main() -> None:
    """Simulate, leave out, hide, fit, compare, embed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument(
        "--cache", type=Path, default=Path(".atlas_weights"), help="what is done is kept here"
    )
    arguments.add_argument(
        "--check", action="store_true", help="compare with what is embedded, write nothing"
    )
    args = arguments.parse_args()
    sources, simulated = Atlas.read().sources, []
    args.cache.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(read_recipe(RECIPE).atlas.sources):
        if source.profiles is not None:
            simulated += of_table(args.data, source, number, args.cache)
            print(f"{source.name}, without {source.study}", flush=True)
    simulated = joined(simulated)
    vector, before = fit(simulated), vector_of(Atlas.read().weights)
    with tempfile.TemporaryDirectory() as folder:
        cases_of = validation_cases(args.data, Path(folder))
    real = {name: scored(Atlas(sources), cases, 1.0) for name, cases in cases_of.items()}
    told: dict[str, Any] = {"simulated": [accuracy(v, simulated) for v in (before, vector)]}
    for name, cases in cases_of.items():
        hidden = scored(Atlas(hide(sources, half_of(name))), cases, 1.0)
        told[name] = [accuracy(v, real[name]) for v in (before, vector)]
        told[f"{name}, half of the types hidden"] = [accuracy(v, hidden) for v in (before, vector)]
    for name, (old, new) in told.items():
        print(f"{name}: {old[0]:.3f} / {old[1]:.3f} -> {new[0]:.3f} / {new[1]:.3f} (cell / batch)")
    studies = sorted({study for study, *_ in VALIDATION.values()})
    without = {}
    for study in ("", *studies):
        some = [sets for name, sets in real.items() if VALIDATION[name][0] != study]
        some += [simulated] if study else []
        without[study] = round(temperature(vector, some), 2)
    # Rows keep their size from one fit to the next: who reads them need not be fitted anew.
    size = TEMPERATURE / without.pop("")
    vector[: 4 * BANDS] *= size
    without = {study: round(t * size, 2) for study, t in without.items()}
    weights = weights_of(vector, temperature=TEMPERATURE)
    manifest = {
        "command": "python benchmarks/atlas_weights.py DATA",
        "weights": asdict(weights),
        "temperature_without": without,
        "accuracy": {name: {"before": old, "fitted": new} for name, (old, new) in told.items()},
        "made_of": hashes(args.data),
    }
    print(json.dumps({k: manifest[k] for k in ("weights", "temperature_without")}, indent=1))
    if not args.check:
        (EMBEDDED / "weights.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    elif not np.allclose(vector_of(weights), before, atol=0.01):
        raise SystemExit("the embedded weights are others than these")


if __name__ == "__main__":
    main()
