"""Plots of an annotation, in scverse manner: `co.pl.assignment`, `confidence` and `evidence`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cello1.annotate.table import read_uns
from cello1.cells.symbols import SYMBOL_COLUMNS
from cello1.errors import InputError

__all__ = ["assignment", "confidence", "evidence"]
_BLUE, _GREY, _RED = "#2a6f97", "#b8b8b8", "#c1121f"


def assignment(adata: Any, key: str = "cello1", *, ax: Any = None) -> Any:
    """Draw the probability of every candidate for every cluster; the choice is framed.

    Parameters
    ----------
    adata
        Annotated by :func:`cello1.tl.annotate`.
    key
        Its `key_added`.
    ax
        Axes to draw on; by default new ones.

    Returns
    -------
    matplotlib.axes.Axes
        Framed in blue: the label given; in grey: the best candidate where the label is ``unknown``
        or ``none of these``.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    from matplotlib.patches import Rectangle

    found = read_uns(adata, key)
    rows, candidates = found["clusters"], found["candidates"]
    names = [f"{row['cluster']}: {row['label']}" for row in rows]
    if ax is None:
        ax = _axes(2.0 + 0.42 * len(candidates), 2.0 + 0.3 * len(rows))
    image = ax.imshow(found["probabilities"], vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    for k, row in enumerate(rows):
        if "best" in row:
            j, given = candidates.index(row["best"]), row["label"] == row["best"]
            edge = _BLUE if given else _GREY
            ax.add_patch(Rectangle((j - 0.5, k - 0.5), 1, 1, fill=False, edgecolor=edge, lw=2))
    ax.set_xticks(range(len(candidates)), candidates, rotation=60, ha="right")
    ax.set_yticks(range(len(rows)), names)
    ax.set_xlabel("candidate")
    ax.set_ylabel(f"cluster ({found['groupby']}) and its label")
    ax.figure.colorbar(image, ax=ax, label="probability", fraction=0.03)
    return ax


def confidence(adata: Any, key: str = "cello1") -> Any:
    """Draw how sure each label is, and what a higher `min_confidence` would cost and gain.

    Parameters
    ----------
    adata, key
        As for :func:`assignment`.

    Returns
    -------
    matplotlib.figure.Figure
        Left: the confidence of each cluster. Right: accuracy against coverage on the clusters of
        known type that the temperature was fitted on, where there were any.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    from matplotlib.figure import Figure

    found = read_uns(adata, key)
    rows = [row for row in found["clusters"] if "confidence" in row]
    rows.sort(key=lambda row: row["confidence"])
    figure = Figure(figsize=(9.0, 1.4 + 0.3 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    bars = [row["confidence"] for row in rows]
    colours = [_BLUE if row["label"] == row["best"] else _GREY for row in rows]
    left.barh(range(len(rows)), bars, color=colours)
    left.set_yticks(range(len(rows)), [f"{row['cluster']}: {row['label']}" for row in rows])
    least = found["params"]["min_confidence"]
    if least > 0:
        left.axvline(least, color=_RED, lw=1)
    left.set_xlim(0, 1)
    left.set_xlabel("confidence")
    fitted = found["calibration"]
    if fitted["coverage"]:
        level, share, accuracy = np.array(fitted["coverage"]).T
        right.step(share, accuracy, where="post", color=_BLUE)
        for at in (0.5, 0.7, 0.9):
            if (level >= at).any():
                k = int(np.flatnonzero(level >= at)[-1])
                right.annotate(f"≥ {at}", (share[k], accuracy[k]), ha="center", fontsize="small")
        right.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="share of clusters labelled",
                  ylabel="of these right")  # fmt: skip
        right.set_title(fitted["source"], fontsize="small")
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, f"confidence {fitted['source']}", ha="center", wrap=True)
    return figure


def evidence(adata: Any, key: str = "cello1", *, n_genes: int = 3, **options: Any) -> Any:
    """Draw the cited genes of every cluster as scanpy's dot plot.

    Parameters
    ----------
    adata, key
        As for :func:`assignment`.
    n_genes
        Genes per cluster at most; those that are in the lists and best set the cluster apart.
    **options
        Handed to :func:`scanpy.pl.dotplot`.

    Returns
    -------
    scanpy.pl.DotPlot
        Not yet drawn: call `show()`, `savefig()` or `make_figure()`.

    Raises
    ------
    InputError
        When there is no annotation, or no gene was cited that is in the data.
    """
    import scanpy as sc

    found = read_uns(adata, key)
    column = next((c for c in SYMBOL_COLUMNS if c in adata.var), None)
    known = set(adata.var_names if column is None else adata.var[column].astype(str))
    genes: dict[str, list[str]] = {}
    taken: set[str] = set()
    for row in found["clusters"]:
        new = [g for g in row.get("supported", []) if g in known - taken][:n_genes]
        taken.update(new)
        if new:
            genes[row["cluster"]] = new
    if not genes:
        raise InputError("no cited gene is among the genes of adata, so there is nothing to draw")
    settings = {"gene_symbols": column, "standard_scale": "var", "use_raw": False} | options
    groupby = found["groupby"]
    if groupby not in adata.obs:
        raise InputError(f"adata.obs has lost its column {groupby!r}, by which cells were grouped")
    if not hasattr(adata.obs[groupby], "cat"):
        adata = adata.copy()
        adata.obs[groupby] = adata.obs[groupby].astype(str).astype("category")
    return sc.pl.dotplot(adata, genes, groupby, return_fig=True, show=False, **settings)


def _axes(width: float, height: float) -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]
