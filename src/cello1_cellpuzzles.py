"""Let verifiers find our taskset by a name without dots: `vf-eval cello1-cellpuzzles`."""

from cello1.interop.verifiers import CellPuzzles, OneAnswer

__all__ = ["CellPuzzles", "OneAnswer"]
