"""Fit what annotation assumes of evidence, votes and confidence, and show how far it holds.

Run ``python benchmarks/annotate_fit.py ../shared/data`` (``--fit`` also searches). Studies of two
kinds are annotated, none of which `benchmarks/annotate.py` reports on but by name: Baron's
pancreas, two donors of Kang (1039 and 107; whole, and in handfuls of 60 to 250 cells), and clusters
simulated from every table of the atlas that has four types or more. An atlas without the study of
the table annotates those: cells are drawn from its profiles with noise of laboratory, donor and
cell and ambient RNA; types that look alike share a cluster, some cells lie in a wrong one, frequent
types in two. Each is annotated with the types that are there, with 15 more, with one that is
there taken away, and with the usual types of the tissue, as where nobody names any (shown, but not
fitted on).

Constants are chosen on all of them; what choosing is worth is shown by choosing on every second
table with the real studies, and judging the others. The cost is the sum of the shares of cells not
labelled right (exactly, and counting relatives, alike), of clusters of a removed type that are
called a wrong lineage (those with a confidence of at most a half count for a half), and of the
calibration error (ECE). Prints it all, and the ECE that flawless confidences would show. The
constants are `OWN_LEVEL`, `VOTE`, `TIE`, `DOUBT`, `EVEN`, `UNASKED` and `LEAST` of
:mod:`cello1.annotate`, `RELATIVE` of its levels, and temperature and `other` of `FITTED`. All cells
are rated once; a search takes minutes.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from annotate import fate, read
from relations import relation

from cello1.annotate import evidence, levels
from cello1.annotate.clusters import leiden
from cello1.annotate.data import average, open_data
from cello1.annotate.decide import FITTED, LEAST
from cello1.annotate.evidence import (
    Rated,
    combine,
    know,
    listed_by,
    telling,
    tissue_candidates,
)  # fmt: skip
from cello1.annotate.levels import (
    Tree,
    better_elsewhere,
    better_than_chance,
    kinds_of,
    probabilities,
)  # fmt: skip
from cello1.atlas import Atlas
from cello1.atlas.build import Match, read_profiles
from cello1.atlas.genes import is_housekeeping
from cello1.cells.genes import index_symbols
from cello1.cells.rank import rank_chunks
from cello1.puzzles.puzzle import label_key
from cello1.recipes import read_recipe
from cello1.scoring.calibration import ece, ece_noise

RECIPE = Path(__file__).parents[1] / "recipes" / "atlas.yaml"
DONORS, K = ("1039", "107"), 50
SHIPPED = {
    "OWN_LEVEL": evidence.OWN_LEVEL, "VOTE": evidence.VOTE, "TIE": evidence.TIE,
    "DOUBT": evidence.DOUBT, "EVEN": evidence.EVEN, "UNASKED": evidence.UNASKED,
    "RELATIVE": levels.RELATIVE, "temperature": FITTED["atlas"].temperature,
    "other": FITTED["atlas"].other, "least": LEAST,
}  # fmt: skip
TRIED = {
    "temperature": (2.0, 2.5, 3.0, 4.0), "VOTE": (1.5, 2.0, 3.0, 4.0), "TIE": (0.25, 0.5, 1.0),
    "other": (0.05, 0.1, 0.2, 0.3), "UNASKED": (0.0, 1.0, 2.0, 3.0), "EVEN": (0.0, 0.15, 0.3, 0.6),
    "OWN_LEVEL": (0.0, 0.05, 0.1, 0.2), "RELATIVE": (0.0, 0.25, 0.45),
    "DOUBT": (1.0, 4.0, 8.0), "least": (0.1, 0.2, 0.3),
}  # fmt: skip
# A constant is changed only for so much: what was chosen on half of the tables for gains below it
# (.035 together) made the other half worse by .018.
GAIN = 0.02


@dataclass(frozen=True)
class Expert:
    """Who rates: an atlas."""

    atlas: Atlas
    name: str = "atlas"


@dataclass(frozen=True)
class Study:
    """Cells in clusters, of known type.

    Attributes
    ----------
    labels, known
        The L types, and which of them are known, shape (L,).
    ratings
        Ratings of the cells, shape (cells, L).
    codes, truth
        Cluster and type of each cell; the types are the first labels.
    types
        The types that are there.
    usual
        Those that are on offer where nobody names any: the types of the tissue.
    """

    name: str
    labels: list[str]
    known: Any
    ratings: Any
    codes: Any
    truth: Any
    types: list[str]
    usual: list[int]
    simulated: bool


def rated(name: str, expert: Expert, genes: list[str], tissue: str, cells: tuple[Any, Any, Any],
          types: list[str], simulated: bool) -> Study:  # fmt: skip
    """Rate cells (their lists, clusters and types) once for all."""
    known, (lists, codes, truth) = know(expert, types, genes, K), cells
    weights = np.where(known.known, known.weights, 0.0).astype(np.float32)
    ratings = np.asarray(listed_by(lists, known.places) @ weights)
    place = {label_key(label): j for j, label in enumerate(known.labels)}
    wanted = map(label_key, tissue_candidates(expert, [tissue])[0])
    usual = [place[label] for label in wanted if label in place]
    return Study(name, known.labels, known.known, ratings, codes, truth, types, usual,
                 simulated)  # fmt: skip


def real(data: Path) -> Iterator[Study]:
    """Yield the real studies."""
    expert = Expert(Atlas.read())
    blood = [read(data / "cells" / f"kang2018_{part}.h5ad") for part in
             ("ifnb2800", "muscat_1287genes")]  # fmt: skip
    for donor in DONORS:
        whole, many = (c[c.obs["donor_id"] == donor].copy() for c in blood)
        yield annotated(f"Kang {donor}", whole, expert)
        for i, some in enumerate(handfuls(many, int(donor))):
            yield annotated(f"Kang {donor}, handful {i}", some, expert)
    islets = "baron2016_pancreas"
    yield annotated("Baron", anndata.read_h5ad(data / "cells" / f"{islets}350.h5ad"), expert)
    more = anndata.read_h5ad(data / "more_cells" / f"{islets}2812_2000genes.h5ad")
    for donor in ("human2", "human4"):
        own = more[more.obs["donor_id"] == donor].copy()
        for i, some in enumerate([own, *handfuls(own, int(donor[-1]), 2)]):
            yield annotated(f"Baron {donor}, {i}", some, expert)


def handfuls(cells: Any, seed: int, number: int = 6) -> Iterator[Any]:
    """Draw as few cells as small studies have."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        n = min(int(rng.integers(60, 250)), cells.n_obs)
        yield cells[np.sort(rng.choice(cells.n_obs, n, replace=False))].copy()


def annotated(name: str, cells: Any, expert: Expert) -> Study:
    """Cluster and list real cells."""
    kinds = cells.obs["cell_type"].astype(str).to_numpy()
    types = sorted(set(kinds))
    with open_data(cells) as data:
        codes = leiden(data, 1.0, 0, "found", lambda what, share: None).codes
        symbols = index_symbols(telling(data.genes))
        everybody = np.ones(data.n_cells, dtype=bool)
        chunks = rank_chunks(data.chunks(), symbols, everybody, K)
        lists = np.concatenate([chunk.ranks.copy() for chunk in chunks])
    truth = np.array([types.index(kind) for kind in kinds])
    tissue = str(cells.obs["tissue"].iloc[0])
    return rated(name, expert, symbols.names, tissue, (lists, codes, truth), types, False)


def simulated(data: Path, number: int) -> Iterator[Study]:
    """Yield `number` studies of each table, known by an atlas without the study of the table."""
    sources = [s for s in read_recipe(RECIPE).atlas.sources if s.profiles]
    rng, last, expert = np.random.default_rng(0), "", None
    for source in sorted(sources, key=lambda s: s.study):
        columns, genes, means = read_profiles(source, data, Match(source.name, "profiles"))
        told = np.array([not is_housekeeping(gene) for gene in genes])
        shares = means[:, told] / means[:, told].sum(axis=1, keepdims=True)
        names = [gene for gene, is_told in zip(genes, told, strict=True) if is_told]
        tissues: dict[str, dict[str, list[int]]] = {}
        for i, column in enumerate(columns):
            rows = tissues.setdefault(column.tissue, {})
            rows.setdefault(column.label.casefold(), []).append(i)
        tissues = {name: rows for name, rows in tissues.items() if len(rows) >= 4}
        if not tissues:
            continue
        if expert is None or source.study != last:
            expert, last = Expert(Atlas.read(without=[source.study])), source.study
        for _ in range(number):
            tissue = sorted(tissues)[rng.integers(len(tissues))]
            rows = tissues[tissue]
            most = int(rng.integers(3, min(16, len(rows)) + 1))
            types = sorted(np.array(sorted(rows))[rng.permutation(len(rows))[:most]].tolist())
            cells = drawn([shares[rows[t]] for t in types], rng)
            yield rated(source.name, expert, names, tissue, cells, types, simulated=True)


def drawn(profiles: list[Any], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Draw cells of some types; return their lists, clusters and types."""
    n_types, n = len(profiles), int(np.exp(rng.uniform(np.log(60), np.log(500))))
    means = np.array([own.mean(axis=0) for own in profiles])
    alike = np.corrcoef(np.log1p(1e4 * means))
    often = np.exp(rng.normal(0, 1.2, n_types))
    truth = rng.choice(n_types, size=n, p=often / often.sum())
    codes = clustered(truth, alike, rng)
    laboratory = np.exp(rng.normal(0, rng.uniform(0.3, 0.9), means.shape[1]))
    depth, noise = rng.normal(7.3, 0.4), rng.uniform(0.4, 0.8)
    lists = np.full((n, K), -1, dtype=np.int32)
    for cell, kind in enumerate(truth):
        own, ambient = profiles[kind][rng.integers(len(profiles[kind]))], rng.beta(1, 8)
        rate = ((1 - ambient) * own + ambient * means.mean(axis=0)) * laboratory
        at = np.flatnonzero(rate > rate.max() * 1e-5)
        rate = rate[at] * np.exp(rng.normal(0, noise, len(at)))
        counts = rng.poisson(rate / rate.sum() * np.exp(rng.normal(depth, 0.5)))
        order = np.argsort(-(counts + rng.random(len(at)) * 0.5 * (counts > 0)), kind="stable")
        order = order[:K][counts[order[:K]] > 0]
        lists[cell, : len(order)] = at[order]
    return lists, codes, truth


def clustered(truth: Any, alike: Any, rng: np.random.Generator) -> Any:
    """Cluster cells as algorithms do: like types together, some cells astray, a type in two."""
    n_types = len(alike)
    wanted, group = int(rng.integers(max(2, n_types // 2), n_types + 3)), np.arange(n_types)
    pairs = sorted(((alike[i, j], i, j) for i in range(n_types) for j in range(i)), reverse=True)
    for _, i, j in pairs:
        if len(set(group)) > wanted and rng.random() > 0.3:
            group[group == group[i]] = group[j]
    codes = group[truth]
    for cell in np.flatnonzero(rng.random(len(truth)) < rng.uniform(0, 0.15)):
        near = np.exp(8 * alike[truth[cell]])
        near[truth[cell]] = 0
        codes[cell] = group[rng.choice(n_types, p=near / near.sum())]
    if wanted > len(set(group)):
        large = np.flatnonzero(codes == np.bincount(codes).argmax())
        codes[large[rng.random(len(large)) < 0.4]] = n_types
    return np.unique(codes, return_inverse=True)[1]


kin = cache(lambda a, b: relation(a, b, within=99))
became = cache(lambda label, truth, is_sure: fate(label, truth, float(is_sure)))


@dataclass(frozen=True)
class Asked:
    """A study with the candidates that are offered; `gold` is None for clusters not asked about."""

    study: Study
    how: str
    order: list[int]
    offered: int
    gold: list[str | None]
    kinds: Any
    trees: dict[float, Tree] = field(default_factory=dict, repr=False)

    @property
    def labels(self) -> list[str]:
        """The types, candidates first."""
        return [self.study.labels[j] for j in self.order]

    def tree(self, relative: float) -> Tree:
        """Return the types in the ontology, made once for each share of a relative."""
        if relative not in self.trees:
            self.trees[relative] = Tree(self.labels, self.offered)
        return self.trees[relative]


def asked(study: Study, how: str, seed: int) -> Asked | None:
    """Choose the candidates: types that are ``there``, ``more``, one ``removed``, or ``usual``."""
    rng, labels, m = np.random.default_rng(seed), study.labels, len(study.types)
    counts = table(study)
    gold: list[str | None] = [labels[j] for j in counts.argmax(axis=1)]
    offered = list(range(m))
    if how == "more":
        strange = ("other", "same lineage", "not in the ontology")
        free = [j for j in range(m, len(labels))
                if all(kin(labels[j], labels[i]) in strange for i in range(m))]  # fmt: skip
        offered += sorted(rng.choice(free, min(15, len(free)), replace=False).tolist())
    if how == "removed":
        if m < 3:
            return None
        gone = labels[int(rng.choice(np.unique(counts.argmax(axis=1))))]
        offered = [j for j in offered if labels[j] != gone]
        gold = [gone if own == gone else None for own in gold]
    if how == "usual":
        offered = study.usual
    return offer(study, how, offered, gold)


def offer(study: Study, how: str, offered: list[int], gold: list[str | None]) -> Asked:
    """Offer some types of a study."""
    rest = sorted(set(range(len(study.labels))) - set(offered))
    order = [*offered, *rest]
    kinds = kinds_of([study.labels[j] for j in order], len(offered))
    return Asked(study, how, order, len(offered), gold, kinds)


def table(study: Study) -> Any:
    """Count the cells of each cluster and type."""
    found = np.zeros((study.codes.max() + 1, len(study.types)), dtype=int)
    np.add.at(found, (study.codes, study.truth), 1)
    return found


def chances(one: Asked, constants: dict[str, float]) -> tuple[Any, Any]:
    """Return the probabilities of the types, and which clusters fit better than chance."""
    study, sizes = one.study, table(one.study).sum(axis=1)
    cells = np.ascontiguousarray(study.ratings[:, one.order])
    own = np.array([cells[study.codes == k].mean(axis=0) for k in range(len(sizes))])
    ratings = Rated(own, average(own, sizes), cells, study.codes)
    found = combine(ratings, study.known[one.order], one.kinds, one.offered)
    prior = one.tree(constants["RELATIVE"]).prior(constants["other"])
    p = probabilities(found.scores, prior, constants["temperature"])
    return p, better_than_chance(found.pooled, one.offered)


def judge(questions: list[Asked], constants: dict[str, float]) -> dict[str, Any]:
    """Annotate as the package does, with these constants, and say what came of it."""
    for name in constants:
        for module in (evidence, levels):
            if hasattr(module, name):
                setattr(module, name, constants[name])
    sure, right, fates = [], [], Counter[str]()
    shares: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in questions:
        study, counts = one.study, table(one.study)
        p, may = chances(one, constants)
        if one.how == "usual" and (more := sorted(better_elsewhere(p, one.offered))):
            offered = [*one.order[: one.offered], *(one.order[h] for h in more)]
            one = offer(study, "usual", offered, one.gold)
            p, may = chances(one, constants)
        tree = one.tree(constants["RELATIVE"])
        exact = near = 0
        for k, (own, allowed) in enumerate(zip(p, may, strict=True)):
            if (truth := one.gold[k]) is None:
                continue
            level = tree.settle(own, constants["least"], allowed=bool(allowed))
            is_named = level.level in ("type", "ancestor")
            if is_named and one.how != "usual":
                sure.append(level.confidence)
                right.append(kin(level.label, truth) in ("exact", "ancestor"))
            if one.how == "removed":
                fates[became(level.label, truth, level.confidence > 0.5)] += 1
            elif is_named:
                kinds = [kin(level.label, kind) for kind in study.types]
                exact += sum(n for n, kind in zip(counts[k], kinds, strict=True)
                             if kind == "exact")  # fmt: skip
                near += sum(n for n, kind in zip(counts[k], kinds, strict=True)
                            if kind in ("exact", "ancestor", "descendant"))  # fmt: skip
        if one.how != "removed":
            key = (one.how, "simulated" if study.simulated else "real")
            shares.setdefault(key, []).append((exact / counts.sum(), near / counts.sum()))
    means = {key: np.mean(values, axis=0) for key, values in sorted(shares.items())}
    wrong = fates["wrong lineage, sure"] + fates["wrong lineage, unsure"] / 2
    wrong /= max(sum(fates.values()), 1)
    error = ece(np.array(sure), np.array(right))
    lost = sum(1 - np.mean([v for (how, _), v in means.items() if how == h])
               for h in ("there", "more"))  # fmt: skip
    return {
        "cost": float(lost + wrong + error), "clusters": len(sure), "ece": error,
        "flawless": ece_noise(np.array(sure)), "sure": np.mean(sure), "right": np.mean(right),
        "shares": means, "fates": dict(sorted(fates.items())),
    }  # fmt: skip


def show(title: str, found: dict[str, Any]) -> None:
    """Print one line for each figure."""
    print(f"{title}: cost {found['cost']:.4f}; {found['clusters']} labels, right (or an ancestor) "
          f"{found['right']:.3f}, mean confidence {found['sure']:.3f}, ECE {found['ece']:.3f} "
          f"(flawless {found['flawless']:.3f})")  # fmt: skip
    for (how, kind), (exact, near) in found["shares"].items():
        print(f"    {kind}, types {how}: {exact:.3f} exactly, {near:.3f} counting relatives")
    print(f"    types removed: {found['fates']}", flush=True)


def questions(studies: list[Study]) -> tuple[list[Asked], list[Asked]]:
    """Return the questions to choose constants on, and those about tables held out."""
    tables = sorted({s.name for s in studies if s.simulated})
    learned: list[Asked] = []
    held: list[Asked] = []
    for i, study in enumerate(studies):
        for how in ("there", "more", "usual", "removed"):
            if (one := asked(study, how, i)) is None:
                continue
            is_held = study.simulated and tables.index(study.name) % 2
            (held if is_held else learned).append(one)
    return learned, held


def search(learned: list[Asked], constants: dict[str, float]) -> dict[str, float]:
    """Try other values of the constants, one by one, until none is better."""
    learned = [one for one in learned if one.how != "usual"]
    best, before = judge(learned, constants)["cost"], None
    while before != constants:
        before = dict(constants)
        for name, values in TRIED.items():
            for value in values:
                if value == constants[name]:
                    continue
                cost = judge(learned, constants | {name: value})["cost"]
                print(f"{name} {value}: {cost:.4f}", flush=True)
                if cost < best - GAIN:
                    best, constants = cost, constants | {name: value}
    return constants


def main() -> None:
    """Simulate, judge, and search where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with cells, profiles and markers")
    parser.add_argument("--fit", action="store_true", help="search the constants one by one")
    parser.add_argument("--number", type=int, default=4, help="simulated studies per table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    studies = [*real(options.data), *simulated(options.data, options.number)]
    print(f"{len(studies)} studies, {sum(s.simulated for s in studies)} of them simulated")
    learned, held = questions(studies)
    everything = [*learned, *held]
    print("shipped", SHIPPED)
    show("all studies", judge(everything, dict(SHIPPED)))
    if options.fit:
        constants = search(everything, dict(SHIPPED))
        print("fitted", constants)
        show("all studies", judge(everything, constants))
        print("what the choice is worth: chosen on half of the tables and the real studies")
        constants = search(learned, dict(SHIPPED))
        print("fitted", constants)
        show("chosen on", judge(learned, constants))
        show("other half", judge(held, constants))


if __name__ == "__main__":
    main()
