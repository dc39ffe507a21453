"""Columns of obs as categories, and the values that the cells of a group share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.cells.h5ad.columns import Table

Mask = npt.NDArray[np.bool_]

UNNAMED = frozenset(
    ("", "unknown", "pooled", "na", "n/a", "nan", "none", "null", "unassigned", "not available")
)


@dataclass(frozen=True)
class Columns:
    """Columns of obs as categories, and the values that cells of a group share."""

    columns: Mapping[str, pd.Categorical] = field(repr=False)

    def values(self, name: str, members: npt.NDArray[np.intp]) -> list[str]:
        """Return the different values that `members` have in a column, sorted."""
        column = self.columns.get(name)
        if column is None:
            return []
        codes = np.unique(column.codes[members])
        return sorted(str(column.categories[c]).strip() for c in codes[codes >= 0])

    def constant(self, name: str, members: npt.NDArray[np.intp]) -> str | None:
        """Return the value that `members` share in a column, or None if they differ."""
        column = self.columns.get(name)
        if column is None or np.any(column.codes[members] < 0):
            return None
        values = self.values(name, members)
        return values[0] if len(values) == 1 and not is_unnamed(values[0]) else None


def is_unnamed(value: str) -> bool:
    """Return whether a value stands for unknown."""
    return value.strip().casefold() in UNNAMED


def categorical(obs: Table, name: str) -> pd.Categorical:
    """Read a column as categories that are strings."""
    return as_categories(obs.column(name))


def as_categories(values: Any) -> pd.Categorical:
    """Convert the values of a column to categories that are strings."""
    if not isinstance(values, pd.Categorical):
        values = pd.Categorical(pd.Series(values).astype(object))
    named: pd.Categorical = values.rename_categories({c: _plain(c) for c in values.categories})
    return named


def _plain(value: object) -> str:
    """Write a category; whole numbers that a missing value turned into floats lose the `.0`."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def are_equal(values: pd.Categorical, text: str) -> Mask:
    """Return which cells have a value, ignoring case."""
    hit: Mask = np.array([str(c).strip().casefold() == text for c in values.categories] + [False])
    return np.asarray(hit[values.codes])


def are_unnamed(values: pd.Categorical) -> Mask:
    """Return which cells have an unknown value."""
    hit: Mask = np.array([is_unnamed(str(c)) for c in values.categories] + [True])
    return np.asarray(hit[values.codes])
