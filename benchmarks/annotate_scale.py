"""What annotation costs on large files: seconds and memory, beside reading the file twice.

    python benchmarks/annotate_scale.py DATA FOLDER [--cells 200000] [--genes 30000] [--gzip]
    python benchmarks/annotate_scale.py DATA FOLDER --cells 1000000 --genes 2000 --listed 100
    python benchmarks/annotate_scale.py DATA FOLDER --clusters 300

The cells of PBMC3k are written again and again into a file of FOLDER, as donors of their own, with
as many genes that nobody expresses as are wanted; `--listed` keeps that many values of a cell, and
`--clusters` divides them into about that many clusters, each of one type where there are enough.
Each line is a process of its own: `read twice` walks over the matrix by h5py, in pieces, two times;
`anndata twice` loads it with anndata; `annotate` is `cello1 annotate`, from the start of Python to
the file that is written; `annotate dask` is `co.tl.annotate` on AnnData whose matrix is a dask
array of the file (where dask is installed). Printed: seconds, processor seconds, peak memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

TASKS = {
    "read twice": """
import h5py, numpy as np
for _ in range(2):
    with h5py.File(path) as file:
        for part in ("data", "indices"):
            stored = file["X"][part]
            for start in range(0, stored.shape[0], 1 << 20):
                stored[start : start + (1 << 20)]
""",
    "anndata twice": """
import anndata
for _ in range(2):
    anndata.read_h5ad(path)
""",
    "annotate": """
import sys
from cello1.cli.app import main
sys.argv = ["cello1", "annotate", path, "-o", path + ".out.h5ad"]
main()
""",
}
if find_spec("dask"):
    TASKS["annotate dask"] = """
import anndata, h5py
import cello1 as co
from anndata.experimental import read_elem_lazy
with h5py.File(path) as file:
    cells = anndata.AnnData(
        read_elem_lazy(file["X"]), obs=anndata.io.read_elem(file["obs"]),
        var=anndata.io.read_elem(file["var"]),
    )
    co.tl.annotate(cells)
    print(cells.obs["cello1"].value_counts().to_dict())
"""


def make(
    path: Path, source: Path, n: int, width: int, listed: int | None, clusters: int, packed: bool
) -> None:
    """Write the cells of a small file again and again, block by block."""
    cells = anndata.read_h5ad(source)
    values = csr_matrix(cells.X)[:, :width].astype(np.float32)
    if listed is not None:
        for row in range(values.shape[0]):
            own = values.data[values.indptr[row] : values.indptr[row + 1]]
            own[np.argsort(-own, kind="stable")[listed:]] = 0
        values.eliminate_zeros()
    genes = [*cells.var["feature_name"].astype(str)[:width]]
    genes += [f"NONE{i}" for i in range(width - len(genes))]
    kinds = cells.obs["cell_type"].astype(str).to_numpy()
    copy = np.arange(n) // cells.n_obs
    types = np.resize(pd.factorize(kinds)[0], n)
    parts = max(1, clusters // (int(types.max()) + 1))
    codes = types if clusters == 0 else (types * parts + copy % parts) % clusters
    obs = pd.DataFrame(
        {"leiden": pd.Categorical(codes.astype(str)),
         "donor_id": pd.Categorical([f"D{i}" for i in copy]),
         "tissue": pd.Categorical(["blood"] * n)},
        index=[f"cell{i}" for i in range(n)],
    )  # fmt: skip
    empty = anndata.AnnData(
        csr_matrix((n, width), dtype=np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(genes))
    )
    empty.var_names_make_unique()
    empty.write_h5ad(path)
    lengths = np.resize(np.diff(values.indptr), n)
    options = {"chunks": (1 << 20,), **({"compression": "gzip"} if packed else {})}
    with h5py.File(path, "r+") as file:
        matrix = file["X"]
        for part in ("data", "indices", "indptr"):
            del matrix[part]
        total, at = int(lengths.sum()), 0
        data = matrix.create_dataset("data", (total,), "f4", **options)
        indices = matrix.create_dataset("indices", (total,), "i4", **options)
        matrix.create_dataset("indptr", data=np.concatenate([[0], np.cumsum(lengths)]))
        while at < total:
            k = min(values.nnz, total - at)
            data[at : at + k], indices[at : at + k] = values.data[:k], values.indices[:k]
            at += k
    print(f"{n:,} cells x {width:,} genes, {total:,} values, {path.stat().st_size / 1e6:,.0f} MB")


def measure(name: str, path: Path) -> None:
    """Run one task in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    code = (
        f"import atexit, resource\npath = {str(path)!r}\natexit.register(lambda: print("
        f"resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))\n{TASKS[name]}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = float(done.stdout.split()[-1])
    print(f"{name:14s} {seconds:7.1f} s, {used:7.1f} s of processor, {peak:5.2f} GB", flush=True)


def main() -> None:
    """Make the file where there is none, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with cells")
    parser.add_argument("folder", type=Path, help="where the file is made, or was")
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=30_000)
    parser.add_argument("--listed", type=int, help="keep so many values of a cell")
    parser.add_argument("--clusters", type=int, default=0, help="by default one for each type")
    parser.add_argument("--gzip", action="store_true", help="compress, as most files are")
    options = parser.parse_args()
    some = f"-{options.clusters}" if options.clusters else ""
    name = f"{options.cells}x{options.genes}{some}{'-gzip' * options.gzip}.h5ad"
    path = options.folder / name
    if not path.exists():
        source = options.data / "cells" / "pbmc3k_lognorm.h5ad"
        make(path, source, options.cells, options.genes, options.listed, options.clusters,
             options.gzip)  # fmt: skip
    for task in TASKS:
        measure(task, path)


if __name__ == "__main__":
    main()
