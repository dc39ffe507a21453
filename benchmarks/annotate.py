"""Annotation beside its peers: right labels per cell, on blood with a list of 12 types.

Run ``python benchmarks/annotate.py KANG.h5ad PBMC3K.h5ad --panglao PanglaoDB_markers.tsv``, with
Kang et al. 2018 (doi:10.1038/nbt.4042, 2,800-cell extract) and the 2,638 cells of 10x Genomics'
PBMC3k. Compared, on the same Leiden clusters of scanpy (resolution 1) and the same candidates:

- cello1 with `centroids`: clusters together, from batches of their cells;
- `centroids` alone with majority voting over the cluster, as CellTypist does with its model;
- decoupler's ULM with the canonical PanglaoDB markers of these types and of T cells at large, the
  best type of the cluster by its own ranking.

For PBMC3k all learn from Kang's named donors; for Kang each donor in turn is held out whole. Prints
the share of cells with the right label (exact, and by ontology relation), and for Kang intervals
over donors and the calibration error of the confidence. Needs ``pip install decoupler igraph``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

import cello1 as co
from cello1.annotate.candidates import NONE
from cello1.cells.loaded import rank_cells, read_expression
from cello1.puzzles.puzzle import label_key
from cello1.recipes import BuildSettings
from cello1.scoring.calibration import ece, ece_noise
from cello1.scoring.ontology import relation
from cello1.scoring.statistics import clustered_interval
from cello1.solvers.classical.centroids import Centroids
from cello1.terminal.tables import interval

NAIVE_CD4 = "naive thymus-derived CD4-positive, alpha-beta T cell"
MEMORY_CD4, CD8 = "CD4-positive, alpha-beta memory T cell", "CD8-positive, alpha-beta T cell"
# The 12 candidates, and what PanglaoDB calls them; the nine types of PBMC3k are among them.
PANGLAO = {
    NAIVE_CD4: "T cells naive",
    MEMORY_CD4: "T memory cells",
    CD8: "T cytotoxic cells",
    "natural killer cell": "NK cells",
    "B cell": "B cells",
    "plasma cell": "Plasma cells",
    "classical monocyte": "Monocytes",
    "non-classical monocyte": None,
    "conventional dendritic cell": "Dendritic cells",
    "plasmacytoid dendritic cell": "Plasmacytoid dendritic cells",
    "platelet": "Platelets",
    "erythrocyte": "Erythroid-like and erythroid precursor cells",
}
CANDIDATES = list(PANGLAO)
# PanglaoDB has next to no canonical markers of T cell subtypes, but many of T cells.
T_CELLS = {"T cells": "T cell"}
GOOD = ("exact", "ancestor")


def read(path: Path) -> Any:
    """Read cells; Kang's `megakaryocyte` are platelets, its `T cell` (activated) is ambiguous."""
    cells = anndata.read_h5ad(path)
    names = cells.obs["cell_type"].astype(str).replace({"megakaryocyte": "platelet"})
    cells.obs["cell_type"] = names.astype("category")
    cells.obs = cells.obs.drop(columns=["cell_type_ontology_term_id"])
    return cells[(names != "T cell") & (cells.obs["donor_id"] != "unknown")].copy()


def train_on(cells: Any, folder: Path) -> Path:
    """Build puzzles of some donors: a quarter of them for validation."""
    folder.mkdir(parents=True)
    cells.write_h5ad(folder / "cells.h5ad")
    settings = BuildSettings(n_min=5, n_max=10, per_n=60, fractions=(0.75, 0.25, 0.0))
    co.build([folder / "cells.h5ad"], folder / "puzzles", settings)
    return folder / "puzzles"


def majority(cells: Any, clusters: pd.Series, puzzles: Path) -> pd.Series:
    """Label every cell by `centroids` alone, then every cluster by the most frequent label."""
    train = co.read_puzzles(puzzles / "train.parquet")
    model = Centroids(train, co.read_puzzles(puzzles / "validation.parquet"))
    expression = read_expression(cells)
    ranks, _ = rank_cells(expression, np.arange(cells.n_obs), 50, cells.obs_names)
    names = expression.symbols.names
    lists = [tuple(names[r] for r in row if r >= 0) for row in ranks.tolist()]
    offered = [c for c in CANDIDATES if label_key(c) in model.types]
    labels = []
    for at in range(0, len(lists), len(offered)):
        some = lists[at : at + len(offered)]
        puzzle = co.Puzzle("", [*some, some[0]] if len(some) == 1 else some, offered)
        best = model.scores(puzzle).argmax(axis=1)[: len(some)]
        labels += [offered[j] for j in best]
    return _vote(pd.Series(labels, index=cells.obs_names), clusters)


def ulm(cells: Any, clusters: pd.Series, panglao: Path) -> pd.Series:
    """Score cells by decoupler's ULM and give each cluster the type that it ranks first."""
    import decoupler as dc
    import scanpy as sc

    table = pd.read_csv(panglao, sep="\t")
    table = table[table["species"].str.contains("Hs") & (table["canonical marker"] == 1)]
    of = {name: label for label, name in PANGLAO.items() if name is not None} | T_CELLS
    net = table[table["cell type"].isin(of)][["cell type", "official gene symbol"]]
    net = net.set_axis(["source", "target"], axis=1).drop_duplicates()
    data = cells.copy()
    data.var_names = data.var["feature_name"].astype(str)
    data.var_names_make_unique()
    if float(data.X[:50].max()) > 50:  # counts
        sc.pp.normalize_total(data, target_sum=1e4)
        sc.pp.log1p(data)
    dc.mt.ulm(data, net, tmin=3)
    score = dc.pp.get_obsm(data, key="score_ulm")
    score.obs["cluster"] = clusters.astype(str).astype("category")
    ranked = dc.tl.rankby_group(
        score, groupby="cluster", reference="rest", method="t-test_overestim_var"
    )
    ranked = ranked[ranked["stat"] > 0].sort_values("stat", ascending=False, kind="stable")
    first = ranked.groupby("group", observed=True).head(1).set_index("group")["name"].astype(str)
    return clusters.astype(str).map(first).map(of).fillna(NONE)


def relations(labels: pd.Series, truth: pd.Series) -> Counter[str]:
    """Count cells by how the label relates to the truth in the Cell Ontology."""
    pairs = Counter(zip(labels.astype(str), truth.astype(str), strict=True))
    found: Counter[str] = Counter()
    for (label, true), count in pairs.items():
        found[relation(label, true)] += count
    return found


def wider(labels: pd.Series, truth: pd.Series) -> float:
    """Return the share of cells whose label is the true type or any ancestor of it."""
    pairs = Counter(zip(labels.astype(str), truth.astype(str), strict=True))
    good = sum(n for (a, b), n in pairs.items() if relation(a, b, within=99) in GOOD)
    return good / pairs.total()


def compare(cells: Any, puzzles: Path, panglao: Path, run: Path) -> dict[str, Any]:
    """Annotate one data set in three ways; return labels, and cluster confidences of ours."""
    co.tl.annotate(
        cells, leiden=1.0, candidates=CANDIDATES, solver="centroids", puzzles=puzzles, run=run
    )
    clusters, truth = cells.obs["cello1_leiden"], cells.obs["cell_type"].astype(str)
    ways = {
        "cello1, centroids": cells.obs["cello1"].astype(str),
        "centroids alone, majority vote": majority(cells, clusters, puzzles),
        "decoupler ULM, PanglaoDB": ulm(cells, clusters, panglao),
        "best possible for these clusters": _vote(truth, clusters),
    }
    table = co.get.annotation(cells)
    mode = truth.groupby(clusters.astype(str)).agg(lambda t: t.value_counts().index[0])
    right = [bool(table.loc[c, "best"] == mode[c]) for c in table.index]
    return {
        "cells": len(truth),
        "right": {name: float((labels == truth).mean()) for name, labels in ways.items()},
        "wider": {name: wider(labels, truth) for name, labels in ways.items()},
        "relations": {name: dict(relations(labels, truth)) for name, labels in ways.items()},
        "confidence": table["confidence"].tolist(),
        "cluster_right": right,
        "labels": table["label"].tolist(),
        "temperature": json.loads(cells.uns["cello1"]["calibration"])["temperature"],
    }


def _vote(labels: pd.Series, clusters: pd.Series) -> pd.Series:
    most = labels.groupby(clusters.astype(str)).agg(
        lambda x: sorted(Counter(x).items(), key=_rank)[0][0]
    )
    return clusters.astype(str).map(most)


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kang", type=Path)
    parser.add_argument("pbmc3k", type=Path)
    parser.add_argument("--panglao", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="also write the figures of every data set here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kang, found = read(options.kang), {}

    def keep(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        print(name, json.dumps(result), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        puzzles = train_on(kang, work / "all")
        keep("PBMC3k", compare(read(options.pbmc3k), puzzles, options.panglao, work / "pbmc3k"))
        for donor in sorted(kang.obs["donor_id"].astype(str).unique()):
            mine = (kang.obs["donor_id"] == donor).to_numpy()
            puzzles = train_on(kang[~mine].copy(), work / donor)
            keep(donor, compare(kang[mine].copy(), puzzles, options.panglao, work / f"run-{donor}"))
    report(found)


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    donors = [name for name in found if name != "PBMC3k"]
    sizes = [found[d]["cells"] for d in donors]
    for what, title in (("right", "right label"), ("wider", "right label or an ancestor of it")):
        print(f"\nshare of cells with the {title}")
        for name, share in found["PBMC3k"][what].items():
            values = [found[d][what][name] for d in donors]
            spread = clustered_interval(values, donors, weights=sizes)
            print(f"{name:34s} PBMC3k {share:.3f}   Kang {interval(spread)}")
    print("\nrelation of the label to the truth, share of cells")
    for name in found["PBMC3k"]["right"]:
        for where, sets in (("PBMC3k", ["PBMC3k"]), ("Kang", donors)):
            total: Counter[str] = Counter()
            for d in sets:
                total.update(found[d]["relations"][name])
            shares = {k: f"{v / total.total():.3f}" for k, v in sorted(total.items())}
            print(f"{name:34s} {where:7s} {shares}")
    sure = np.concatenate([found[d]["confidence"] for d in donors])
    right = np.concatenate([found[d]["cluster_right"] for d in donors])
    print(
        f"\nKang, {len(sure)} clusters: right {right.mean():.3f}, mean confidence {sure.mean():.3f}"
    )
    print(f"ECE {ece(sure, right):.3f} (flawless confidences: {ece_noise(sure):.3f})")


if __name__ == "__main__":
    main()
