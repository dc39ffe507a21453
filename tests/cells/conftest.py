"""Small files of cells, shaped like those of CELLxGENE, and puzzles without any file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cello1.cells.h5ad.read import open_source
from cello1.cells.h5ad.write import with_plain_tables
from cello1.cells.obs import Cells, read_obs
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings

# Real labels of the Cell Ontology, none an ancestor of another.
TYPES = {
    "B cell": "CL:0000236",
    "CD4-positive, alpha-beta T cell": "CL:0000624",
    "CD8-positive, alpha-beta T cell": "CL:0000625",
    "natural killer cell": "CL:0000623",
    "classical monocyte": "CL:0000860",
    "non-classical monocyte": "CL:0000875",
    "conventional dendritic cell": "CL:0000990",
    "plasmacytoid dendritic cell": "CL:0000784",
    "megakaryocyte": "CL:0000556",
    "erythrocyte": "CL:0000232",
    "mast cell": "CL:0000097",
    "neutrophil": "CL:0000775",
    "hepatocyte": "CL:0000182",
    "fibroblast": "CL:0000057",
    "endothelial cell": "CL:0000115",
    "pancreatic A cell": "CL:0000171",
}
OBS = {
    "tissue": "blood",
    "tissue_type": "tissue",
    "disease": "normal",
    "sex": "female",
    "development_stage": "35-year-old stage",
    "self_reported_ethnicity": "European",
    "suspension_type": "cell",
    "is_primary_data": True,
}

MakeCells = Callable[..., ad.AnnData]
Save = Callable[..., Path]


def _make_cells(
    donors: int = 4, types: int = 9, cells: int = 3, genes: int = 200, seed: int = 0, **obs: Any
) -> ad.AnnData:
    """`donors` x `types` x `cells` cells with raw counts; `obs` are further constant columns."""
    rng = np.random.default_rng(seed)
    names = list(TYPES)[:types]
    table = pd.DataFrame(
        [
            {"donor_id": f"D{d}", "cell_type": name, "cell_type_ontology_term_id": TYPES[name]}
            for d in range(donors)
            for name in names
            for _ in range(cells)
        ]
    )
    table.index = [f"cell{seed}-{i}" for i in range(len(table))]
    for column, value in (OBS | obs).items():
        table[column] = value
    profiles = rng.lognormal(1, 1.5, (types, genes))
    counts = rng.poisson(profiles[[names.index(t) for t in table.cell_type]]) + 0.0
    symbols = [f"ZNF{i}" for i in range(genes)]
    var = pd.DataFrame({"feature_name": symbols}, index=[f"ENSG{i:011d}" for i in range(genes)])
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), table, var, {"organism": "Homo sapiens"}
    )


@pytest.fixture(scope="session")
def make_cells() -> MakeCells:
    return _make_cells


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an AnnData as an .h5ad file of the given name; return its path."""

    def write(adata: ad.AnnData, name: str = "good") -> Path:
        path = tmp_path / f"{name}.h5ad"
        # What tests then spoil is where it was in all versions of anndata.
        with_plain_tables(adata).write_h5ad(path)
        return path

    return write


@pytest.fixture
def small() -> Callable[..., BuildSettings]:
    """Settings for small files: few cells to a puzzle, few puzzles."""

    def settings(**changes: Any) -> BuildSettings:
        return BuildSettings(**{"n_min": 4, "n_max": 6, "per_n": 6, **changes})

    return settings


@pytest.fixture
def make_puzzle() -> Callable[..., Puzzle]:
    """Puzzles of n cells, each with genes of its own, of any donor and any other metadata."""
    made = 0

    def make(donor: str | None = "d1", n: int = 3, **meta: Any) -> Puzzle:
        nonlocal made
        made += 1
        types = tuple(list(TYPES)[:n])
        own = {
            "dataset": "file",
            "donor_id": donor,
            "tissue": "blood",
            "disease": "normal",
            "cell_ids": [f"{made}-{i}" for i in range(n)],
        }
        return Puzzle(
            context="A donor.",
            cells=tuple((f"G{made}", f"H{i}", "ACTB") for i in range(n)),
            candidates=types,
            answer=types,
            meta={**own, **meta},
        )

    return make


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Read every byte that a build promises to be the same."""
    names = ["train.parquet", "validation.parquet", "test.parquet", "build.json", "audit.json"]
    return lambda folder: {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def crowd(make_puzzle: Callable[..., Puzzle]) -> Callable[..., list[Puzzle]]:
    """Puzzles of many donors in 5 places; a donor meets both tissues, diseases, files of one."""

    def make(n_donors: int, seed: int = 0) -> list[Puzzle]:
        rng = random.Random(seed)
        puzzles = [
            make_puzzle(
                f"d{d}",
                n=rng.randint(3, 6),
                **{f: f"{f}{d % 5}{rng.choice('ab')}" for f in ("dataset", "tissue", "disease")},
            )
            for d in range(n_donors)
            for _ in range(rng.randint(4, 16))
        ]
        rng.shuffle(puzzles)
        return puzzles

    return make


@pytest.fixture
def read(save: Save, small: Callable[..., BuildSettings]) -> Callable[..., Cells]:
    """Observations of an AnnData, read from a file under some settings."""

    def cells(adata: ad.AnnData, **settings: Any) -> Cells:
        with open_source(save(adata)) as source:
            return read_obs(source, small(**settings), ())

    return cells
