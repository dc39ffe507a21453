"""Fit what the atlas weighs its sources by, and embed it with where it comes from.

Run ``python benchmarks/atlas_weights.py DATA`` with the folder of the shared data. Of every table
with five types or more, puzzles are simulated (noise of laboratory, donor and cell, ambient RNA,
shallow lists, here and there a wider name for a type), once of all genes and once of the 2,000 most
variable ones, whose lists are long. They are scored by an atlas without the study of that table:
as it is; without half of all types; and without half of the branches of the ontology, so that
their types are known by markers and remote relatives alone. A penalised logit over the candidates
of a cell and over the cells of a candidate then fits `marked`, `measured`, the same for types
without a table, and what places in a list count (:class:`cello1.atlas.Weights`). No real cell is
used.

The temperature is fitted on real cells of validation studies: donors 1039 and 107 of Kang 2018,
Baron 2016, and the 700 cells of the demo; for figures about one of these, on the others. Accuracy
on the validation sets is printed for the weights of before and those fitted, also with half of the
types or of the branches hidden. Writes ``weights.json`` beside the embedded atlas, with the command
and the hashes of all that went in. ``--check`` fits them anew and compares. What is simulated and
scored is kept in the folder ``--cache``, so that a killed call goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import tempfile
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
from cello1.demo import built_in
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings, read_recipe
from cello1.recipes.atlas import AtlasSource
from cello1.runs import replacing
from cello1.scoring.calibration import fit_temperature
from cello1.scoring.ontology import above_of, distance, information, term_id, term_label
from cello1.solvers.assign import probabilities
from cello1.solvers.classical.atlas import AtlasExpert, evened

RECIPE = Path(__file__).parents[1] / "recipes" / "atlas.yaml"
BANDS = len(COMMON) + 1
COUNT, OF_VARIABLE = 60, 40  # puzzles per table, of all genes and of variable ones
VARIABLE = 2_000
# Parts of the atlas that are hidden -> weight of the puzzles that are solved without them.
HIDDEN = {"nothing": 1.0, "types": 0.25, "branches": 0.25}
BRANCH = 0.4  # information of the terms that branches begin at
BY_TISSUE = 15  # tables of more tissues than this give puzzles of one tissue each
WIDER = 0.12  # share of names that are replaced by that of the type above
CONTENDERS = 6_000  # genes of a table that can reach a list
ROUGH = 1.34
PENALTY, PLACES_PENALTY = 0.0005, 0.02
# What places in a list count, from which the penalty holds back: chosen on the validation sets,
# whose long lists end in more noise than simulated ones; at the top, a fit without penalty agrees.
PLACES = np.array([[0.6] * BANDS, [-0.2, -0.25, -0.4, -0.6, -1.0]])
# Real cells that no figure is about: file, settings of the build, donors.
DEMO = "Zheng 2017"
VALIDATION: dict[str, tuple[str, str | None, dict[str, Any], tuple[str, ...]]] = {
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
    "demo, 765 genes": (DEMO, None, {"n_min": 5, "n_max": 10, "per_n": 30, "one_donor": True}, ()),
}
# A study that is tested -> validation studies of the same laboratory, beside its own.
NEAR = {"PBMC3k": DEMO}


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
    length
        Genes of each cell that may be evidence, shape (cases, cells).
    """

    parts: Any
    known: Any
    gold: Any
    weight: Any
    length: Any


def simulate(
    columns: Any, genes: list[str], means: Any, count: int, seed: int, *, variable: bool = False
) -> list[Case]:
    """Draw puzzles from mean profiles, of all genes or of the most variable ones."""
    rng = np.random.default_rng(seed)
    telling = np.array([not is_housekeeping(gene) for gene in genes])
    names, shares = np.array(genes)[telling], means[:, telling]
    if variable:
        size = shares.var(axis=0) * 1e8 / (shares.mean(axis=0) * 1e4 + 0.05)
        best = np.argsort(-size, kind="stable")[:VARIABLE]
    else:
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
            # Of a few genes, fewer molecules are counted, but all listed ones may be evidence.
            lists = (50.0, 0.0, 6.6) if variable else (rng.uniform(8, 40), 0.25, 7.3)
            cells = draw(own, shares.mean(axis=0), names, lists, rng)
            if all(cells):
                # Shuffled: a tie must not be resolved for the right type.
                place = rng.permutation(n)
                named = wider(labels, rng)
                candidates = [named[i] for i in np.argsort(place)]
                made.append(Case(cells, candidates, place.tolist()))
    return made


def draw(
    own: list[Any],
    ambient: Any,
    names: Any,
    lists: tuple[float, float, float],
    rng: np.random.Generator,
) -> list[list[str]]:
    """Draw the gene lists of one laboratory's cells.

    `lists` is their mean length, its relative spread, and the mean logarithm of the depth.
    """
    length, spread, depth = lists
    laboratory, cells = np.exp(rng.normal(0, 0.5, len(names))), []
    for mean in own:
        part = rng.beta(1, 12)
        rate = (mean * (1 - part) + ambient * part) * laboratory
        rate = rate * np.exp(rng.normal(0, 0.7, len(names)))
        counts = rng.poisson(rate / rate.sum() * np.exp(rng.normal(depth, 0.6)))
        keep = int(np.clip(rng.normal(length, length * spread), 5, 50))
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


@lru_cache(maxsize=len(HIDDEN))  # tables of one study follow each other
def atlas_without(study: str, what: str) -> Atlas:
    """Return the embedded atlas without a study, and perhaps without half of something."""
    others = [s for s in Atlas.read().sources if s.study != study]
    return Atlas(hide(others, half_of(study, what)))


def half_of(study: str, what: str) -> set[str]:
    """Choose half of the types of the atlas, one by one, or by branch of the ontology.

    When whole branches are hidden, no near relative of a hidden type is left. Every study hides
    another half.
    """
    if what == "nothing":
        return set()
    name = branch_of if what == "branches" else str

    def is_hidden(key: str) -> bool:
        return bool(hashlib.sha256(f"{study} {name(key)}".encode()).digest()[0] % 2)

    return {key for key in Atlas.read().keys if is_hidden(key)}


def branch_of(key: str) -> str:
    """Return the widest term above a type that is not yet about cells of all kinds."""
    up = sorted(t for t in above_of(key) if information(t) >= BRANCH)
    return min(up, key=information) if up else key


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
    length = np.diff(listed.indptr)
    groups: dict[tuple[int, int], list[tuple[Any, Any, Any, Any]]] = {}
    start = 0
    for case in cases:
        stop, own = start + len(case.cells), [at[label] for label in case.candidates]
        part = stack[:, :, start:stop][:, :, :, own]
        part = part - part.mean(axis=2, keepdims=True)
        shape = (3, 2, BANDS, len(case.cells), len(own))
        groups.setdefault(shape[-2:], []).append(
            (part.reshape(shape), parts.known[own], np.array(case.gold), length[start:stop])
        )
        start = stop
    found = []
    for of in groups.values():
        part, known, gold, lengths = (np.array(x) for x in zip(*of, strict=True))
        found.append(Scored(part, known, gold, np.full(len(of), weight / len(cases)), lengths))
    return found


# What the parts of scores depend on: the cache is made anew when any of it changes.
CODE = (
    *(simulate, draw, wider, hide, half_of, branch_of, scored, atlas_module._Columns),
    *(Atlas.parts, Atlas._beyond, Atlas._expected, Atlas._named, Atlas._named_worth),
    *(Atlas._kinship, Atlas._factor.func, Atlas._gain_and_worth.func, Atlas._listed),
    Atlas._marker_rows.func,
)
NUMBERS = ("pseudo", "decline", "noise", "study", "tissue", "disease", "ridge")


def of_table(
    data: Path, source: AtlasSource, number: int, cache: Path
) -> dict[tuple[bool, str], list[Scored]]:
    """Simulate the puzzles of one table and score them without its study; kept in the cache.

    Returns them by whether they are of variable genes, and by what was hidden.
    """
    code = "".join(map(inspect.getsource, CODE))
    numbers = (source, number, COUNT, OF_VARIABLE, VARIABLE, HIDDEN, BRANCH, WIDER, CONTENDERS)
    numbers += (*(getattr(Weights, n) for n in NUMBERS), atlas_module._LONG)
    made_of = f"{code}{numbers}".encode() + (EMBEDDED / "atlas.npz").read_bytes()
    kept = cache / f"{hashlib.sha256(made_of).hexdigest()[:16]}.npz"
    if not kept.exists():
        table, found = read_profiles(source, data, Match(source.name, "profiles")), {}
        for variable, count in ((False, COUNT), (True, OF_VARIABLE)):
            cases = simulate(*table, count, number, variable=variable)
            for what, weight in HIDDEN.items() if cases else ():
                atlas = atlas_without(source.study or source.name, what)
                of = scored(atlas, cases, weight * count / COUNT)
                for i, one in enumerate(of):
                    for name, values in one._asdict().items():
                        found[f"{int(variable)} {what} {i} {name}"] = values
        with replacing(kept) as part, part.open("wb") as file:
            np.savez(file, **found)
    sets: dict[tuple[bool, str], list[Scored]] = {}
    with np.load(kept) as arrays:
        for variable, what, i in sorted({tuple(name.split()[:3]) for name in arrays.files}):
            one = Scored(*(arrays[f"{variable} {what} {i} {name}"] for name in Scored._fields))
            sets.setdefault((variable == "1", what), []).append(one)
    return sets


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
    flat, bare = full.ravel() - 0.5, (alone - full).ravel()
    around = vector[4 * BANDS :] - PLACES.ravel()
    total += strength * float(flat @ flat + bare @ bare) + of_places * float(around @ around)
    slope[: 2 * BANDS] += 2 * strength * (flat - bare)
    slope[2 * BANDS : 4 * BANDS] += 2 * strength * bare
    slope[4 * BANDS :] += 2 * of_places * around
    return total, slope


def fit(sets: Sequence[Scored]) -> Any:
    """Fit all weights."""
    start = np.concatenate([np.full(4 * BANDS, 0.5), PLACES.ravel()])
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


def accuracy(scores: Sequence[Any], gold: Sequence[Any]) -> tuple[float, float]:
    """Return cell- and batch-level accuracy of joint assignment."""
    right = [linear_sum_assignment(-s)[1] == g for s, g in zip(scores, gold, strict=True)]
    return float(np.mean([r.mean() for r in right])), float(np.mean([r.all() for r in right]))


def of_cases(vector: Any, sets: Sequence[Scored]) -> tuple[list[Any], list[Any]]:
    """Return the evened scores of simulated puzzles, and the right candidates."""
    scores, gold = [], []
    for one in sets:
        found = scores_of(vector, one).astype(np.float64)
        scores += [evened(s, length) for s, length in zip(found, one.length, strict=True)]
        gold += list(one.gold)
    return scores, gold


def of_puzzles(atlas: Atlas, puzzles: Sequence[Puzzle]) -> tuple[list[Any], list[Any]]:
    """Return what the solver scores real puzzles, at temperature 1, and the right candidates."""
    expert = AtlasExpert(atlas.with_weights(temperature=1.0))
    expert.prepare(puzzles)
    gold = [np.array([p.candidate_index[key] for key in p.answer_keys]) for p in puzzles]
    return [expert.scores(p) for p in puzzles], gold


def temperature(together: Sequence[tuple[list[Any], list[Any]]], at_most: int = 60) -> float:
    """Fit the temperature of joint probabilities, on some puzzles of every set."""
    scores: list[Any] = []
    gold: list[Any] = []
    for some, right in together:
        step = max(1, len(some) // at_most)
        scores += some[::step]
        gold += right[::step]
    return fit_temperature(scores, gold, lambda s: probabilities(s)[0])


def validation_puzzles(data: Path, folder: Path) -> dict[str, list[Puzzle]]:
    """Build the puzzles of the validation studies."""
    found = {}
    for name, (_, file, build, donors) in VALIDATION.items():
        settings = BuildSettings(split="none", **build)
        cells = built_in(folder / "demo.h5ad") if file is None else data / file
        co.build([cells], folder / name, settings)
        puzzles = co.read_puzzles(folder / name / "all.parquet")
        found[name] = [p for p in puzzles if not donors or p.meta["donor_id"] in donors]
    return found


def hashes(data: Path) -> dict[str, str]:
    """Return what the weights were made from: file -> SHA-256."""
    here = Path(__file__)
    files = {f"benchmarks/{here.name}": here, "recipes/atlas.yaml": RECIPE}
    files |= {f"embedded/{n}": EMBEDDED / n for n in ("atlas.npz", "atlas.json", "symbols.tsv.gz")}
    for source in read_recipe(RECIPE).atlas.sources:
        if source.profiles is not None:
            files[f"DATA/{source.profiles}"] = data / source.profiles
    files |= {f"DATA/{f}": data / f for _, f, _, _ in VALIDATION.values() if f is not None}
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
    sources, sets = Atlas.read().sources, {}
    args.cache.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(read_recipe(RECIPE).atlas.sources):
        if source.profiles is not None:
            for kind, some in of_table(args.data, source, number, args.cache).items():
                sets.setdefault(kind, []).extend(some)
            print(f"{source.name}, without {source.study}", flush=True)
    simulated = joined([one for some in sets.values() for one in some])
    vector, before = fit(simulated), Atlas.read().weights
    # The size of rows decides what `floor` means: without evening, simulated puzzles are
    # calibrated at this temperature.
    plain = [list(scores_of(vector, one).astype(np.float64)) for one in simulated]
    rough = [(s, list(one.gold)) for s, one in zip(plain, simulated, strict=True) if len(s[0]) < 9]
    vector[: 4 * BANDS] *= ROUGH / temperature(rough, 20)
    weights = weights_of(vector, temperature=1.0)
    told: dict[str, Any] = {}
    for (variable, what), some in sorted(sets.items()):
        name = f"simulated{', variable genes' if variable else ''}, half of {what} hidden"
        vectors = (vector_of(before), vector)
        told[name] = [accuracy(*of_cases(v, some)) for v in vectors]
    with tempfile.TemporaryDirectory() as folder:
        puzzles_of = validation_puzzles(args.data, Path(folder))
    real = {}
    for name, puzzles in puzzles_of.items():
        for what in HIDDEN:
            kept = hide(sources, half_of(name, what))
            old, new = (of_puzzles(Atlas(kept, w), puzzles) for w in (before, weights))
            told[f"{name}, half of {what} hidden"] = [accuracy(*old), accuracy(*new)]
            if what == "nothing":
                real[name] = new
    told = {name.replace(", half of nothing hidden", ""): value for name, value in told.items()}
    for name, (old, new) in told.items():
        print(f"{name}: {old[0]:.3f} / {old[1]:.3f} -> {new[0]:.3f} / {new[1]:.3f} (cell / batch)")
    without = {}
    for study in ("", *sorted({study for study, *_ in VALIDATION.values()} | set(NEAR))):
        out = {study, NEAR.get(study)}
        some = [found for name, found in real.items() if VALIDATION[name][0] not in out]
        without[study] = round(temperature(some), 4)
    weights = replace(weights, temperature=without.pop(""))
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
    elif not np.allclose(vector_of(weights), vector_of(before), atol=0.01):
        raise SystemExit("the embedded weights are others than these")


if __name__ == "__main__":
    main()
