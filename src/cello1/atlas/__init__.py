"""The atlas: what public tables know about which genes the cells of a type list."""

from cello1.atlas.atlas import Atlas, Knowledge, Weights
from cello1.atlas.source import Column, Source

__all__ = ["Atlas", "Column", "Knowledge", "Source", "Weights"]
