"""The two rewards of the paper (arXiv 2506.02911), as floats.

``batch`` is the paper's main reward. ``cell_batch`` is its ablation D and the default of the
published code: denser, and in the paper no better on the test set.
"""

from __future__ import annotations

from cello1.scoring.score import Score


def batch(score: Score) -> float:
    """Return -1 for an invalid format, 1 when every cell is right, else 0."""
    return score.reward


def cell_batch(score: Score) -> float:
    """Return the mean of cell accuracy and exactness, in [0, 1].

    An invalid format, a wrong number of labels (an empty slot included) or a repeated label
    gives -1.
    """
    if not score.format_valid or not score.complete or score.uniqueness < 1.0:
        return -1.0
    return (score.cell_accuracy + score.exact) / 2
