"""How fast and how large is `cello1 build`?

    python benchmarks/build.py [--cells 20000 200000] [--repeats 5] [--keep DIR]

Makes synthetic files in CELLxGENE shape (60,000 genes, about 3,000 stored counts a cell, 20 donors,
20 cell types), once plain and once gzipped, and prints for each:

- the per-cell loop of the original (a row slice of an AnnData, made dense, sorted, top 50), from the
  open file and from memory, on rows spread over the file;
- the time of just reading data, indices and indptr with h5py, in pieces as large as ours;
- the time of `cello1.build` (all of it, puzzles and audit included) and of its rank pass alone;
- the ratios, and the peak memory of a fresh process that builds the smallest and the largest file.

Every file is read once before anything is timed, so all contenders read from the page cache. A read
and a build are timed in turn, `--repeats` times; medians are shown, with the range of the ratio.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import anndata
import h5py
import numpy as np
import pandas as pd

import cello1
from cello1.cells.genes import index_symbols, top_genes
from cello1.cells.matrix import CHUNK_VALUES, row_chunks
from cello1.cells.read import open_source

GENES, DONORS, BLOCK = 60_000, 20, 100
TYPES = (
    "naive B cell", "plasma cell", "classical monocyte", "natural killer cell", "mast cell",
    "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell", "erythrocyte", "platelet",
    "plasmacytoid dendritic cell", "fibroblast", "vein endothelial cell", "pericyte", "hepatocyte",
    "smooth muscle cell", "astrocyte", "oligodendrocyte", "microglial cell", "Schwann cell",
    "pulmonary alveolar type 2 cell",
)  # fmt: skip
# What h5py chooses for arrays of this size, and so what anndata writes, plain or gzipped.
HDF5_CHUNK = 32_768


def make_file(path: Path, cells: int) -> Path:
    """Write a plain file block by block, in the encoding of AnnData."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    numbers = np.arange(cells)
    obs = {
        "cell_type": np.array(TYPES)[numbers % len(TYPES)],
        "donor_id": np.char.add("donor ", (numbers // len(TYPES) % DONORS).astype(str)),
        **{key: np.full(cells, "lung") for key in ("tissue", "suspension_type", "disease", "sex")},
    }
    obs |= {"suspension_type": np.full(cells, "cell"), "disease": np.full(cells, "normal")}
    frame = pd.DataFrame(obs, index=[f"cell{i}" for i in numbers], dtype="category")
    frame["is_primary_data"] = True
    genes = [f"ENSG{j:011d}" for j in range(GENES)]
    var = pd.DataFrame({"feature_name": [f"GENE{j}" for j in range(GENES)]}, index=genes)
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        anndata.io.write_elem(file, "obs", frame)
        anndata.io.write_elem(file, "var", var.astype("category"))
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = (cells, GENES)
        for name, dtype in (("data", "f4"), ("indices", "i4")):
            x.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(HDF5_CHUNK,))
        lengths = [_append(x, rng, start, cells) for start in range(0, cells, BLOCK)]
        x["indptr"] = np.append(0, np.cumsum(np.concatenate(lengths)))
    return part.rename(path)


def _append(x: h5py.Group, rng: np.random.Generator, start: int, cells: int) -> np.ndarray:
    """Draw one block of cells (multinomial, log-normal means and depths); return its row lengths."""
    size = min(BLOCK, cells - start)
    depth = rng.lognormal(np.log(7_000), 0.3, size).astype(int)
    row = np.repeat(np.arange(size), depth)
    gene = _tables()[(row + start) % len(TYPES), rng.integers(0, 1 << 20, len(row))]
    counts = np.bincount(row * GENES + gene, minlength=size * GENES).astype("f4")
    stored = np.flatnonzero(counts)
    for name, values in (("data", counts[stored]), ("indices", stored % GENES)):
        end = len(x[name])
        x[name].resize((end + len(stored),))
        x[name][end:] = values
    return np.bincount(stored // GENES, minlength=size)


def _tables(cache: list[np.ndarray] = []) -> np.ndarray:  # noqa: B006
    """Return for every type 2^20 genes in proportion to their expression."""
    if not cache:
        rng = np.random.default_rng(1)
        means = rng.normal(0, 2.4, GENES) + rng.normal(0, 0.7, (len(TYPES), GENES))
        share = np.exp(means).cumsum(axis=1)
        places = (np.arange(1 << 20) + 0.5) / (1 << 20)
        cache.append(np.stack([np.searchsorted(s / s[-1], places) for s in share]))
    return cache[0]


def gzipped(path: Path) -> Path:
    """Copy a plain file with its matrix compressed as ``compression="gzip"`` does it."""
    target = path.with_name(path.name.replace("plain", "gzip"))
    if target.exists():
        return target
    with h5py.File(path) as source, h5py.File(target.with_suffix(".part"), "w") as file:
        file.attrs.update(source.attrs)
        for name in ("obs", "var"):
            source.copy(name, file)
        x = file.create_group("X")
        x.attrs.update(source["X"].attrs)
        for name, values in source["X"].items():
            kind = {
                "compression": "gzip",
                "compression_opts": 4,
                "chunks": (min(HDF5_CHUNK, len(values)),),
            }
            x.create_dataset(name, values.shape, values.dtype, **kind)
            for start in range(0, len(values), 64 * HDF5_CHUNK):
                stop = min(start + 64 * HDF5_CHUNK, len(values))
                x[name][start:stop] = values[start:stop]
    return target.with_suffix(".part").rename(target)


def loop_rate(adata: anndata.AnnData, cells: int = 300, seconds: float = 10.0) -> float:
    """Rank one cell after another, as the original does; return cells per second."""
    names = adata.var["feature_name"].astype(str).to_numpy()
    began, done = perf_counter(), 0
    for row in np.linspace(0, adata.n_obs - 1, min(cells, adata.n_obs)).astype(int):
        values = adata[row].X.toarray().ravel()
        sorted(zip(names, values, strict=True), key=lambda pair: pair[1], reverse=True)[:50]
        done += 1
        if perf_counter() - began > seconds:
            break
    return done / (perf_counter() - began)


def read(path: Path) -> float:
    """Read the three arrays of the matrix, as many values at a time as the build does."""
    began = perf_counter()
    with h5py.File(path) as file:
        x = file["X"]
        x["indptr"][:]
        for start in range(0, len(x["data"]), CHUNK_VALUES):
            x["indices"][start : start + CHUNK_VALUES]
            x["data"][start : start + CHUNK_VALUES]
    return perf_counter() - began


def build(path: Path) -> float:
    """Build puzzles of one file into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        began = perf_counter()
        result = cello1.build([path], out)
        seconds = perf_counter() - began
    assert result.ok, result.reports
    assert result.reports[0].puzzles == 320, result.reports
    return seconds


def rank(path: Path) -> float:
    """Only read the matrix and rank the genes of every cell."""
    with open_source(path) as source:
        symbols = index_symbols(source.symbols)
        began = perf_counter()
        for chunk in row_chunks(source.matrix):
            top_genes(chunk, symbols, np.ones(len(chunk.indptr) - 1, dtype=bool), 50)
    return perf_counter() - began


def peak(path: Path, tiny: Path) -> float:
    """Return the peak memory, in MB, of a fresh process that builds a file."""
    command = [sys.executable, __file__, "--peak", str(tiny), str(path)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="make the files here, or use those that are here")
    parser.add_argument("--peak", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        for path in args.peak:
            build(path)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        need = sum(args.cells) * 3_000 * 8 * 1.5 / 1e9
        if (free := shutil.disk_usage(folder).free / 1e9) < need and not any(folder.iterdir()):
            sys.exit(f"the files need about {need:.0f} GB, {free:.0f} GB are free; use --keep")
        measure(folder, sorted(args.cells), args.repeats)


def measure(folder: Path, sizes: list[int], repeats: int) -> None:
    """Print the table of every storage."""
    tiny = make_file(folder / "plain-2000.h5ad", 2_000)
    build(tiny)  # imports, compiled kernel, ontology: paid once per process, not per file
    for storage in ("plain", "gzip"):
        files = [make_file(folder / f"plain-{cells}.h5ad", cells) for cells in sizes]
        if storage == "gzip":
            files = [gzipped(path) for path in files]
        opened = loop_rate(anndata.read_h5ad(files[0], backed="r"))
        loaded = loop_rate(anndata.read_h5ad(files[0]))
        print(f"\n{storage}: per-cell loop {opened:.1f} cells/s from the file, ", end="")
        print(f"{loaded:.1f} cells/s from memory\n")
        print("| cells | MB | read | rank | build | build cells/s | / loop | build / read |")
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for cells, path in zip(sizes, files, strict=True):
            read(path)  # into the page cache
            times = [(read(path), rank(path), build(path)) for _ in range(repeats)]
            reads, ranks, builds = (median(column) for column in zip(*times, strict=True))
            ratios = sorted(b / r for r, _, b in times)
            rate, size = cells / builds, path.stat().st_size / 1e6
            print(
                f"| {cells:,} | {size:,.0f} | {reads:.2f} s | {ranks:.2f} s | {builds:.2f} s | "
                f"{rate:,.0f} | {rate / opened:,.0f} x (memory {rate / loaded:,.0f} x) | "
                f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
                flush=True,
            )
        peaks = [peak(path, tiny) for path in (files[0], files[-1])]
        print(
            f"\npeak memory {peaks[0]:.0f} MB at {sizes[0]:,} cells, {peaks[1]:.0f} MB at ", end=""
        )
        print(f"{sizes[-1]:,} cells: {100 * (peaks[1] / peaks[0] - 1):+.1f} %", flush=True)


if __name__ == "__main__":
    main()
