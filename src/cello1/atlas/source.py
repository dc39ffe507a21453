"""Sources of an atlas, and their files.

There are two kinds. A *table* is made from mean profiles or annotated cells: for every column (a
type in a tissue) it holds how often a gene reaches a cell's list. A list of *markers* names genes
that are evidence for a type, or against it. A folder of sources has two files: ``atlas.json``
describes the sources, ``atlas.npz`` holds the numbers. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from cello1.errors import InputError

FORMAT = 1
# Frequencies are stored as bytes: 1/250 is finer than the resolution of 100 draws.
STEPS = 250

Kind = Literal["profiles", "cells", "markers"]


@dataclass(frozen=True)
class Column:
    """Type, tissue and disease of one row of a source.

    Attributes
    ----------
    label
        The cell type as the source (or its curation) names it.
    term
        Its Cell Ontology id, or None.
    tissue, disease
        Tissue and disease of the cells; empty when unknown.
    samples
        Number of columns or groups of cells that were pooled.
    """

    label: str
    term: str | None
    tissue: str = ""
    disease: str = ""
    samples: int = 1

    @property
    def key(self) -> str:
        """Identity of the type: the term, else the label without case."""
        return self.term or self.label.strip().casefold()


@dataclass(frozen=True)
class Source:
    """One source of the atlas.

    Attributes
    ----------
    name
        Unique within an atlas.
    kind
        ``profiles``, ``cells`` (both are tables) or ``markers``.
    study
        The study that the numbers come from; sources of one study are not independent, and are
        left out together when that study is tested.
    licence, citation
        For the NOTICE.
    genes
        Current symbols of the genes of `values`. For a table these are all measured genes that can
        reach a list; other genes count as not measured.
    columns
        Type, tissue and disease of each row.
    values
        Tables: share of cells that list the gene, within [0, 1]. Markers: +1 (evidence for the
        type) or -1 (against it). Shape (columns, genes).
    """

    name: str
    kind: Kind
    study: str
    licence: str
    citation: str
    genes: tuple[str, ...]
    columns: tuple[Column, ...]
    values: csr_array = field(repr=False)

    @property
    def is_table(self) -> bool:
        """Whether it holds frequencies."""
        return self.kind != "markers"


def write_sources(folder: Path, sources: Sequence[Source], about: dict[str, Any]) -> None:
    """Write sources into an existing folder, with further metadata."""
    genes = sorted({gene for source in sources for gene in source.genes})
    at = {gene: i for i, gene in enumerate(genes)}
    rows, universe = [], np.zeros((len(sources), len(genes)), dtype=bool)
    entries = []
    for k, source in enumerate(sources):
        places = np.array([at[gene] for gene in source.genes], dtype=np.int64)
        universe[k, places] = True
        values = source.values.tocoo()
        scaled = np.rint(values.data * STEPS) if source.is_table else np.sign(values.data)
        row, column = values.coords
        shape = (len(source.columns), len(genes))
        rows.append(csr_array((scaled.astype(np.int16), (row, places[column])), shape=shape))
        entries.append(
            {
                "name": source.name,
                "kind": source.kind,
                "study": source.study,
                "licence": source.licence,
                "citation": source.citation,
                "columns": [
                    [c.label, c.term, c.tissue, c.disease, c.samples] for c in source.columns
                ],
            }
        )
    together = csr_array(vstack(rows, format="csr"))
    together.eliminate_zeros()
    together.sort_indices()
    content = {"format": FORMAT, **about, "sources": entries}
    (folder / "atlas.json").write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")
    np.savez_compressed(
        folder / "atlas.npz",
        genes=np.frombuffer("\n".join(genes).encode(), dtype=np.uint8),
        universe=np.packbits(universe, axis=1),
        lengths=np.diff(together.indptr).astype(np.int32),
        # Steps from gene to gene are small numbers, which compress well.
        steps=_steps(together),
        positive=(together.data > 0),
        values=np.abs(together.data).astype(np.uint8),
    )


def read_sources(folder: Path) -> tuple[list[Source], dict[str, Any]]:
    """Read a folder of sources, and their further metadata.

    Raises
    ------
    InputError
        When the folder is no atlas, or has a format that this version cannot read.
    """
    try:
        about = json.loads((folder / "atlas.json").read_text("utf-8"))
        arrays = np.load(folder / "atlas.npz", allow_pickle=False)
        if about["format"] != FORMAT:
            raise InputError(
                f"atlas {folder} has format {about['format']}, this version reads {FORMAT}; "
                "build it again with: cello1 atlas build"
            )
        genes = arrays["genes"].tobytes().decode().split("\n")
        universe = np.unpackbits(arrays["universe"], axis=1, count=len(genes)).astype(bool)
        together = _matrix(arrays, len(genes))
        entries = about.pop("sources")
        return _split(entries, genes, universe, together), about
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder} is no atlas ({error}); expected a folder made by: cello1 atlas build"
        ) from error


def _steps(matrix: csr_array) -> npt.NDArray[np.uint16]:
    steps = np.diff(matrix.indices, prepend=0).astype(np.int64)
    starts = matrix.indptr[:-1][np.diff(matrix.indptr) > 0]
    steps[starts] = matrix.indices[starts]
    return steps.astype(np.uint16)


def _matrix(arrays: Any, width: int) -> csr_array:
    indptr = np.concatenate([[0], np.cumsum(arrays["lengths"])]).astype(np.int64)
    running = np.cumsum(arrays["steps"].astype(np.int64))
    before = np.concatenate([[0], running])[indptr[:-1]]
    indices = running - np.repeat(before, np.diff(indptr))
    values = arrays["values"].astype(np.int16)
    data = np.where(arrays["positive"], values, -values)
    return csr_array((data, indices.astype(np.int32), indptr), shape=(len(indptr) - 1, width))


def _split(
    entries: Sequence[Any], genes: Sequence[str], universe: npt.NDArray[np.bool_], matrix: csr_array
) -> list[Source]:
    sources, row = [], 0
    for k, entry in enumerate(entries):
        columns = tuple(Column(*values) for values in entry.pop("columns"))
        own = np.flatnonzero(universe[k])
        block = csr_array(matrix[row : row + len(columns)])
        place = np.full(len(genes), -1, dtype=np.int32)
        place[own] = np.arange(len(own), dtype=np.int32)
        scale = STEPS if entry["kind"] != "markers" else 1
        values = csr_array(
            (block.data.astype(np.float32) / scale, place[block.indices], block.indptr),
            shape=(len(columns), len(own)),
        )
        sources.append(
            Source(
                genes=tuple(genes[i] for i in own.tolist()), columns=columns, values=values, **entry
            )
        )
        row += len(columns)
    return sources
