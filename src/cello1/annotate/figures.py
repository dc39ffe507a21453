"""The figures of an annotation, drawn into Axes: for `co.pl` and for the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cello1.annotate.candidates import NONE, UNKNOWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREY, RED, INK = "#2a6f97", "#b8b8b8", "#c1121f", "#23262b"
# A candidate that no cluster has with this probability is not drawn.
_SEEN = 0.05
_WRAP = 30
# Inches: a row or column of a figure, a letter, and the margins.
ROW, COLUMN, LETTER = 0.27, 0.27, 0.072
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """The space that a figure needs, in inches."""

    width: float
    height: float
    left: float
    bottom: float
    top: float = 0.35
    right: float = 1.1

    @property
    def size(self) -> tuple[float, float]:
        """Size of the figure, width and height."""
        return self.left + self.width + self.right, self.bottom + self.height + self.top

    def place(self, figure: Any) -> Axes:
        """Return Axes of exactly this size in a figure of :attr:`size`."""
        w, h = self.size
        axes: Axes = figure.add_axes(
            (self.left / w, self.bottom / h, self.width / w, self.height / h)
        )
        return axes


def wrapped(name: str, width: int = _WRAP) -> str:
    """Break a long name into lines."""
    return "\n".join(textwrap.wrap(name, width, break_long_words=True, max_lines=2)) or name


def row_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Name clusters with their labels; a cluster named like its label only once."""
    return [wrapped(row_name(row), _WRAP + 6) for row in rows]


def row_name(row: dict[str, Any]) -> str:
    """Name a cluster with its label."""
    cluster, label = str(row["cluster"]), str(row["label"])
    return label if cluster == label else f"{cluster}: {label}"


def order_of(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Return the clusters sorted so that those of one broad type and label are adjacent."""
    last = {NONE: 1, UNKNOWN: 2}
    return sorted(
        range(len(rows)),
        key=lambda k: (
            last.get(rows[k]["label"], 0), rows[k].get("coarse", ""), rows[k].get("best", ""),
            -rows[k]["cells"], k,
        ),
    )  # fmt: skip


def _extent(names: Sequence[str]) -> float:
    longest = max((len(line) for name in names for line in name.split("\n")), default=1)
    return 0.35 + LETTER * longest


def assignment_space(found: dict[str, Any]) -> Drawn:
    """Return the space that :func:`assignment` needs."""
    _, columns = _drawn_candidates(found)
    names = [wrapped(found["candidates"][j]) for j in columns]
    rows = row_names(found["clusters"])
    # The colour bar stands on the right, so a narrow matrix is fine.
    return Drawn(COLUMN * len(columns), ROW * len(rows), _extent(rows), _extent(names))


def assignment(axes: Axes, found: dict[str, Any]) -> Any:
    """Draw the probability of every candidate for every cluster; return the image."""
    from matplotlib.patches import Rectangle

    order, columns = _drawn_candidates(found)
    rows = [found["clusters"][k] for k in order]
    p = np.array(found["probabilities"])[order][:, columns]
    image = axes.imshow(p, vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto", interpolation="none")
    for i, row in enumerate(rows):
        if row["best"] not in found["candidates"]:
            continue
        j = columns.index(found["candidates"].index(row["best"]))
        edge = BLUE if row["label"] == row["best"] else GREY
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=edge, lw=1.6))
    names = [wrapped(found["candidates"][j]) for j in columns]
    axes.set_xticks(range(len(columns)), names, rotation=90, fontsize=8, linespacing=0.9)
    axes.set_yticks(range(len(rows)), row_names(rows), fontsize=8, linespacing=0.9)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="#eeeeee", lw=0.5)
    axes.tick_params(which="minor", length=0)
    left = len(found["candidates"]) - len(columns)
    more = f" ({left} more are below {_SEEN:.0%} everywhere)" if left else ""
    axes.set_xlabel(f"candidate{more}", fontsize=9)
    axes.set_ylabel(f"cluster ({found['groupby']}) and its label", fontsize=9)
    return image


def _drawn_candidates(found: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return clusters and candidates in drawing order."""
    rows = found["clusters"]
    p = np.array(found["probabilities"]).reshape(len(rows), -1)
    order = order_of(rows)
    best = [found["candidates"].index(r["best"]) for r in rows if r["best"] in found["candidates"]]
    seen = [j for j in range(p.shape[1]) if p[:, j].max(initial=0) >= _SEEN or j in best]
    # Sorted by the first cluster that favours it, so that the chosen types run down the diagonal.
    rank = {k: i for i, k in enumerate(order)}
    first = {j: min((rank[k] for k in order if rows[k]["best"] == found["candidates"][j]),
                    default=len(rows)) for j in seen}  # fmt: skip
    return order, sorted(seen, key=lambda j: (first[j], -p[:, j].max(), j))


def confidence_space(found: dict[str, Any]) -> Drawn:
    """Return the space that :func:`confidence` needs."""
    rows = row_names(found["clusters"])
    return Drawn(3.2, max(1.0, ROW * len(rows)), _extent(rows), 0.6, right=0.3)


def confidence(axes: Axes, found: dict[str, Any]) -> None:
    """Draw the probability of each label, the highest on top."""
    rows = sorted(found["clusters"], key=lambda row: (row["confidence"], row["cluster"]))
    colours = [
        BLUE if row["level"] == "type" else "#8fb8d0" if row["level"] == "ancestor" else GREY
        for row in rows
    ]
    axes.barh(range(len(rows)), [row["confidence"] for row in rows], color=colours, height=0.74)
    axes.set_yticks(range(len(rows)), row_names(rows), fontsize=8, linespacing=0.9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    least = found["params"].get("min_confidence") or 0
    if least > 0:
        axes.axvline(least, color=RED, lw=1)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    fitted = found["calibration"]
    told = "" if fitted.get("fitted", True) else " (not fitted)"
    axes.set_xlabel(f"probability of the label{told}", fontsize=9)
    axes.set_ylabel(f"cluster ({found['groupby']}) and its label", fontsize=9)


def evidence_genes(found: dict[str, Any], n_genes: int) -> list[str]:
    """Return the genes to draw: the first of every cluster, each once, in the order of clusters."""
    known = set(found["dots"]["genes"])
    genes: dict[str, None] = {}
    for k in order_of(found["clusters"]):
        own = [g for g in found["clusters"][k].get("supported", []) if g in known]
        genes.update(dict.fromkeys(own[:n_genes]))
    return list(genes)


def evidence_space(found: dict[str, Any], genes: Sequence[str]) -> Drawn:
    """Return the space that :func:`evidence` needs."""
    rows = row_names(found["clusters"])
    return Drawn(0.2 * len(genes), 0.24 * len(rows), _extent(rows), _extent(genes) + 0.25)


def evidence(axes: Axes, found: dict[str, Any], genes: Sequence[str]) -> Any:
    """Draw the share of cells of every cluster that express the deciding genes."""
    order = order_of(found["clusters"])
    rows = [found["clusters"][k] for k in order]
    at = [found["dots"]["genes"].index(gene) for gene in genes]
    share = np.array(found["dots"]["shares"], dtype=float)[order][:, at]
    y, x = np.mgrid[: len(rows), : len(genes)]
    top = np.maximum(share.max(axis=0), 1e-9)
    dots = axes.scatter(
        x.ravel(), y.ravel(), s=90 * share.ravel(), c=(share / top).ravel(), cmap="Reds", vmin=0,
        vmax=1, edgecolors="#888888", linewidths=0.3,
    )  # fmt: skip
    own = {(i, genes.index(g)) for i, row in enumerate(rows) for g in row.get("supported", [])
           if g in genes}  # fmt: skip
    if own:
        i, j = zip(*sorted(own), strict=True)
        axes.scatter(j, i, s=130, marker="s", facecolors="none", edgecolors=BLUE, linewidths=0.6)
    axes.set_xticks(range(len(genes)), genes, rotation=90, fontsize=8, style="italic")
    axes.set_yticks(range(len(rows)), row_names(rows), fontsize=8, linespacing=0.9)
    axes.set_xlim(-0.7, len(genes) - 0.3)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("size: share of cells that express the gene; framed: speaks for the label",
                    fontsize=8)  # fmt: skip
    axes.set_ylabel(f"cluster ({found['groupby']}) and its label", fontsize=9)
    return dots


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give every label a colour; unknown is grey."""
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb, to_hex

    named = [name for name in names if name not in (NONE, UNKNOWN)]
    some = [to_hex(c) for c in (*colormaps["tab20"].colors[::2], *colormaps["tab20"].colors[1::2])]  # type: ignore[attr-defined]
    some = [c for c in some if c not in ("#7f7f7f", "#c7c7c7")]
    if len(named) > len(some):
        # Distinct neighbours: hues by the golden ratio, alternating light and dark.
        n = np.arange(len(named))
        hsv = np.stack(
            [(0.61803 * n) % 1, 0.85 - 0.35 * (n % 3 == 1), 0.95 - 0.3 * (n % 2)], axis=1
        )
        some = [to_hex(tuple(rgb)) for rgb in hsv_to_rgb(hsv).tolist()]
    found = dict(zip(named, some, strict=False))
    return found | {NONE: "#7f7f7f", UNKNOWN: "#c9c9c9"}


def embedding(
    axes: Axes, coordinates: Floats, labels: Any, palette: dict[str, str], *, legend: bool = True
) -> None:
    """Draw cells by label, with a legend that lists the most frequent first.

    `labels` are categories of the cells.
    """
    names = [str(c) for c in labels.categories]
    codes = np.asarray(labels.codes)
    inks = np.array([palette.get(name, "#c9c9c9") for name in names] + ["#c9c9c9"], dtype=object)
    axes.scatter(
        coordinates[:, 0], coordinates[:, 1], c=inks[codes].tolist(), s=_dot(len(codes)),
        linewidths=0, rasterized=True,
    )  # fmt: skip
    _bare(axes)
    if legend:
        from matplotlib.lines import Line2D

        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        order = sorted(range(len(names)), key=lambda i: (-counts[i], i))
        handles = [
            Line2D([], [], ls="", marker="o", ms=5, color=palette.get(names[i], "#c9c9c9"),
                   label=f"{wrapped(names[i], 46)} ({counts[i]:,})")
            for i in order if counts[i]
        ]  # fmt: skip
        axes.legend(
            handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
            fontsize=7.5 if len(handles) <= 40 else 6, ncols=1 + (len(handles) - 1) // 40,
            handletextpad=0.2, labelspacing=0.25,
        )  # fmt: skip


def embedding_confidence(axes: Axes, coordinates: Floats, sure: Floats) -> Any:
    """Draw cells by the probability of their label; return the artist for a colour bar."""
    order = np.argsort(-np.nan_to_num(sure, nan=2.0), kind="stable")
    dots = axes.scatter(
        coordinates[order, 0], coordinates[order, 1], c=sure[order], s=_dot(len(order)), vmin=0,
        vmax=1, cmap="viridis", linewidths=0, rasterized=True, plotnonfinite=True,
    )  # fmt: skip
    _bare(axes)
    return dots


def _dot(n: int) -> float:
    return float(np.clip(60_000 / max(n, 1), 0.4, 14))


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
