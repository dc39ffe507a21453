"""The atlas: gene frequencies and markers of cell types from public tables."""

from cello1.atlas.atlas import Atlas, Knowledge, Weights
from cello1.atlas.source import Column, Source

__all__ = ["Atlas", "Column", "Knowledge", "Source", "Weights"]
