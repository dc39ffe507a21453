"""Simulated blood: clusters of real types whose markers are those of the package's table."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

TYPES = ["B cell", "natural killer cell", "classical monocyte", "platelet"]
MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B", "CD19", "BANK1"],
    "natural killer cell": ["NKG7", "GNLY", "KLRD1", "PRF1", "KLRF1"],
    "classical monocyte": ["CD14", "LYZ", "S100A8", "S100A9", "VCAN"],
    "platelet": ["PPBP", "PF4", "GP9", "TUBB1", "ITGA2B"],
}
NOISE = [f"HK{i}" for i in range(80)]
GENES = [*NOISE, *(gene for genes in MARKERS.values() for gene in genes)]


def blood(
    types: list[str] | None = None, donors: int = 2, cells: int = 12, seed: int = 0
) -> anndata.AnnData:
    """Counts in which each type shows its own five markers well above noise.

    Cluster `k` holds the cells of `types[k]`.
    """
    types, rng = TYPES if types is None else types, np.random.default_rng(seed)
    rows, obs = [], []
    for donor in range(donors):
        for k, kind in enumerate(types):
            own = np.isin(GENES, MARKERS.get(kind, []))
            rows.append(rng.poisson(np.where(own, 8.0, 2.0) * (own | (np.arange(len(GENES)) < 80)),
                                    (cells, len(GENES))))  # fmt: skip
            obs += [{"donor_id": f"D{donor}", "cluster": str(k), "cell_type": kind}] * cells
    table = pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(obs))]).astype("category")
    table["tissue"] = pd.Categorical(["blood"] * len(table))
    table["disease"] = pd.Categorical(["normal"] * len(table))
    return anndata.AnnData(
        csr_matrix(np.vstack(rows).astype(np.float32)), obs=table, var=pd.DataFrame(index=GENES)
    )
