"""What cells of a SOMA experiment cost: rates, memory against size, and where the time goes.

    python benchmarks/scale.py FOLDER [--cells 20000 200000 1000000] [--per-type 10]

Synthetic experiments of the Census's shape are made in FOLDER once (20,000 genes, some 250 listed
per cell, data sets of 20,000 cells, 12 types). For each size, in a process of its own:

- `alone`: tiledbsoma yields the drawn rows in the same blocks, and nothing else is done: the limit;
- `read`: they are written as extracts and their genes ranked: all that comes before drawing;
- `build`: the puzzles are drawn, split, audited and written.

Printed: cells looked through, cells drawn, seconds, cells/s, `read` / `alone`, peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GENES, LISTED, BLOCK, PER_SET, DONORS = 20_000, 300, 20_000, 20_000, 10
TYPES = (
    "B cell", "T cell", "natural killer cell", "classical monocyte", "plasma cell", "platelet",
    "plasmacytoid dendritic cell", "mast cell", "neutrophil", "erythrocyte", "endothelial cell",
    "fibroblast",
)  # fmt: skip
TEXTS = ("dataset_id", "donor_id", "cell_type", "tissue", "disease", "suspension_type", "assay")


def make(path: Path, cells: int) -> None:
    """Write a SOMA experiment of synthetic cells, block by block."""
    import pyarrow as pa
    import tiledbsoma as soma

    text, ids = pa.large_string(), ("soma_joinid", pa.int64())
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with soma.Experiment.create(part.as_uri()) as made:
        schema = pa.schema([ids, *((c, text) for c in TEXTS), ("is_primary_data", pa.bool_())])
        index = ["soma_joinid"]
        domain = [[0, cells - 1]]
        obs = made.add_new_dataframe("obs", schema=schema, index_column_names=index, domain=domain)
        rna = made.add_new_collection("ms").add_new_collection("RNA", soma.Measurement)
        named = pa.schema([ids, ("feature_id", text), ("feature_name", text)])
        var = rna.add_new_dataframe(
            "var", schema=named, index_column_names=index, domain=[[0, GENES - 1]]
        )
        numbers = np.arange(GENES)
        names = [f"GENE{i}" for i in numbers]
        features = {"soma_joinid": numbers, "feature_id": names, "feature_name": names}
        var.write(pa.table(features, schema=named))
        layers = rna.add_new_collection("X")
        x = layers.add_new_sparse_ndarray("raw", type=pa.float32(), shape=(cells, GENES))
        for start in range(0, cells, BLOCK):
            rng = np.random.default_rng(start)
            rows = np.arange(start, min(start + BLOCK, cells))
            kinds = rng.integers(0, len(TYPES), len(rows))
            columns = {
                "soma_joinid": rows,
                "dataset_id": [f"set{i:04d}" for i in rows // PER_SET],
                "donor_id": [f"donor{i}" for i in rng.integers(0, DONORS, len(rows))],
                "cell_type": [TYPES[kind] for kind in kinds],
                "is_primary_data": np.ones(len(rows), dtype=bool),
            }
            fixed = {"tissue": "blood", "disease": "normal", "suspension_type": "cell"}
            columns |= {name: [value] * len(rows) for name, value in fixed.items()}
            columns["assay"] = ["10x 3' v3"] * len(rows)
            obs.write(pa.table(columns, schema=schema))
            # Half of a cell's genes lie where its type's do, half anywhere.
            anywhere = rng.integers(0, GENES, (len(rows), LISTED))
            near = kinds[:, None] * 1_500 + rng.integers(0, 1_500, (len(rows), LISTED))
            genes = np.sort(np.where(rng.random(near.shape) < 0.5, near, anywhere), axis=1)
            new = np.ones(genes.shape, dtype=bool)
            new[:, 1:] = genes[:, 1:] != genes[:, :-1]
            places = np.stack([np.repeat(rows, new.sum(axis=1)), genes[new]], axis=1)
            counts = rng.integers(1, 50, (len(places), 1)).astype(np.float32)
            x.write(pa.SparseCOOTensor.from_numpy(counts, places, shape=(cells, GENES)))
            print(f"making {path.name}: {rows[-1] + 1:,} cells", file=sys.stderr)
    part.rename(path)


def measure(stage: str, path: Path, per_type: int, work: Path) -> dict[str, float]:
    """Run one stage in this process; return its seconds, cells and peak memory."""
    from cello1.cells import census
    from cello1.cells.genes import index_symbols
    from cello1.cells.h5ad.matrix import row_chunks
    from cello1.cells.h5ad.read import open_source
    from cello1.cells.rank import rank_chunks
    from cello1.recipes import BuildSettings
    from cello1.recipes.census import CensusSettings

    source, settings = f"census:{path}", CensusSettings(per_type=per_type)
    started = time.perf_counter()
    found = census.look_up(source, settings, 0)
    looked = time.perf_counter() - started
    drawn = sum(len(data.drawn) for data in found)
    started = time.perf_counter()
    if stage == "alone":
        _alone(path, found, census.ROWS)
    else:
        files = census.extract(source, settings, found, work / "cells", 0)
        if stage == "read":
            for file in files:
                with open_source(file) as cells:
                    keep = np.ones(cells.n_cells, dtype=bool)
                    symbols = index_symbols(cells.symbols)
                    for _ in rank_chunks(row_chunks(cells.matrix), symbols, keep, 50):
                        pass
        else:
            from cello1.cells.build import build

            build(files, work / "puzzles", BuildSettings(n_min=4, per_n=40))
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cells": sum(data.cells for data in found),
        "drawn": drawn,
        "look up": looked,
        "seconds": seconds,
        "MB": memory,
    }


def _alone(path: Path, found: list, rows: int) -> None:
    import tiledbsoma as soma

    for data in found:
        with soma.Experiment.open(path.as_uri()) as experiment:
            asked = soma.AxisQuery(coords=(data.drawn,))
            with experiment.axis_query("RNA", obs_query=asked) as query:
                blocks = query.X("raw").blockwise(
                    axis=0, size=rows, eager=False, reindex_disable_on_axis=[1]
                )
                for _ in blocks.scipy(compress=True):
                    pass


def main() -> None:
    """Measure every size, each stage in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parser.add_argument("--per-type", type=int, nargs="+", default=[10, 1_000_000])
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        with tempfile.TemporaryDirectory(dir=args.folder.parent) as work:
            print(json.dumps(measure(args.stage, args.folder, args.per_type[0], Path(work))))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    print("cells      per type  drawn      look up  stage  seconds  cells/s  / alone  MB")
    for cells in args.cells:
        path = args.folder / f"soma-{cells}"
        if not path.exists():
            make(path, cells)
        for per_type in args.per_type:
            limit = None
            for stage in ("alone", "read", "build"):
                call = [sys.executable, __file__, str(path), "--per-type", str(per_type)]
                said = subprocess.check_output([*call, "--stage", stage], text=True)
                row = json.loads(said.splitlines()[-1])
                rate = row["drawn"] / row["seconds"]
                limit = limit or rate
                print(
                    f"{row['cells']:<10,} {per_type:<9,} {row['drawn']:<10,} "
                    f"{row['look up']:<8.1f} {stage:<6} {row['seconds']:<8.1f} {rate:<8,.0f} "
                    f"{rate / limit:<8.2f} {row['MB']:,.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
