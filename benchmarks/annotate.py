"""Annotation beside its peers, on the same clusters and with the same candidates.

Run ``python benchmarks/annotate.py ../shared/data --json annotate.json``. The data sets: Kang et
al. 2018 donor by donor and PBMC3k (blood), Puram et al. 2017 (a tumour), Baron et al. 2016
(pancreas), and a culture of cortex of which four types are in no table. Clusters are scanpy's
Leiden at resolution 1; candidates are the types that are there. Compared:

- cello1 by default: the atlas, without the study that is tested where it is one of its sources;
- cello1 with the table of markers;
- decoupler's ULM with the canonical PanglaoDB markers of the candidates, ranked over clusters;
- logistic regression on single cells of blood (Kang and PBMC3k, the one tested left out), the
  majority of each cluster;
- CellTypist with a model of its own trained on the same cells, and its majority vote;
- SingleR with mean profiles of another study as its reference, the majority of each cluster;
- the best label per cluster: what no method can exceed.

Prints the share of cells with exactly the right label, and with the right label or a relative (an
ancestor or descendant); then the same with 15 candidates more than are there; what becomes of a
cluster when its type is not on offer; and how far the confidence holds. For that, and to see what
clustering changes, all sets are clustered at four resolutions, and each study counts alike in the
calibration error (ECE). Beside it stands what flawless confidences would show on the same clusters,
by simulation: clusters that share cells are then right or wrong together. Last, five cells of every
set become clusters of their own, one by one. Nothing here is used to choose or fit anything; Baron
and two donors of Kang, on which the constants were fitted, are left out of one of the two
calibration errors. Peers that are not installed are passed over (``pip install decoupler
singler celltypist igraph``).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from relations import relation
from scipy.stats import norm

import cello1 as co
from cello1.annotate.candidates import NONE, UNKNOWN
from cello1.annotate.data import open_data
from cello1.annotate.evidence import telling
from cello1.annotate.levels import broad_type
from cello1.atlas.markers import term_of_name
from cello1.recipes import AnnotateSolveSettings
from cello1.scoring.calibration import BINS, inner_edges
from cello1.scoring.ontology import ancestors, lineage, term_id
from cello1.scoring.statistics import clustered_interval
from cello1.terminal.tables import interval

# Data set -> file, studies of the atlas to leave out, a table of another study for SingleR.
SETS = {
    "PBMC3k": ("cells/pbmc3k_lognorm.h5ad", (), "COVID-Infected_PBMCs_COVID19_cellAtlas"),
    "HNSCC": ("cells/puram2017_hnscc180.h5ad", (), "Melanoma_Tirosh"),
    "pancreas": ("cells/baron2016_pancreas350.h5ad", (), "Adult_Pancreas_HCA"),
    "cortex": ("cells/cxg_cortex_culture4474_hvg2000.h5ad", (), "Brain_AIBS_MTG"),
}
KANG = "cells/kang2018_ifnb2800.h5ad"
BEST = "best label per cluster"
RESOLUTIONS, MOVED, DRAWS = (0.5, 1.0, 2.0, 3.0), 5, 1_000
# Constants were fitted on these (`annotate_fit.py`).
FITTED_ON = ("pancreas", "Kang 1039", "Kang 107")
# 15 types that are in none of the sets they are added to are drawn from these, in this order.
OTHERS = (
    "hepatocyte", "melanocyte", "keratinocyte", "cardiac muscle cell", "podocyte",
    "pulmonary alveolar type 2 cell", "ciliated epithelial cell", "enterocyte", "Schwann cell",
    "astrocyte", "Sertoli cell", "adipocyte", "skeletal muscle cell", "goblet cell",
    "retinal rod cell", "type B pancreatic cell", "oligodendrocyte", "mesothelial cell",
)  # fmt: skip


def read(path: Path) -> Any:
    """Read cells; Kang's `megakaryocyte` are platelets, its `T cell` (activated) is ambiguous."""
    cells = anndata.read_h5ad(path)
    names = cells.obs["cell_type"].astype(str)
    if "kang" in path.name:
        names = names.replace({"megakaryocyte": "platelet"})
        keep = (names != "T cell") & (cells.obs["donor_id"] != "unknown")
        cells, names = cells[keep].copy(), names[keep]
    cells.obs["cell_type"] = names.astype("category")
    return cells


def data_sets(data: Path) -> Iterator[tuple[str, Any, tuple[str, ...], str]]:
    """Yield name, cells, studies to leave out and the table for SingleR of every set."""
    for name, (file, without, table) in SETS.items():
        yield name, read(data / file), without, table
    kang = read(data / KANG)
    for donor in sorted(kang.obs["donor_id"].astype(str).unique()):
        mine = kang[kang.obs["donor_id"] == donor].copy()
        yield f"Kang {donor}", mine, (), SETS["PBMC3k"][2]


def cello1(
    cells: Any, candidates: list[str], without: tuple[str, ...], solver: str = "atlas"
) -> pd.DataFrame:
    """Annotate by default; return the table of the clusters."""
    settings = AnnotateSolveSettings(solver=solver, without=without if solver == "atlas" else ())
    co.tl.annotate(cells, groupby="cluster", candidates=candidates, solver=settings)
    return co.get.annotation(cells)


def normalised(cells: Any) -> Any:
    """Return log-normalised values, named by current symbols."""
    copy = cells.copy()
    with open_data(cells) as data:
        copy.var_names = pd.Index(
            [name or f"none {i}" for i, name in enumerate(telling(data.genes))]
        )
        counts = data.values == "counts"
    copy.var_names_make_unique()
    if counts:
        sc.pp.normalize_total(copy, target_sum=1e4)
        sc.pp.log1p(copy)
    return copy


def ulm(cells: Any, candidates: list[str], panglao: Path) -> pd.Series:
    """Score cells by decoupler's ULM; each cluster has the type that it ranks first."""
    import decoupler as dc

    table = pd.read_csv(panglao, sep="\t")
    table = table[table["species"].str.contains("Hs") & (table["canonical marker"] == 1)]
    terms = {kind: term_of_name(kind) for kind in table["cell type"].unique()}
    net = []
    for label in candidates:
        term = term_id(label)
        own = [k for k, t in terms.items() if t == term]
        over = sorted(
            (k for k, t in terms.items() if t in ancestors(term or "")),
            key=lambda k: -len(ancestors(terms[k] or "")),
        )
        for kind in own or over[:1]:
            genes = table.loc[table["cell type"] == kind, "official gene symbol"]
            net += [{"source": label, "target": gene} for gene in genes.unique()]
    links = pd.DataFrame(net).drop_duplicates()
    score = normalised(cells)
    dc.mt.ulm(score, links, tmin=3)
    rated = dc.pp.get_obsm(score, key="score_ulm")
    rated.obs["cluster"] = cells.obs["cluster"].astype(str).astype("category")
    if rated.obs["cluster"].nunique() < 2:
        return cells.obs["cluster"].astype(str).map(lambda c: NONE)
    ranked = dc.tl.rankby_group(
        rated, groupby="cluster", reference="rest", method="t-test_overestim_var"
    )
    ranked = ranked[ranked["stat"] > 0].sort_values("stat", ascending=False, kind="stable")
    first = ranked.groupby("group", observed=True).head(1).set_index("group")["name"].astype(str)
    return cells.obs["cluster"].astype(str).map(first).fillna(NONE)


@cache
def blood_cells(data: Path, without: str) -> Any:
    """Return the variable genes of blood, without one of the two sets."""
    parts = [normalised(read(data / KANG))] if without != "Kang" else []
    parts += [normalised(read(data / SETS["PBMC3k"][0]))] if without != "PBMC3k" else []
    joined = anndata.concat(parts, join="inner")
    sc.pp.highly_variable_genes(joined, n_top_genes=3_000)
    return joined[:, joined.var["highly_variable"]].copy()


@cache
def typist_model(data: Path, without: str) -> Any:
    """Train CellTypist on blood, without one of the two sets."""
    import celltypist

    cells = blood_cells(data, without)
    # Its other way of training needs an older scikit-learn.
    return celltypist.train(
        cells, labels="cell_type", check_expression=False, use_SGD=True, random_state=0
    )


def typist(cells: Any, candidates: list[str], data: Path, name: str) -> pd.Series:
    """Label clusters by CellTypist's majority vote; types that are not on offer are none."""
    import celltypist

    model = typist_model(data, name.split()[0])
    clusters = cells.obs["cluster"].astype(str)
    values = normalised(cells)
    if not set(model.features) & set(values.var_names):
        return clusters.map(lambda c: NONE)
    # It takes nothing but ln(1 + 10,000 x share); the tumour has log2, and of cortex few genes.
    values.X = np.expm1(values.X)
    values.uns.pop("log1p", None)
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    found = celltypist.annotate(
        values, model=model, majority_voting=True, over_clustering=clusters.to_numpy(), min_prop=0
    )
    labels = found.predicted_labels["majority_voting"].astype(str)
    return labels.where(labels.isin(candidates), NONE)


@cache
def blood_model(data: Path, without: str) -> tuple[Any, list[str]]:
    """Fit logistic regression on blood, without one of the two sets."""
    from sklearn.linear_model import LogisticRegression

    joined = blood_cells(data, without)
    model = LogisticRegression(C=0.1, max_iter=300)
    model.fit(joined.X, joined.obs["cell_type"].astype(str))
    return model, list(joined.var_names)


def regression(cells: Any, candidates: list[str], data: Path, name: str) -> pd.Series:
    """Label every cell by logistic regression, then every cluster by the majority."""
    model, genes = blood_model(data, name.split()[0])
    values = normalised(cells)
    place = {gene: i for i, gene in enumerate(values.var_names)}
    dense = np.zeros((cells.n_obs, len(genes)), dtype=np.float32)
    at = [i for i, gene in enumerate(genes) if gene in place]
    own = values.X[:, [place[genes[i]] for i in at]]
    dense[:, at] = own.toarray() if hasattr(own, "toarray") else own
    chances = model.predict_proba(dense)
    offered = [j for j, kind in enumerate(model.classes_) if kind in candidates]
    if not offered:
        return cells.obs["cluster"].astype(str).map(lambda c: NONE)
    best = np.array(model.classes_)[offered][chances[:, offered].argmax(axis=1)]
    return majority(pd.Series(best, index=cells.obs_names), cells.obs["cluster"])


def singler(cells: Any, candidates: list[str], profiles: Path, table: str) -> pd.Series:
    """Label every cell by SingleR with profiles of another study, then clusters by majority."""
    import singler as sr

    curated = pd.read_csv(profiles / "cell_types.csv")
    curated = curated[(curated["profile"] == table) & curated["keep"]]
    frame = pd.read_parquet(profiles / f"{table}.parquet").set_index("gene")
    frame = frame[~frame.index.duplicated()].fillna(0.0)
    values = normalised(cells)
    names = [str(label) for label in curated["cell_type"]]
    found = sr.annotate_single(
        test_data=values.X.T.tocsr() if hasattr(values.X, "tocsr") else values.X.T,
        test_features=list(values.var_names),
        ref_data=np.log1p(frame[curated["column"]].to_numpy(dtype=float)),
        ref_features=list(frame.index),
        ref_labels=names,
    )
    # Its types are those of the reference; a relative on offer is taken for them.
    to = {kind: nearest(kind, candidates) for kind in set(names)}
    labels = pd.Series([to[kind] for kind in found.column("best")], index=cells.obs_names)
    return majority(labels, cells.obs["cluster"])


def nearest(kind: str, candidates: list[str]) -> str:
    """Return the candidate that a type is, or that stands above it or below it, nearest first."""
    order = ("exact", "descendant", "ancestor")
    found = [(order.index(r), c) for c in candidates
             if (r := relation(kind, c, within=9)) in order]  # fmt: skip
    return min(found)[1] if found else NONE


def majority(labels: pd.Series, clusters: pd.Series) -> pd.Series:
    """Give every cluster the most frequent label of its cells."""
    most = labels.groupby(clusters.astype(str)).agg(lambda x: x.value_counts().index[0])
    return clusters.astype(str).map(most)


def shares(labels: pd.Series, truth: pd.Series) -> tuple[float, float]:
    """Return the shares of cells labelled exactly, and exactly or by a relative."""
    pairs = pd.DataFrame({"label": labels.astype(str), "truth": truth.astype(str)}).value_counts()
    kinds = {pair: relation(*pair, within=99) for pair in pairs.index}
    exact = sum(n for pair, n in pairs.items() if kinds[pair] == "exact")
    near = sum(n for pair, n in pairs.items() if kinds[pair] in ("ancestor", "descendant"))
    return exact / pairs.sum(), (exact + near) / pairs.sum()


def methods(
    name: str, cells: Any, without: tuple[str, ...], table: str, data: Path
) -> dict[str, Callable[[list[str]], pd.Series]]:
    """Return every method that can run here: candidates -> label of every cell."""
    clusters = cells.obs["cluster"].astype(str)

    def by(solver: str) -> Callable[[list[str]], pd.Series]:
        return lambda offered: clusters.map(cello1(cells, offered, without, solver)["label"])

    found: dict[str, Callable[[list[str]], pd.Series]] = {
        "cello1": by("atlas"), "cello1, markers": by("markers"),
    }  # fmt: skip
    if find_spec("decoupler"):
        found["decoupler ULM"] = lambda offered: ulm(
            cells, offered, data / "markers" / "PanglaoDB_markers.tsv"
        )
    found["logistic regression"] = lambda offered: regression(cells, offered, data, name)
    if find_spec("celltypist"):
        found["CellTypist"] = lambda offered: typist(cells, offered, data, name)
    if find_spec("singler"):
        found["SingleR"] = lambda offered: singler(cells, offered, data / "profiles", table)
    return found


def compare(
    name: str,
    cells: Any,
    without: tuple[str, ...],
    table: str,
    data: Path,
    wanted: list[str] | None = None,
) -> dict[str, Any]:
    """Run everything on one data set."""
    co.tl.annotate(cells, leiden=1.0, candidates=["B cell", "T cell"], solver="markers",
                   key_added="first")  # fmt: skip
    cells.obs["cluster"] = cells.obs["first_leiden"]
    truth = cells.obs["cell_type"].astype(str)
    types = sorted(truth.unique())
    more = [x for x in OTHERS if all(relation(x, t, within=99) in ("other", "same lineage",
            "not in the ontology") for t in types)][:15]  # fmt: skip
    found: dict[str, Any] = {"cells": len(truth), "right": {}, "more": {}}
    for way, label in methods(name, cells, without, table, data).items():
        if wanted and way not in wanted:
            continue
        found["right"][way] = shares(label(types), truth)
        found["more"][way] = shares(label([*types, *more]), truth)
    best = majority(truth, cells.obs["cluster"])
    found["right"][BEST] = found["more"][BEST] = shares(best, truth)
    mode = truth.groupby(cells.obs["cluster"].astype(str)).agg(lambda t: t.value_counts().index[0])
    found["removed"] = removed(cells, types, mode, without)
    found["moved"] = moved(cells, types, without)
    found["finer"] = finer(cells, types, without)
    return found


def finer(cells: Any, types: list[str], without: tuple[str, ...]) -> dict[str, Any]:
    """Annotate clusters of several resolutions; of each, say how sure and whether right."""
    truth, first, found = cells.obs["cell_type"].astype(str), cells.obs["cluster"], {}
    for resolution in RESOLUTIONS:
        co.tl.annotate(cells, leiden=resolution, candidates=types, solver="markers",
                       key_added="finer")  # fmt: skip
        own = cells.copy()
        own.obs["cluster"] = own.obs["finer_leiden"].astype(str)
        rows, kinds = cello1(own, types, without), truth.groupby(own.obs["cluster"])
        mode = kinds.agg(lambda t: t.value_counts().index[0])
        shared = pd.crosstab(own.obs["cluster"], first)
        found[str(resolution)] = {
            "right": shares(own.obs["cluster"].map(rows["label"]), truth),
            BEST: shares(majority(truth, own.obs["cluster"]), truth),
            "clusters": [
                {
                    "sure": row["confidence"],
                    "right": relation(row["label"], mode[c], within=99) in ("exact", "ancestor"),
                    "named": row["level"] in ("type", "ancestor"),
                    "cells": shared.loc[c].tolist(),
                }
                for c, row in rows.iterrows()
            ],
        }
    return found


def moved(cells: Any, types: list[str], without: tuple[str, ...]) -> list[float]:
    """Make a cell a cluster of its own; return the share of the other cells that change labels."""
    clusters, changed = cells.obs["cluster"].astype(str), []
    before = clusters.map(cello1(cells, types, without)["label"])
    for at in np.linspace(0, cells.n_obs - 1, MOVED).astype(int):
        own, alone = cells.copy(), clusters.copy()
        alone.iloc[at] = "alone"
        own.obs["cluster"] = alone
        after = alone.map(cello1(own, types, without)["label"])
        changed.append(float((before != after).drop(cells.obs_names[at]).mean()))
    return changed


def removed(
    cells: Any, types: list[str], mode: pd.Series, without: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Take every type that is there off the list, and see what its clusters become."""
    fates = []
    for kind in sorted(set(mode)):
        rest = [label for label in types if label != kind]
        if len(rest) < 2:
            continue
        rows = cello1(cells, rest, without)
        for cluster in mode.index[mode == kind]:
            row = rows.loc[cluster]
            fates.append(
                {"type": kind, "label": row["label"], "sure": row["confidence"],
                 "fate": fate(row["label"], kind, row["confidence"])}
            )  # fmt: skip
    return fates


def fate(label: str, truth: str, sure: float) -> str:
    """Say what a cluster whose type is not on offer has become."""
    if label in (NONE, UNKNOWN):
        return "open"
    kin = relation(label, truth, within=99)
    a, b = (lineage(term_id(x) or "") for x in (label, truth))
    same = broad_type(label) == broad_type(truth) or (a is not None and a == b)
    if kin in ("ancestor", "descendant") or same:
        return "relative"
    return "wrong lineage, sure" if sure > 0.5 else "wrong lineage, unsure"


def report(found: dict[str, dict[str, Any]]) -> None:
    """Print the tables."""
    donors = [name for name in found if name.startswith("Kang")]
    groups = [*[name for name in found if name not in donors], *(["Kang"] if donors else [])]
    for part, title in (("right", "true types"), ("more", "and 15 types that are not there")):
        for at, what in ((0, "exactly"), (1, "counting relatives")):
            print(f"\nshare of cells labelled {what}; candidates: {title}")
            print(f"{'':26s}" + "".join(f"{g:>20s}" for g in groups) + f"{'mean':>9s}")
            for way in found[next(iter(found))][part]:
                values, shown = [], []
                for group in groups:
                    if group == "Kang":
                        each = [found[d][part][way][at] for d in donors]
                        sizes = [found[d]["cells"] for d in donors]
                        spread = clustered_interval(each, donors, weights=sizes)
                        values.append(spread.estimate)
                        shown.append(interval(spread))
                    else:
                        values.append(found[group][part][way][at])
                        shown.append(f"{values[-1]:.3f}")
                line = "".join(f"{text:>20s}" for text in shown)
                print(f"{way:26s}{line}{np.mean(values):9.3f}")
    calibration(found)
    print("\nshare of cells labelled exactly, of that by the best label per cluster, by resolution")
    for name, one in found.items():
        line = [f"{n}: {r['right'][0]:.3f} of {r[BEST][0]:.3f}" for n, r in one["finer"].items()]
        print(f"{name:12s} {', '.join(line)}")
    means = {name: f"{np.mean(one['moved']):.4f}" for name, one in found.items()}
    print(f"other cells whose label changes when one cell is a cluster of its own: {means}")
    print("\nclusters whose type is not on offer")
    for name, one in found.items():
        fates = pd.Series([f["fate"] for f in one["removed"]], dtype=str).value_counts()
        print(f"{name:12s} {fates.to_dict()}")
        for f in one["removed"]:
            if f["fate"] == "wrong lineage, sure":
                print(f"    {f['type']} -> {f['label']} ({f['sure']:.2f})")


def calibration(found: dict[str, dict[str, Any]]) -> None:
    """Print the calibration error, and that of flawless confidences on the same clusters."""
    unseen = [name for name in found if name not in FITTED_ON]
    print("\nECE (flawless confidences: mean, 95 % quantile)")
    for title, names in (("all", list(found)), ("nothing fitted on them", unseen)):
        for some in (["1.0"], [str(r) for r in RESOLUTIONS]):
            rows, weights, loads = [], [], []
            studies = Counter(name.split()[0] for name in names)
            for name in names:
                wide = len(found[name]["finer"]["1.0"]["clusters"])
                for resolution in some:
                    own = [r for r in found[name]["finer"][resolution]["clusters"] if r["named"]]
                    rows += own
                    # Studies, donors of a study, and resolutions count alike.
                    weights += [1 / studies[name.split()[0]] / len(own)] * len(own)
                    loads += [(name, wide, r["cells"]) for r in own]
            if not rows:
                continue
            sure, right = (np.array([r[k] for r in rows], dtype=float) for k in ("sure", "right"))
            print(f"{title}, resolution {', '.join(some)}: {len(rows)} labelled clusters")
            alike = np.ones(len(rows))
            for how, weight in (("clusters", alike), ("studies", np.array(weights))):
                drawn = [gap(sure, y, weight) for y in outcomes(sure, loads)]
                print(
                    f"    {how} count alike: right (or an ancestor) "
                    f"{np.average(right, weights=weight):.3f}, mean confidence "
                    f"{np.average(sure, weights=weight):.3f}, ECE {gap(sure, right, weight):.3f} "
                    f"({np.mean(drawn):.3f}, {np.quantile(drawn, 0.95):.3f})"
                )


def gap(sure: Any, right: Any, weight: Any) -> float:
    """Return the calibration error of weighted answers."""
    of = np.searchsorted(inner_edges(sure, BINS), sure)
    return float(np.abs(np.bincount(of, weight * (sure - right))).sum() / weight.sum())


def outcomes(sure: Any, loads: list[tuple[str, int, list[int]]]) -> Iterator[Any]:
    """Draw what is right if confidences are flawless; clusters that share cells are alike.

    A normal number stands for every set and cluster of resolution 1; that of any other cluster is
    their mean, weighted by shared cells. A label is right where it is below the confidence.
    """
    sets = {name: wide for name, wide, _ in loads}
    start = dict(zip(sets, np.cumsum([0, *sets.values()])[:-1], strict=True))
    load = np.zeros((len(loads), sum(sets.values())))
    for row, (name, wide, cells) in enumerate(loads):
        load[row, start[name] : start[name] + wide] = cells
    load /= np.linalg.norm(load, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield (norm.cdf(load @ rng.standard_normal(load.shape[1])) < sure).astype(float)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with cells, profiles and markers")
    parser.add_argument("--only", action="append", help="these data sets alone")
    parser.add_argument("--method", action="append", help="these methods alone")
    parser.add_argument("--json", type=Path, help="also write the figures of every data set here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, Any]] = {}
    for name, cells, without, table in data_sets(options.data):
        if options.only and not any(name.startswith(wanted) for wanted in options.only):
            continue
        found[name] = compare(name, cells, without, table, options.data, options.method)
        print(name, {k: f"{v[0]:.3f}" for k, v in found[name]["right"].items()}, flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
    report(found)


if __name__ == "__main__":
    main()
