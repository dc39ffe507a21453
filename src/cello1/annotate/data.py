"""One interface to a data set, read in chunks, so that memory does not grow with its size.

An .h5ad or .zarr on disk, or an AnnData in memory, backed by a file, lazy or a view.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix, issparse

from cello1.cells.context import FIELDS
from cello1.cells.genes import Symbols, index_symbols
from cello1.cells.h5ad.columns import Table
from cello1.cells.h5ad.elements import is_array, is_null
from cello1.cells.h5ad.matrix import CHUNK_VALUES, Chunk, open_matrix, row_chunks, sample_values
from cello1.cells.h5ad.read import (
    COUNT_LAYERS,
    Values,
    look_at,
    open_h5ad,
    open_source,
    organism_in,
)
from cello1.cells.loaded import DonorGroup, Expression, donor_groups, symbols_of
from cello1.cells.obs import BATCH_COLUMNS
from cello1.cells.rank import top_genes
from cello1.errors import InputError, brief
from cello1.runs import Watch

_SAMPLE_VALUES, _PLACES = 200_000, 8
# A chunk of a dask array with more entries, zeros included, is computed in pieces.
LARGEST_CHUNK = 1 << 28
# Number of cells of a cluster that vote one by one; more would not change the majority.
VOTERS = 300
# A cluster of this size has half the weight of a large one in the mean of all clusters.
FEW = 10
# Columns in which data sets give the tissue and the species.
TISSUE_COLUMNS = ("tissue", "organ", "Tissue", "tissue_general", "organ__ontology_label")
ORGANISM_COLUMNS = ("organism", "species", "Species", "organism_label")
# Mouse symbols have one capital: Cd3d, Lyz2. Human ones have no small letters, except in `orf`.
_TITLE = re.compile(r"[A-Z][a-z0-9][a-z0-9-]*$")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """An open data set.

    Attributes
    ----------
    name
        Name of the file, or ``AnnData``.
    n_cells
        Number of observations.
    obs
        Table of observations; of a file, only the columns that annotation may use.
    organism
        As given in the data, or None.
    matrix, values
        Which matrix is read, and whether it holds counts or normalised values.
    genes
        A symbol for every column of the matrix.
    chunks
        () -> the rows of the matrix in order, as CSR chunks.
    cell_names
        () -> the names of the observations.
    graph
        () -> neighbour graph (cells x cells) stored in the data, or None.
    embeddings
        Names of the two-dimensional embeddings in obsm.
    embedding
        (name) -> coordinates, shape (cells, 2).
    notes
        Decisions that the user should know.
    """

    name: str
    n_cells: int
    obs: pd.DataFrame = field(repr=False)
    organism: str | None
    matrix: str
    values: Values
    genes: list[str] = field(repr=False)
    chunks: Callable[[], Iterator[Chunk]] = field(repr=False)
    cell_names: Callable[[], pd.Index] = field(repr=False)
    graph: Callable[[], Any] = field(repr=False)
    embeddings: tuple[str, ...]
    embedding: Callable[[str], npt.NDArray[np.floating[Any]]] = field(repr=False)
    notes: list[str] = field(default_factory=list)

    def rows(self, wanted: npt.NDArray[np.intp], columns: Any = None) -> csr_matrix:
        """Read some rows, ascending, as CSR; with `columns` (a mask), only those columns."""
        parts: list[csr_matrix] = []
        for chunk in self.chunks():
            n = len(chunk.indptr) - 1
            low, high = np.searchsorted(wanted, [chunk.start, chunk.start + n])
            if low == high:
                continue
            shape = (n, len(self.genes))
            # The selection copies: the arrays of a chunk are reused.
            block = csr_matrix((chunk.data, chunk.indices, chunk.indptr), shape=shape)
            block = block[wanted[low:high] - chunk.start]
            parts.append(block if columns is None else csr_matrix(block[:, columns]))
        from scipy.sparse import vstack

        return csr_matrix(vstack(parts, format="csr"))

    def expression(self) -> Expression:
        """Read the whole matrix into memory."""
        everything = self.rows(np.arange(self.n_cells))
        return Expression(self.matrix, self.values, everything, index_symbols(self.genes))

    def donor_groups(self, settings: Any) -> list[DonorGroup]:
        """Divide the cells by donor, batch and tissue."""
        return donor_groups(
            self.obs,
            donor_key=settings.donor_key,
            batch_key=settings.batch_key,
            organism=self.organism,
            extra=settings.context_columns,
            whole=settings.rank == "specific",
        )

    def constant(self, columns: tuple[str, ...]) -> list[str]:
        """Return the unique values of the first of these columns that obs has."""
        for name in columns:
            if name in self.obs:
                found = self.obs[name].dropna().unique()
                return sorted({str(v).strip() for v in found} - {""})
        return []


@contextmanager
def open_data(
    source: Any, *, layer: str | None = None, organism: str | None = None, columns: Any = ()
) -> Iterator[Data]:
    """Open a data set for reading.

    Parameters
    ----------
    source
        Path of an .h5ad file or a .zarr store, or an AnnData.
    layer
        ``X``, ``raw.X`` or the name of a layer. By default the first matrix of counts, else the
        first without negative values; but ``raw.X`` where the others hold only some of its genes.
    organism
        Organism of the cells, where the data do not give it or are wrong.
    columns
        Further columns of obs to read from a file.

    Raises
    ------
    InputError
        When it cannot be read, has no usable matrix or no gene symbols.
    """
    if isinstance(source, str | Path):
        with _stored(Path(source), layer, organism, columns) as data:
            yield data
    else:
        yield _anndata(source, "AnnData", layer, organism)


@contextmanager
def _stored(path: Path, layer: str | None, organism: str | None, columns: Any) -> Iterator[Data]:
    """Open an .h5ad file or a .zarr store."""
    notes: list[str] = []
    with ExitStack() as stack:
        if layer is None:
            with open_h5ad(path) as file:
                layer = _prefer_raw(_stored_sizes(file), notes)
        source = stack.enter_context(open_source(path, layer, organism=organism))
        file, obs = source.file, source.obs
        if source.n_cells == 0 or len(source.symbols) == 0:
            raise InputError(
                f"{path} has {source.n_cells} cells and {len(source.symbols)} genes; expected some"
            )
        wanted = {*columns, *_USUAL} - {None}
        # A column of clusters may have any name; measurements are not read.
        names = [n for n in obs if n in wanted or not _is_measured(obs, n)]
        frame = pd.DataFrame({n: obs.column(n) for n in names}, index=pd.RangeIndex(source.n_cells))
        obsm = file.get("obsm", {})
        shapes = {k: getattr(obsm[k], "shape", None) or () for k in obsm}

        def graph() -> Any:
            from anndata.io import read_elem

            at = "obsp/connectivities"
            return read_elem(file[at]) if at in file else None

        notes += source.genes.told()
        yield Data(
            path.name,
            source.n_cells,
            frame,
            organism or organism_in(file, obs),
            source.matrix.name,
            source.values,
            source.symbols.to_pylist(),
            lambda: row_chunks(source.matrix),
            lambda: pd.Index(obs.names()),
            graph,
            flat_embeddings(shapes),
            lambda name: np.asarray(obsm[name][:, :2]),
            notes,
        )


# Columns that annotation reads without being asked.
_USUAL = (
    *FIELDS, *TISSUE_COLUMNS, *ORGANISM_COLUMNS, *BATCH_COLUMNS, "donor_id",
)  # fmt: skip


def _is_measured(obs: Table, name: str) -> bool:
    """Return whether a column holds floats, which cannot group cells."""
    kind = getattr(obs.node[name] if not is_array(obs.node) else None, "dtype", None)
    return kind is not None and kind.kind == "f"


def _stored_sizes(file: Any) -> dict[str, tuple[int, bool]]:
    """Return the number of genes of X and raw.X of a file, and whether each is usable."""
    found: dict[str, tuple[int, bool]] = {}
    for name, places in (("X", ("X",)), ("raw.X", ("raw/X", "raw.X"))):
        node = next((file[place] for place in places if place in file), None)
        if node is None or is_null(node):
            continue
        try:
            matrix = open_matrix(name, node)
        except InputError:
            continue
        found[name] = (matrix.shape[1], look_at(sample_values(matrix)) in ("counts", "normalised"))
    return found


def _prefer_raw(sizes: Mapping[str, tuple[int, bool]], notes: list[str]) -> str | None:
    """Choose ``raw.X`` where all other matrices hold only some of its genes."""
    few, more = sizes.get("X", (0, False))[0], sizes.get("raw.X", (0, False))
    if few and more[1] and more[0] > few:
        notes.append(
            f"raw.X is read: it has {more[0]:,} genes, of which X and the layers hold {few:,}"
        )
        return "raw.X"
    return None


def _anndata(adata: Any, name: str, layer: str | None, asked: str | None) -> Data:
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise InputError(f"the AnnData has {adata.n_obs} cells and {adata.n_vars} genes")
    nodes = {k: adata.layers[k] for k in COUNT_LAYERS if k in adata.layers}
    raw_var = None
    if adata.raw is not None:
        nodes["raw.X"], raw_var = adata.raw.X, adata.raw.var
    if adata.isbacked and adata.is_view:
        nodes["X"] = _BackedView(adata)
    elif adata.X is not None:
        nodes["X"] = adata.X
    nodes |= {k: adata.layers[k] for k in sorted(adata.layers)}
    organism = adata.uns.get("organism")
    return _of_parts(
        name, adata.obs, adata.var, raw_var, nodes,
        asked or _organism(adata.obs, organism), layer,
        lambda: adata.obsp.get("connectivities"),
        adata.obsm,
    )  # fmt: skip


def _of_parts(
    name: str,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    raw_var: pd.DataFrame | None,
    nodes: Mapping[str, Any],
    organism: str | None,
    layer: str | None,
    graph: Callable[[], Any],
    obsm: Mapping[str, Any],
) -> Data:
    notes: list[str] = []
    look = cache(lambda name: look_at(_sample(nodes[name])))
    if layer is None:
        sizes = {
            k: (int(nodes[k].shape[1]), look(k) in ("counts", "normalised"))
            for k in ("X", "raw.X") if k in nodes
        }  # fmt: skip
        layer = _prefer_raw(sizes, notes)
    chosen, values = _choose(nodes, layer, look)
    node, table = nodes[chosen], var if chosen != "raw.X" or raw_var is None else raw_var
    genes = symbols_of(table, var, "raw.var" if chosen == "raw.X" else "var", organism)
    notes += genes.told()
    return Data(
        name,
        len(obs),
        obs,
        organism,
        chosen,
        values,
        genes.symbols.to_pylist(),
        lambda: _row_blocks(node),
        lambda: pd.Index(obs.index.astype(str)),
        graph,
        flat_embeddings({k: np.shape(v) for k, v in obsm.items()}),
        lambda key: np.asarray(obsm[key])[:, :2],
        notes,
    )


class _BackedView:
    """The matrix of a view of a backed AnnData; only the requested rows are read.

    anndata cannot make a view of such a view, and its `X` reads the whole matrix.
    """

    def __init__(self, view: Any) -> None:
        self.shape = view.shape
        self.stored = view._adata_ref.X
        self.rows = np.arange(view._adata_ref.n_obs)[view._oidx]
        self.columns = view._vidx

    def __getitem__(self, wanted: slice) -> Any:
        rows, at = np.unique(self.rows[wanted], return_inverse=True)  # files are read in order
        return self.stored[rows][at][:, self.columns]


def _row_blocks(node: Any) -> Iterator[Chunk]:
    """Yield the rows of anything that can be sliced by rows."""
    from anndata.abc import CSCDataset, CSRDataset

    if isinstance(node, CSRDataset | CSCDataset):  # backed by a file
        yield from row_chunks(open_matrix("X", node.group))
        return
    if issparse(node):
        node = node.tocsr()  # type: ignore[attr-defined]
    width = int(node.shape[1])
    step = max(1, CHUNK_VALUES // max(1, width // 8 if issparse(node) else width))
    for start, stop in pairwise(_bounds(node, step)):
        block = node[start:stop]
        if hasattr(block, "compute"):  # dask
            block = block.compute()
        if issparse(block):
            yield _chunk(start, block)
            continue
        for first in range(0, stop - start, step):
            yield _chunk(start + first, block[first : first + step])


def _chunk(start: int, rows: Any) -> Chunk:
    own: Any = csr_matrix(rows)
    return Chunk(start, own.indptr.astype(np.int64), own.indices, own.data)


def _bounds(node: Any, step: int) -> list[int]:
    """Return the rows at which to divide a matrix: about every `step` rows.

    Every chunk of a dask array is computed once, whatever its size, as half of one often costs as
    much as all of it. Only what would not fit into memory is divided.
    """
    n, width = (int(x) for x in node.shape)
    chunks = getattr(node, "chunks", None)
    if not hasattr(node, "compute") or chunks is None:
        return [*range(0, n, step), n]
    found = [0]
    most = max(step, LARGEST_CHUNK // max(1, width))
    for stop in np.cumsum(chunks[0]).tolist():
        if stop - found[-1] < step and stop < n:
            continue  # goes with the next one
        found += [*range(found[-1] + most, stop, most), stop]
    return found


def _choose(
    nodes: Mapping[str, Any], layer: str | None, look: Callable[[str], str]
) -> tuple[str, Values]:
    if layer is not None and layer not in nodes:
        raise InputError(f"no matrix {layer!r} in the AnnData; it has {', '.join(nodes)}")
    found = {}
    for name in nodes if layer is None else [layer]:
        kind = look(name)
        if kind == "counts":
            return name, "counts"
        if layer in COUNT_LAYERS and kind == "normalised":
            raise InputError(
                f"layer {layer!r} should hold raw counts but holds fractions (log-normalised "
                "values?); put the counts there, or name the layer of normalised values, such as X"
            )
        found[name] = kind
    for name, kind in found.items():
        if kind == "normalised":
            return name, "normalised"
    what = "; ".join(f"{name} {kind}" for name, kind in found.items())
    raise InputError(
        f"no usable expression values: {what or 'the AnnData has no matrix'}. Expected counts or "
        "log-normalised values: put them into X, raw.X or layers['counts']"
    )


def _sample(node: Any) -> npt.NDArray[Any]:
    """Return a sample of the stored values of a matrix."""
    if issparse(node):
        stored: Any = node.data  # type: ignore[attr-defined]
        return np.asarray(stored[:: max(1, len(stored) // _SAMPLE_VALUES)])
    n, width = (int(x) for x in node.shape)
    step = max(1, _SAMPLE_VALUES // (_PLACES * max(1, width)))
    parts = []
    for start in sorted({int(s) for s in np.linspace(0, max(0, n - step), _PLACES)}):
        block = node[start : start + step]
        block = block.compute() if hasattr(block, "compute") else block
        sparse = issparse(block)
        parts.append(np.asarray(block.data if sparse else block).ravel())
    return np.concatenate(parts) if parts else np.empty(0)


def _organism(obs: pd.DataFrame, stored: Any) -> str | None:
    if isinstance(stored, str):
        return stored
    for name in ORGANISM_COLUMNS:
        if name in obs:
            found = sorted({str(v) for v in obs[name].dropna().unique()})
            return found[0] if len(found) == 1 else None
    return None


def flat_embeddings(shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the embeddings that can be drawn, UMAP first."""
    two = [k for k, s in shapes.items() if len(s) == 2 and s[1] >= 2]
    order = ("umap", "tsne", "draw_graph")
    named = [k for word in order for k in sorted(two) if word in k.lower()]
    return tuple(dict.fromkeys(named))


def looks_like_mouse(genes: list[str]) -> bool:
    """Return whether most symbols are spelled like mouse genes: Cd3d, Ms4a1."""
    letters = [g for g in genes if len(g) > 2 and g[0].isalpha()]
    return len(letters) > 0 and sum(bool(_TITLE.match(g)) for g in letters) > 0.5 * len(letters)


@dataclass(frozen=True)
class Counted:
    """Genes that the cells of K clusters list and express, summed while reading; G symbols.

    Attributes
    ----------
    symbols
        The genes, without housekeeping genes.
    listed
        Share of cells whose list has the gene, weighted by its rank, shape (K, G).
    everyone
        The mean over all clusters, large or small, shape (G,).
    detected
        Number of cells that express the gene, shape (K, G).
    sizes
        Number of cells, shape (K,); `silent` of them express nothing.
    donors
        Number of donors with cells in the cluster, shape (K,).
    voters, owners
        The lists of up to `VOTERS` cells of each cluster, symbols by rank, padded with -1, shape
        (V, k), and the cluster of each, shape (V,).
    """

    symbols: Symbols
    listed: Floats = field(repr=False)
    everyone: Floats = field(repr=False)
    detected: npt.NDArray[np.int32] = field(repr=False)
    sizes: npt.NDArray[np.intp]
    silent: npt.NDArray[np.intp]
    donors: npt.NDArray[np.intp]
    voters: npt.NDArray[np.int32] = field(repr=False)
    owners: npt.NDArray[np.intp] = field(repr=False)


def count(
    data: Data,
    symbols: Symbols,
    codes: npt.NDArray[np.intp],
    n_clusters: int,
    donors: npt.NDArray[np.intp],
    *,
    k: int,
    places: npt.NDArray[np.float32] | None,
    watch: Watch,
) -> Counted:
    """Read all cells once, and sum their lists over clusters.

    Parameters
    ----------
    data
        The open data set.
    symbols
        Symbols of its genes.
    codes
        The cluster of every cell, -1 for none, shape (cells,).
    n_clusters
        K.
    donors
        The donor of every cell, shape (cells,).
    k
        Length of the lists.
    places
        Weight of a gene at each rank of a list, shape (k, symbols); by default 1.
    watch
        Called with (what is being done, share done).

    Raises
    ------
    InputError
        When a cell has negative or infinite values.
    """
    inside = codes >= 0
    per_donor = np.bincount(donors[inside], minlength=int(donors.max(initial=0)) + 1)
    # Donors are weighted by the square root of their size: one with many cells must not dominate,
    # and one with three cells must not count as much as the others.
    weight = np.where(inside, 1.0 / np.sqrt(np.maximum(per_donor, 1))[donors], 0.0)
    shape = (n_clusters, len(symbols.names))
    listed, detected = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    expressed = np.zeros(data.n_cells, dtype=np.int32)
    width = np.ones((k, shape[1]), dtype=np.float32) if places is None else places
    chosen = _choose_voters(codes, n_clusters)
    voters = np.full((int(chosen.sum()), k), -1, dtype=np.int32)
    slot = np.cumsum(chosen) - 1

    def work(chunk: Chunk) -> int:
        n = len(chunk.indptr) - 1
        rows = slice(chunk.start, chunk.start + n)
        ranks, counts, faults = top_genes(chunk, symbols, inside[rows], k)
        if faults.any():
            odd = data.cell_names()[chunk.start + int(np.argmax(faults > 0))]
            raise InputError(
                f"{data.matrix} holds negative, NaN or infinite values in cell {brief(odd)}; "
                "expected counts or log-normalised values: name another matrix with layer"
            )
        expressed[rows] = counts
        votes = chosen[rows]
        voters[slot[rows][votes]] = ranks[votes]
        _add(
            codes[rows], weight[rows], ranks, width, chunk.indptr, chunk.indices, chunk.data,
            symbols.rank, listed, detected,
        )  # fmt: skip
        return chunk.start + n

    for done in _ahead(data.chunks(), work):
        watch("reading", done / data.n_cells)
    sums = np.bincount(codes[inside], weight[inside], minlength=n_clusters)
    sizes = np.bincount(codes[inside], minlength=n_clusters)
    listed /= np.maximum(sums, 1e-12)[:, None]
    silent = np.bincount(codes[inside & (expressed == 0)], minlength=n_clusters)
    pairs = np.unique(codes[inside] * (int(donors.max(initial=0)) + 1) + donors[inside])
    of = pairs // (int(donors.max(initial=0)) + 1)
    return Counted(
        symbols,
        listed,
        average(listed, sizes),
        detected,
        sizes,
        silent,
        np.bincount(of, minlength=n_clusters),
        voters,
        codes[chosen],
    )


def average(listed: Floats, sizes: npt.NDArray[np.intp]) -> Floats:
    """Return the mean over clusters, shape (G,), with equal weights except for very small ones."""
    weight = sizes / (sizes + FEW)
    return np.asarray(weight @ listed / max(float(weight.sum()), 1e-12))


def _choose_voters(codes: npt.NDArray[np.intp], n_clusters: int) -> npt.NDArray[np.bool_]:
    """Choose up to `VOTERS` cells of every cluster, evenly spaced among its cells."""
    chosen = np.zeros(len(codes), dtype=bool)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(n_clusters + 1))
    for low, high in pairwise(bounds.tolist()):
        n = min(VOTERS, high - low)
        chosen[order[low + np.arange(n) * (high - low) // max(n, 1)]] = True
    return chosen


def _ahead(chunks: Iterator[Chunk], work: Callable[[Chunk], int]) -> Iterator[int]:
    """Process one chunk while the next is read; two are in memory at a time."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[int] | None = None
        for chunk in chunks:
            if waiting is not None:
                yield waiting.result()
            waiting = pool.submit(work, chunk)
        if waiting is not None:
            yield waiting.result()


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(
    codes: Any,
    weight: Any,
    ranks: Any,
    places: Any,
    indptr: Any,
    columns: Any,
    values: Any,
    symbol: Any,
    listed: Any,
    detected: Any,
) -> None:
    for row in range(len(codes)):
        c = codes[row]
        if c < 0:
            continue
        for j in range(ranks.shape[1]):
            g = ranks[row, j]
            if g < 0:
                break
            listed[c, g] += weight[row] * places[j, g]
        for i in range(indptr[row], indptr[row + 1]):
            g = symbol[columns[i]]
            if g >= 0 and values[i] > 0:
                detected[c, g] += 1
