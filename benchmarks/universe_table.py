"""Write the table that notes of measured genes refer to (:mod:`cello1.puzzles.universe`).

Run ``python benchmarks/universe_table.py OUT.tsv.gz``. Takes the genes that a tenth of the cells of
some column of the embedded atlas list, by current symbol, with every older name that means them
alone. Puzzles in the world refer to a table, so it is written once: another one gets the next
number.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from cello1.atlas import Atlas
from cello1.atlas.genes import SYMBOLS

LEAST = 0.1


def main() -> None:
    """Choose, add older names, write."""
    listed = {
        gene
        for source in Atlas.read().sources
        if source.is_table
        for gene, share in zip(source.genes, source.values.max(axis=0).toarray(), strict=True)
        if share >= LEAST
    }
    names: dict[str, list[str]] = {gene: [] for gene in listed}
    with gzip.open(SYMBOLS, "rt", encoding="utf-8") as lines:
        for line in lines:
            older, current = line.rstrip("\n").split("\t")
            if current in names and older != current:
                names[current].append(older)
    text = "".join("\t".join([gene, *sorted(names[gene])]) + "\n" for gene in sorted(names))
    with Path(sys.argv[1]).open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode())


if __name__ == "__main__":
    main()
