"""How fast and how large `cello1 build` is, against the published loop and a bare read.

    python benchmarks/build.py [--cells 20000 200000] [--repeats 5] [--keep DIR]

Makes plain and gzipped files in CELLxGENE shape (60,000 genes, about 3,000 stored counts a cell, 20
donors, 20 cell types). For each storage and size it prints a row with

- read: just reading data, indices and indptr with h5py as it comes, in the pieces it is fastest at;
- read all: the same and, as the build must, the columns of obs and the symbols of the genes;
- rank: our reading and ranking alone; build: all of `cello1.build`, puzzles and audit included;
- build against three per-cell loops over rows spread over the smallest file (10 s or 300 cells,
  loading not counted): `published` does what the published script does (kept cells are a view of an
  AnnData in memory, and `.X` of a view copies all of it for every cell); `file` and `memory` take
  `adata[i]` of an AnnData that is open on disk or held in memory;

then the peak memory of fresh processes that build the smallest and the largest file. Each file is
read once before it is timed, so all timings are from the page cache; read, rank and build are timed
in turn `--repeats` times. Shown are medians, and the ranges of the paired ratios.
"""

import argparse
import re
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
from cello1.cells.genes import index_symbols
from cello1.cells.h5ad.matrix import CHUNK_VALUES, row_chunks
from cello1.cells.h5ad.read import open_source
from cello1.cells.rank import rank_chunks

GENES, DONORS, BLOCK = 60_000, 20, 100
TYPES = (
    "naive B cell", "plasma cell", "classical monocyte", "natural killer cell", "mast cell",
    "CD4-positive, alpha-beta T cell", "CD8-positive, alpha-beta T cell", "erythrocyte", "platelet",
    "plasmacytoid dendritic cell", "fibroblast", "vein endothelial cell", "pericyte", "hepatocyte",
    "smooth muscle cell", "astrocyte", "oligodendrocyte", "microglial cell", "Schwann cell",
    "pulmonary alveolar type 2 cell",
)  # fmt: skip
HDF5_CHUNK = 32_768  # what h5py chooses for arrays of this size, so what anndata writes


def file_of(folder: Path, storage: str, cells: int) -> Path:
    """Return a file; write it block by block when it is not there yet."""
    path = folder / f"{storage}-{cells}.h5ad"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    means = rng.normal(0, 2.4, GENES) + rng.normal(0, 0.7, (len(TYPES), GENES))
    shares = np.exp(means).cumsum(axis=1)
    places = (np.arange(1 << 20) + 0.5) / (1 << 20)
    urns = np.stack([np.searchsorted(share / share[-1], places) for share in shares])
    with h5py.File(path.with_suffix(".part"), "w") as file:
        write_tables(file, np.arange(cells))
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = (cells, GENES)
        kind = {"chunks": (HDF5_CHUNK,), "compression": "gzip" if storage == "gzip" else None}
        for name, dtype in (("data", "f4"), ("indices", "i4")):
            x.create_dataset(name, (0,), dtype, maxshape=(None,), **kind)
        lengths = [0]
        for start in range(0, cells, BLOCK):
            depth = rng.lognormal(np.log(7_000), 0.3, min(BLOCK, cells - start)).astype(int)
            row = np.repeat(np.arange(len(depth)), depth)
            gene = urns[(row + start) % len(TYPES), rng.integers(0, len(places), len(row))]
            counts = np.bincount(row * GENES + gene, minlength=len(depth) * GENES)
            stored = np.flatnonzero(counts)
            lengths += np.bincount(stored // GENES, minlength=len(depth)).tolist()
            for name, values in (("data", counts[stored]), ("indices", stored % GENES)):
                x[name].resize((len(x[name]) + len(stored),))
                x[name][-len(stored) :] = values
        x["indptr"] = np.cumsum(lengths).astype("i4")
    return path.with_suffix(".part").rename(path)


def write_tables(file: h5py.File, numbers: np.ndarray) -> None:
    """Write obs and var as CELLxGENE has them."""
    constant = {"tissue": "lung", "suspension_type": "cell", "disease": "normal", "sex": "female"}
    columns = {
        "cell_type": np.array(TYPES)[numbers % len(TYPES)],
        "donor_id": np.char.add("donor ", (numbers // len(TYPES) % DONORS).astype(str)),
        **{key: np.full(len(numbers), value) for key, value in constant.items()},
    }
    obs = pd.DataFrame(columns, np.char.add("cell ", numbers.astype(str)), dtype="category")
    ids = [f"ENSG{j:011d}" for j in range(GENES)]
    var = pd.DataFrame({"feature_name": [f"ZNF{j}" for j in range(GENES)]}, ids, dtype="category")
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    anndata.io.write_elem(file, "obs", obs.assign(is_primary_data=True))
    anndata.io.write_elem(file, "var", var)


def loop_rates(path: Path) -> dict[str, float]:
    """Rank one cell after another, three ways; return cells per second."""
    opened, loaded = anndata.read_h5ad(path, backed="r"), anndata.read_h5ad(path)
    kept = loaded[loaded.obs["suspension_type"] == "cell"]
    rows = {
        "published": lambda i: kept.X[i],
        "file": lambda i: opened[i].X,
        "memory": lambda i: loaded[i].X,
    }
    rates = {}
    for name, row in rows.items():
        began = perf_counter()
        for done, i in enumerate(np.linspace(0, kept.n_obs - 1, 300).astype(int), start=1):
            symbols, values = kept.var["feature_name"].tolist(), row(i).toarray().ravel()
            top = np.argpartition(values, -50)[-50:]
            [symbols[j] for j in top[np.argsort(values[top])[::-1]]]
            rates[name] = done / (perf_counter() - began)
            if perf_counter() - began > 10:
                break
    return rates


def read(path: Path, tables: bool = False) -> float:
    """Read the three arrays of the matrix and, if asked, all else of which puzzles are made."""
    began = perf_counter()
    with h5py.File(path) as file:
        for column in [*file["obs"].values(), file["var/feature_name"]] if tables else ():
            for array in column.values() if isinstance(column, h5py.Group) else [column]:
                array[()]
        x = file["X"]
        x["indptr"][:]
        for start in range(0, len(x["data"]), CHUNK_VALUES):
            x["indices"][start : start + CHUNK_VALUES]
            x["data"][start : start + CHUNK_VALUES]
    return perf_counter() - began


def rank(path: Path) -> float:
    """Only read the matrix and rank the genes of every cell."""
    with open_source(path) as source:
        symbols = index_symbols(source.symbols)
        began = perf_counter()
        keep = np.ones(source.n_cells, dtype=bool)
        for _ in rank_chunks(row_chunks(source.matrix), symbols, keep, 50):
            pass
    return perf_counter() - began


def build(path: Path) -> float:
    """Build the puzzles of one file in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        began = perf_counter()
        result = cello1.build([path], out)
        seconds = perf_counter() - began
    assert result.ok, result.reports
    return seconds


def peak(*paths: Path) -> float:
    """Return the peak memory, in MB, of a fresh process that builds files.

    Not `ru_maxrss`: a child inherits that of its parent on Linux.
    """
    builds = "; ".join(f"build.build(build.Path({str(path)!r}))" for path in paths)
    code = f"import build; {builds}; print(open('/proc/self/status').read())"
    status = subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parent)
    return int(re.search(rb"VmHWM:\s+(\d+) kB", status)[1]) / 1e3


def measure(folder: Path, sizes: list[int], repeats: int) -> None:
    """Print the figures of both storages."""
    tiny = file_of(folder, "plain", 2_000)
    build(tiny)  # imports, compiled kernel, ontology: paid once per process, not per file
    for storage in ("plain", "gzip"):
        files = [file_of(folder, storage, cells) for cells in sizes]
        loops = loop_rates(files[0])
        print(f"\n{storage}: " + ", ".join(f"{k} loop {v:.1f} cells/s" for k, v in loops.items()))
        head = "cells, MB, read, read all, rank, build, build / read, build / read all, cells/s"
        head += ", x published, x file, x memory"
        print(f"\n| {head.replace(', ', ' | ')} |\n{'|--:' * 12}|")
        for cells, path in zip(sizes, files, strict=True):
            read(path)  # into the page cache
            times = [
                (read(path), read(path, tables=True), rank(path), build(path))
                for _ in range(repeats)
            ]
            ratios = [sorted(row[-1] / row[peer] for row in times) for peer in (0, 1)]
            seconds = [median(column) for column in zip(*times, strict=True)]
            speed = cells / seconds[-1]
            row = [
                f"{cells:,}",
                f"{path.stat().st_size / 1e6:,.0f}",
                *map("{:.3g} s".format, seconds),
            ]
            row += [f"{median(r):.2f} ({r[0]:.2f}-{r[-1]:.2f})" for r in ratios]
            row.append(f"{speed:,.0f}")
            row += [f"{speed / loop:,.0f}" for loop in loops.values()]
            print(f"| {' | '.join(row)} |", flush=True)
        low, high = peak(tiny, files[0]), peak(tiny, files[-1])
        print(f"\npeak memory {low:.0f} MB, {high:.0f} MB: {100 * (high / low - 1):+.1f} %")


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="make the files here, or use those that are here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        need, free = sum(args.cells) * 32e-6, shutil.disk_usage(folder).free / 1e9
        if free < need and not any(folder.iterdir()):
            sys.exit(
                f"the files take {need:.0f} GB of {free:.0f} GB free; name another with --keep"
            )
        measure(folder, sorted(args.cells), args.repeats)


if __name__ == "__main__":
    main()
