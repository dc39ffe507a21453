"""Markers of five blood cells, and drafts said as puzzles."""

from cello1.puzzles.puzzle import Puzzle

MARKERS = {
    "B cell": ["MS4A1", "CD79A", "CD79B", "BANK1"],
    "T cell": ["CD3D", "CD3E", "TRAC", "IL7R"],
    "monocyte": ["LYZ", "CD14", "S100A8", "VCAN"],
    "platelet": ["PPBP", "PF4", "GP9", "TUBB1"],
    "natural killer cell": ["NKG7", "GNLY", "KLRD1", "PRF1"],
}
COMMON = [f"RPL{i}" for i in range(1, 31)] + [f"ACTB{i}" for i in range(30)]


def as_puzzle(practice, draft) -> Puzzle:
    """Say a draft as the puzzle it stands for."""
    cells = [[practice.genes[g] for g in cell] for cell in draft.cells]
    return Puzzle(draft.context, cells, draft.names, [draft.names[j] for j in draft.gold])
