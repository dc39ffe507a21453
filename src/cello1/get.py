"""What an annotation left in an AnnData, as tables: `co.get.annotation`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cello1.annotate.table import read_uns

__all__ = ["annotation", "probabilities"]


def annotation(adata: Any, key: str = "cello1") -> pd.DataFrame:
    """Return the table of the clusters.

    Parameters
    ----------
    adata
        Annotated by :func:`cello1.tl.annotate`.
    key
        Its `key_added`.

    Returns
    -------
    DataFrame
        One row per cluster: cells, label, ontology_term_id, confidence, best candidate, runner_up
        and its probability, votes of batches, evidence and reason.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    return pd.DataFrame(read_uns(adata, key)["clusters"]).set_index("cluster")


def probabilities(adata: Any, key: str = "cello1") -> pd.DataFrame:
    """Return the probability of every candidate for every cluster, clusters x candidates."""
    found = read_uns(adata, key)
    names = [row["cluster"] for row in found["clusters"]]
    return pd.DataFrame(found["probabilities"], index=names, columns=found["candidates"])
