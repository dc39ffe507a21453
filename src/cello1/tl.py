"""Tools, in scverse manner: `co.tl.annotate`."""

from cello1.annotate.run import annotate

__all__ = ["annotate"]
