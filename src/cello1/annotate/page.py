"""A self-contained page for an annotation: embedding, table of clusters, evidence, notes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.annotate import figures
from cello1.annotate.data import Data, flat_embeddings
from cello1.annotate.table import Annotation, opened, read_uns
from cello1.errors import InputError
from cello1.pages.templating import page_of
from cello1.runs import replacing

# More cells than this cannot be told apart in a figure, and only make the page large.
MOST_CELLS = 60_000
_GENES = 3
_STEP_X, _STEP_Y, _DOT = 22, 22, 8.5
_SIZE, _DPI = (6.4, 5.2), 144


def report(adata: Any, path: str | Path | None = None, *, key: str = "cello1") -> str:
    """Make a page of an annotation.

    Parameters
    ----------
    adata
        Annotated by :func:`cello1.tl.annotate`.
    path
        Where to write it; by default it is only returned.
    key
        The `key_added` of the annotation.

    Returns
    -------
    str
        The page, as HTML.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    found = read_uns(adata, key)
    if key not in adata.obs:
        raise InputError(f"adata.obs has lost its column {key!r}")
    names = flat_embeddings({k: np.shape(v) for k, v in adata.obsm.items()})
    basis = next(iter(names), None)
    place = None if basis is None else np.asarray(adata.obsm[basis])[:, :2]
    made = _page(
        "your data", found, pd.Categorical(adata.obs[key]),
        adata.obs[f"{key}_confidence"].to_numpy(dtype=float), basis, place,
    )  # fmt: skip
    if path is not None:
        _write(made, Path(path))
    return made


def write_page(data: Data, annotation: Annotation, path: Path) -> None:
    """Write the page of an annotation of an open data set."""
    columns = annotation.columns()
    basis = next(iter(data.embeddings), None)
    place = None if basis is None else data.embedding(basis)
    made = _page(
        data.name, opened(annotation.uns), columns[annotation.key],
        columns[f"{annotation.key}_confidence"], basis, place,
    )  # fmt: skip
    _write(made, path)


def _write(page: str, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(page, "utf-8")


def _page(
    name: str,
    found: Mapping[str, Any],
    labels: pd.Categorical,
    sure: npt.NDArray[np.float64],
    basis: str | None,
    place: npt.NDArray[Any] | None,
) -> str:
    found = dict(found)
    rows = [found["clusters"][k] for k in figures.order_of(found["clusters"])]
    kinds = [row["level"] for row in rows]
    named = [row for row in rows if row["level"] in ("type", "ancestor")]
    palette = figures.colours([str(c) for c in labels.categories])
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.categories))
    order = np.argsort(-counts, kind="stable")
    key = [
        (str(labels.categories[i]), palette[str(labels.categories[i])], int(counts[i]))
        for i in order if counts[i]
    ]  # fmt: skip
    sampled, pictures = 0, []
    if place is not None and basis is not None:
        step = max(1, -(-len(place) // MOST_CELLS))
        sampled = len(place[::step]) if step > 1 else 0
        some = np.asarray(place[::step], dtype=np.float64)
        pictures = _pictures(some, labels[::step], sure[::step], palette, basis)
    fitted = found["calibration"]
    return page_of(
        "annotation",
        data_name=name,
        version=metadata.version("cello1"),
        made_with=found["cello1_version"],
        rows=rows,
        n_cells=len(labels),
        n_named=len(named),
        n_types=len({row["label"] for row in named}),
        n_wide=kinds.count("ancestor"),
        n_open=len(rows) - len(named),
        notes=found["notes"],
        confidence_note=fitted["source"],
        pictures=pictures,
        basis=basis or "",
        sampled=sampled,
        key=key,
        dots=_dots(found),
        solver=found["solver"],
        values=found["values"],
        groupby=found["groupby"],
        candidates=found["candidates"],
        tissue=found["params"].get("tissue"),
    )


def _pictures(
    place: npt.NDArray[np.float64],
    labels: pd.Categorical,
    sure: npt.NDArray[np.float64],
    palette: dict[str, str],
    basis: str,
) -> list[dict[str, Any]]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    made = []
    for title in ("By label", "By confidence"):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        if title == "By label":
            figures.embedding(axes, place, labels, palette, legend=False)
        else:
            figures.embedding_confidence(axes, place, sure)
        target = BytesIO()
        figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": None})
        scale = [to_hex(colormaps["viridis"](i / 23)) for i in range(24)]
        made.append(
            {
                "title": title,
                "alt": f"{len(place):,} cells in {basis}, coloured {title.lower()}",
                "data": base64.b64encode(target.getvalue()).decode(),
                "width": int(_SIZE[0] * _DPI),
                "height": int(_SIZE[1] * _DPI),
                "scale": scale if title == "By confidence" else [],
            }
        )
    return made


def _dots(found: dict[str, Any]) -> dict[str, Any] | None:
    """Lay out the dot plot, in pixels."""
    genes = figures.evidence_genes(found, _GENES)
    if not genes:
        return None
    rows = found["clusters"]
    names = [figures.row_name(row) for row in rows]
    left = 30 + 7 * min(56, max(len(name) for name in names))
    top = 24 + 7 * max(len(gene) for gene in genes)
    at = {gene: found["dots"]["genes"].index(gene) for gene in genes}
    xs = {gene: left + _STEP_X * i + 10 for i, gene in enumerate(genes)}
    drawn = []
    for i, k in enumerate(figures.order_of(rows)):
        own, share = set(rows[k].get("supported", [])), found["dots"]["shares"][k]
        cells = [
            (xs[g], round(_DOT * float(np.sqrt(share[at[g]])), 1), share[at[g]], g in own, g)
            for g in genes if share[at[g]] >= 0.01
        ]  # fmt: skip
        drawn.append((top + _STEP_Y * i + 12, names[k], cells))
    return {
        "left": left,
        "top": top,
        "width": left + _STEP_X * len(genes) + 60,
        "height": top + _STEP_Y * len(rows) + 14,
        "genes": [(xs[gene], gene) for gene in genes],
        "rows": drawn,
    }
