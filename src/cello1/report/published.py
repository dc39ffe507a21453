"""The paper's figures, to stand beside ours: other puzzles and other cells, so never one table.

From arXiv 2506.02911, test split of CellPuzzles (n = 1,095, 8 to 15 cells, mean about 10).
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One model of the paper: mean response length in tokens, and shares."""

    model: str
    length: float
    cell: float
    batch: float
    format: float
    unique: float


PUZZLES = 1_095
PUBLISHED = (
    Published("Cell-o1", 1145.6, 0.6849, 0.3288, 0.9826, 0.9824),
    Published("Llama3.1-8B tuned on answers", 71.9, 0.6411, 0.2969, 0.9078, 0.9071),
    Published("Qwen2.5-7B tuned on answers", 70.9, 0.6179, 0.2475, 0.9443, 0.9404),
    Published("o1", 906.6, 0.6479, 0.1900, 1.0, 0.9997),
    Published("o3-mini", 1130.2, 0.5804, 0.1352, 1.0, 1.0),
    Published("GPT-4o", 1087.0, 0.4248, 0.0283, 0.9817, 0.8179),
    Published("Llama3.3-70B-Instruct", 1006.8, 0.2573, 0.0064, 0.9973, 0.8321),
    Published("GPT-4o-mini", 779.9, 0.2581, 0.0027, 0.9918, 0.6565),
    Published("Qwen2.5-7B-Instruct", 879.8, 0.1353, 0.0, 0.9425, 0.4528),
    Published("Llama3.1-8B-Instruct", 2264.9, 0.0050, 0.0, 0.0393, 0.0190),
)
