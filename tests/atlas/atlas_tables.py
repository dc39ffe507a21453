"""Small tables of mean profiles."""

from pathlib import Path

import pandas as pd

from cello1.atlas.genes import is_known

# Genes that only one type expresses, and housekeeping genes that all do.
OWN = {
    "B cell": ("CD79A", "MS4A1", "CD79B", "BANK1", "TCL1A"),
    "T cell": ("CD3D", "CD3E", "IL7R", "LTB", "TRAC"),
    "hepatocyte": ("ALB", "APOA1", "TTR", "APOB", "FGB"),
    "pancreatic D cell": ("SST", "RBP4", "PCSK1", "HHEX", "LEPR"),
}
# Genes that no type expresses much, so that not every gene gets into a list.
SELDOM = tuple(g for g in (f"ZNF{i}" for i in range(100, 900)) if is_known(g))[:150]
USUAL = ("MALAT1", "RPL10", "B2M", "FTL", "VIM", "CD74")


def profiles(path: Path, types: tuple[str, ...] = tuple(OWN), **changes: list[float]) -> Path:
    """Write mean profiles of some types; `changes` replaces columns."""
    genes = [*USUAL, *(gene for own in OWN.values() for gene in own), *SELDOM]
    table = pd.DataFrame({"gene": genes})
    for name in types:
        table[name] = [20.0 if g in USUAL else 30.0 if g in OWN[name] else 0.2 for g in genes]
    for name, values in changes.items():
        table[name.replace("_", " ")] = values
    table.to_csv(path, index=False)
    return path
