"""Plots of an annotation, in scverse manner.

`co.pl.assignment`, `confidence`, `evidence` and `embedding`: each returns matplotlib Axes, draws on
`ax` if given, and shows itself with ``show=True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cello1.annotate import figures
from cello1.annotate.table import read_uns
from cello1.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["assignment", "confidence", "embedding", "evidence"]


def assignment(
    adata: Any, key: str = "cello1", *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw the probability of every candidate for every cluster; the best is framed.

    Parameters
    ----------
    adata
        Annotated by :func:`cello1.tl.annotate`.
    key
        Its `key_added`.
    ax
        Axes to draw on; by default new ones, as large as all names need.
    show
        Show the figure now.

    Returns
    -------
    matplotlib.axes.Axes
        Framed in blue: the label given; in grey: the best candidate where the label is a wider
        type, ``unknown`` or ``none of these``. Candidates that are improbable everywhere are left
        out, and their number is said.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    found = read_uns(adata, key)
    ax = ax or _axes(figures.assignment_space(found))
    image = figures.assignment(ax, found)
    # Of a fixed height, so that it is no taller beside eighty clusters than beside twelve.
    bar = ax.inset_axes((1.02, 0.0, 0.02, 1.0))
    ax.figure.colorbar(image, cax=bar, label="probability")
    return _shown(ax, show)


def confidence(
    adata: Any, key: str = "cello1", *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw how probable the label of each cluster is.

    Parameters
    ----------
    adata, key, ax, show
        As for :func:`assignment`.

    Returns
    -------
    matplotlib.axes.Axes
        Dark: a candidate; light: a wider type; grey: ``unknown`` or ``none of these``. The red
        line is the least probability of a label.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    found = read_uns(adata, key)
    ax = ax or _axes(figures.confidence_space(found))
    figures.confidence(ax, found)
    return _shown(ax, show)


def evidence(
    adata: Any,
    key: str = "cello1",
    *,
    n_genes: int = 3,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw the genes that decided as a dot plot: which share of each cluster expresses them.

    Parameters
    ----------
    adata, key, ax, show
        As for :func:`assignment`.
    n_genes
        Genes per cluster at most.

    Returns
    -------
    matplotlib.axes.Axes
        A frame around a dot: the gene speaks for the label of that cluster.

    Raises
    ------
    InputError
        When there is no annotation, or no gene speaks for any label.
    """
    found = read_uns(adata, key)
    genes = figures.evidence_genes(found, n_genes)
    if not genes:
        raise InputError("no gene speaks for any label, so there is nothing to draw")
    ax = ax or _axes(figures.evidence_space(found, genes))
    figures.evidence(ax, found, genes)
    return _shown(ax, show)


def embedding(
    adata: Any,
    key: str = "cello1",
    *,
    basis: str | None = None,
    color: Literal["label", "confidence", "coarse", "fine"] = "label",
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw the cells in an embedding, coloured by label or by confidence.

    Parameters
    ----------
    adata, key, ax, show
        As for :func:`assignment`.
    basis
        An embedding in ``adata.obsm``, such as ``X_umap``; by default UMAP, t-SNE or what else
        has two dimensions.
    color
        ``label``, its broad type (``coarse``), the best candidate (``fine``), or ``confidence``.

    Raises
    ------
    InputError
        When there is no annotation, or no such embedding.
    """
    from cello1.annotate.data import flat_embeddings

    read_uns(adata, key)
    names = flat_embeddings({k: np.shape(v) for k, v in adata.obsm.items()})
    if basis is not None and basis not in adata.obsm and f"X_{basis}" in adata.obsm:
        basis = f"X_{basis}"
    basis = basis or next(iter(names), None)
    if basis is None or basis not in adata.obsm:
        raise InputError(
            f"adata.obsm has no embedding {basis or 'of two dimensions'} (it has "
            f"{', '.join(adata.obsm) or 'nothing'}); compute one, such as scanpy.tl.umap"
        )
    place = np.asarray(adata.obsm[basis])[:, :2]
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(9.5, 5.5), layout="constrained")[1]
    if color == "confidence":
        sure = adata.obs[f"{key}_confidence"].to_numpy(dtype=float)
        dots = figures.embedding_confidence(ax, place, sure)
        ax.figure.colorbar(dots, ax=ax, label="probability of the label", shrink=0.6)
    else:
        column = key if color == "label" else f"{key}_{color}"
        labels = pd.Categorical(adata.obs[column])
        palette = figures.colours([str(c) for c in labels.categories])
        figures.embedding(ax, place, labels, palette)
    ax.set_title(f"{key} {color}" if color != "label" else key, loc="left", fontsize=10)
    return _shown(ax, show)


def _axes(space: figures.Drawn) -> Axes:
    import matplotlib.pyplot as plt

    return space.place(plt.figure(figsize=space.size))


def _shown(ax: Axes, show: bool) -> Axes:
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return ax
