"""Write the table of human genes that comes with the package.

    python benchmarks/known_genes.py [--data ../shared/data/genes]

Reads `human_genes.csv.gz` (GENCODE's ids and symbols, by way of CZI's single-cell-curation) and
`hgnc_aliases.tsv.gz` (previous symbols, HGNC); writes `src/cello1/cells/human_genes.tsv.gz`: one
line for each symbol with its Ensembl id, and previous symbols without one. The bytes depend on
the sources alone.
"""

import argparse
import gzip
from pathlib import Path

import pandas as pd

OUT = Path(__file__).parents[1] / "src" / "cello1" / "cells" / "human_genes.tsv.gz"


def main() -> None:
    """Write the table and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/genes"))
    data = parser.parse_args().data
    genes = pd.read_csv(data / "human_genes.csv.gz", dtype=str)
    named = genes[genes["symbol"] != genes["ensembl_id"]].drop_duplicates("ensembl_id")
    named = named.sort_values(["symbol", "ensembl_id"])
    lines = [f"{s}\t{i.removeprefix('ENSG').lstrip('0')}" for i, s in named.to_numpy().tolist()]
    aliases = pd.read_csv(data / "hgnc_aliases.tsv.gz", sep="\t", dtype=str)
    previous = {p for text in aliases["prev_symbol"].dropna() for p in text.split("|")}
    lines += sorted(previous - set(named["symbol"]))
    with OUT.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("\n".join(lines).encode())
    print(f"{len(named):,} genes, {len(lines):,} symbols, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
