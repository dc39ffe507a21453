"""What cells of a SOMA experiment and millions of puzzles cost: rates, memory, and where time goes.

    python benchmarks/scale.py FOLDER [--cells 20000 200000 1000000] [--per-type 10]
    python benchmarks/scale.py FOLDER --puzzles 2000000

Synthetic experiments of the Census's shape are made in FOLDER once (20,000 genes, some 250 listed
per cell, data sets of 20,000 cells, 12 types). For each size, in a process of its own:

- `alone`: tiledbsoma yields the drawn rows in the same blocks, and nothing else is done: the limit;
- `read`: they are written as extracts and their genes ranked: all that comes before drawing;
- `build`: the puzzles are drawn, split, audited and written, by 1 and by 2 workers.

Printed: cells looked through, cells drawn, seconds, cells/s, `read` / `alone`, puzzles/s of all
that comes after reading the SOMA, peak memory, and the shares of the time of one worker.

With `--puzzles`, synthetic puzzles (3 to 5 cells of 8 genes, 20 of each donor, 20,000 in a file)
are made once, then split and audited as `build` does, and audited again as `audit` does, by 1 and
by 2 workers. Printed: seconds of each step, CPU seconds of all processes (on a busy machine, those
count), peak memory of the process and of a worker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

    from cello1.cells.symbols import human_genes

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
        names = sorted(human_genes())[:GENES]  # a build refuses names of which it knows none
        ids_of = [f"ENSG{i:011d}" for i in numbers]
        features = {"soma_joinid": numbers, "feature_id": ids_of, "feature_name": names}
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


def measure(stage: str, path: Path, per_type: int, work: Path, workers: int) -> dict:
    """Run one stage in this process; return its seconds, cells and peak memory."""
    from cello1.cells import census
    from cello1.cells.genes import index_symbols
    from cello1.cells.h5ad.matrix import row_chunks
    from cello1.cells.h5ad.read import open_source
    from cello1.cells.rank import rank_chunks
    from cello1.recipes.census import CensusSettings

    source, settings = f"census:{path}", CensusSettings(per_type=per_type)
    started = time.perf_counter()
    found = census.look_up(source, settings, 0)
    looked = time.perf_counter() - started
    drawn = sum(len(data.drawn) for data in found)
    puzzles, shares = 0, {}
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
            extracted = time.perf_counter() - started
            shares, puzzles = _build(files, work / "puzzles", workers)
            shares["SOMA"] = extracted
    seconds = time.perf_counter() - started
    return {
        "cells": sum(data.cells for data in found),
        "drawn": drawn,
        "look up": looked,
        "seconds": seconds,
        "MB": _peak(resource.RUSAGE_SELF),
        "puzzles": puzzles,
        "shares": shares,
    }


def _peak(whose: int) -> float:
    return resource.getrusage(whose).ru_maxrss / 1024


def _build(files: list[Path], out: Path, workers: int) -> tuple[dict[str, float], int]:
    """Build puzzles; return the seconds of each step where one worker does them all."""
    from cello1.cells import build, jobs, make
    from cello1.recipes import BuildSettings

    spent: dict[str, float] = {}

    def timed(room: Any, name: str) -> None:
        work = getattr(room, name)

        def call(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **more)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

        setattr(room, name, call)

    rows = make.row_chunks

    def chunks(*args: Any, **more: Any) -> Iterator[Any]:
        came = rows(*args, **more)
        while True:
            began = time.perf_counter()
            chunk = next(came, None)
            spent["reading"] = spent.get("reading", 0.0) + time.perf_counter() - began
            if chunk is None:
                return
            yield chunk

    make.row_chunks = chunks
    timed(make, "_rank_all")
    timed(jobs, "make_puzzles")
    timed(jobs, "write_puzzles")
    timed(build, "audit")
    timed(build, "deal_stored")
    began = time.perf_counter()
    made = build.build(files, out, BuildSettings(n_min=4, per_n=40), workers=workers)
    spent["build"] = time.perf_counter() - began
    if workers == 1 and "deal_stored" in spent:
        spent["ranking"] = spent.pop("_rank_all") - spent["reading"]
        spent["drawing"] = spent.pop("make_puzzles") - spent["ranking"] - spent["reading"]
        spent["writing"] = spent.pop("write_puzzles")
        spent["splitting"] = spent.pop("deal_stored") - spent["audit"]
    return spent, sum(made.audit.sizes.values())


def make_parts(folder: Path, puzzles: int) -> list[Path]:
    """Write synthetic puzzles as `build` keeps those of each file, where they are not there yet."""
    import pyarrow as pa

    from cello1.puzzles.table import SCHEMA, TableWriter, puzzle_from_row
    from cello1.runs import replacing

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, puzzles, PER_SET):
        name = f"set{start // PER_SET:04d}"
        paths.append(folder / f"{name}.parquet")
        if paths[-1].exists():
            continue
        rng = np.random.default_rng(start)
        rows = [_row(name, i, rng) for i in range(min(PER_SET, puzzles - start))]
        puzzle_from_row(rows[0])  # refuses an id that does not fit
        with replacing(paths[-1]) as part, TableWriter(part) as writer:
            writer.write(pa.Table.from_pylist(rows, schema=SCHEMA))
        print(f"making {name} of {puzzles // PER_SET}", file=sys.stderr)
    return paths


def _row(name: str, i: int, rng: np.random.Generator) -> dict[str, Any]:
    """Make a row as `build` writes it, without the checks that cost most of its time."""
    n = 3 + i % 3
    kinds = [TYPES[(i + j * 5) % len(TYPES)] for j in range(n)]
    cells = [[f"GENE{gene}" for gene in genes] for genes in rng.integers(0, GENES, (n, 8)).tolist()]
    context, donor = "Cells of the blood of an adult.", f"{name} donor {i // 20}"
    meta = {
        "cell_ids": [f"{name}-{i}-{j}" for j in range(n)], "dataset": name, "disease": "normal",
        "donor_id": donor, "prompt_version": "1", "tissue": "blood",
    }  # fmt: skip
    listed = "\n".join(f"Cell {j}: {', '.join(genes)}" for j, genes in enumerate(cells, 1))
    asked = "Match the cells above to one of the following cell types:"
    question = json.dumps([context, cells, kinds], ensure_ascii=False)
    return {
        "user_msg": f"Context: {context}\n\n{listed}\n\n{asked}\n" + "\n".join(kinds),
        "assistant_msg": " | ".join(kinds[::-1]),
        "id": hashlib.sha256(question.encode()).hexdigest()[:16],
        "dataset": name, "donor_id": donor, "tissue": "blood", "disease": "normal",
        "n_cells": n, "meta": json.dumps(meta),
    }  # fmt: skip


def deal(folder: Path, parts: list[Path], workers: int) -> dict[str, float]:
    """Split and audit puzzles as a build does; return the seconds of each step."""
    from cello1.cells.build import deal_stored
    from cello1.puzzles.table import Stored
    from cello1.recipes import BuildSettings

    marks: dict[str, float] = {}
    (folder / ".parts").mkdir(parents=True)
    began = time.perf_counter()
    found, _ = deal_stored(
        folder,
        [Stored(path) for path in parts],
        BuildSettings(),
        workers,
        lambda what, share: marks.update({what: time.perf_counter()}),
    )
    assert found.passed
    return {
        "puzzles": sum(found.sizes.values()),
        "splitting": marks["splitting"] - began,
        "auditing": time.perf_counter() - marks["splitting"],
    }


def check(folder: Path, workers: int) -> dict[str, float]:
    """Audit a folder of splits as `cello1 audit` does."""
    from cello1.cells.audit import audit
    from cello1.puzzles.source import find_splits
    from cello1.puzzles.table import Stored

    began = time.perf_counter()
    found = audit({name: Stored(path) for name, path in find_splits(folder).items()}, workers)
    assert found.passed
    return {"puzzles": sum(found.sizes.values()), "auditing": time.perf_counter() - began}


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


def run_stage(args: argparse.Namespace) -> dict:
    """Do one stage in this process."""
    with tempfile.TemporaryDirectory(dir=args.folder.parent) as work:
        if args.stage in ("deal", "check"):
            parts = sorted(args.folder.glob("*.parquet"))
            split = args.folder.with_name(f"{args.folder.name}-split")
            if args.stage == "deal":
                shutil.rmtree(split, ignore_errors=True)
                row = deal(split, parts, args.workers)
            else:
                row = check(split, args.workers)
            own, worker = _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)
            return {**row, "CPU": sum(os.times()[:4]), "MB": own, "MB of a worker": worker}
        return measure(args.stage, args.folder, args.per_type[0], Path(work), args.workers)


def in_process(path: Path, stage: str, workers: int = 1, per_type: int = 10) -> dict:
    """Do one stage in a process of its own."""
    call = [sys.executable, __file__, str(path), "--per-type", str(per_type), "--stage", stage]
    said = subprocess.check_output([*call, "--workers", str(workers)], text=True)
    row: dict = json.loads(said.splitlines()[-1])
    return row


def main() -> None:
    """Measure every size, each stage in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parser.add_argument("--per-type", type=int, nargs="+", default=[10, 1_000_000])
    parser.add_argument("--puzzles", type=int)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", nargs="+", default=["deal", "check"])
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        args.workers = args.workers[0]
        print(json.dumps(run_stage(args)))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.puzzles:
        path = args.folder / f"puzzles-{args.puzzles}"
        make_parts(path, args.puzzles)
        print("step   workers  puzzles     splitting  auditing  CPU s   MB     MB of a worker")
        for workers in args.workers:
            for stage in args.steps:
                row = in_process(path, stage, workers)
                print(
                    f"{stage:<6} {workers:<8} {row['puzzles']:<11,} "
                    f"{row.get('splitting', 0):<10.1f} {row['auditing']:<9.1f} {row['CPU']:<7.1f} "
                    f"{row['MB']:<6,.0f} "
                    f"{row['MB of a worker']:,.0f}",
                    flush=True,
                )
        return
    print(
        "cells      per type  drawn      look up  stage    seconds  cells/s  / alone  puzzles/s  MB"
    )
    for cells in args.cells:
        path = args.folder / f"soma-{cells}"
        if not path.exists():
            make(path, cells)
        for per_type in args.per_type:
            limit = None
            stages = [("alone", 1), ("read", 1), *(("build", n) for n in args.workers)]
            for stage, workers in stages:
                row = in_process(path, stage, workers, per_type)
                rate = row["drawn"] / row["seconds"]
                limit = limit or rate
                name = stage if stage != "build" else f"build {workers}"
                after = row["puzzles"] / row["shares"]["build"] if row["puzzles"] else 0.0
                print(
                    f"{row['cells']:<10,} {per_type:<9,} {row['drawn']:<10,} "
                    f"{row['look up']:<8.1f} {name:<8} {row['seconds']:<8.1f} {rate:<8,.0f} "
                    f"{rate / limit:<8.2f} {after:<10.0f} {row['MB']:,.0f}",
                    flush=True,
                )
                if stage == "build" and workers == 1:
                    spent = {n: s for n, s in row["shares"].items() if n != "build"}
                    whole = sum(spent.values())
                    told = (f"{name} {100 * s / whole:.0f} %" for name, s in spent.items())
                    print(f"{'':11}{', '.join(told)} of {whole:.1f} s; {row['puzzles']:,} puzzles")


if __name__ == "__main__":
    main()
