"""Store an annotation in the fields of an AnnData, and read it back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.annotate.calibrate import Fit
from cello1.annotate.candidates import NONE, UNKNOWN
from cello1.annotate.clusters import Clusters
from cello1.annotate.levels import Level
from cello1.errors import InputError
from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.runs import file_hash
from cello1.scoring.ontology import term_id
from cello1.solvers.base import Floats, Solver

_DIGITS = 6
_NESTED = (
    "solver_settings", "learned_from", "params", "candidates", "contexts", "calibration",
    "clusters", "probabilities", "notes", "dots",
)  # fmt: skip


@dataclass(frozen=True)
class PerCell:
    """Labels of single cells, shape (cells,).

    Attributes
    ----------
    names
        All labels in use.
    label, coarse, fine
        Positions in `names`.
    confidence
        Probability of the label.
    """

    names: list[str]
    label: npt.NDArray[np.intp]
    coarse: npt.NDArray[np.intp]
    fine: npt.NDArray[np.intp]
    confidence: Floats


@dataclass(frozen=True)
class Annotation:
    """The annotation of a data set.

    Attributes
    ----------
    key
        Name of the result in obs and uns.
    clusters
        The clusters.
    candidates
        The types on offer.
    levels
        The label of each cluster.
    probabilities
        Probability of every candidate for every cluster.
    rows
        The table of the clusters, as JSON values.
    uns
        Content of uns[key].
    cells
        Labels of single cells, if requested.
    notes
        What was decided, guessed or not known, as sentences.
    """

    key: str
    clusters: Clusters
    candidates: list[str]
    levels: list[Level]
    probabilities: Floats = field(repr=False)
    rows: list[dict[str, Any]] = field(repr=False)
    uns: dict[str, Any] = field(repr=False)
    cells: PerCell | None = field(repr=False, default=None)
    notes: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        """Return the new columns of obs: categories, and one of floats."""
        key = self.key
        if self.cells is None:
            # Cells without a cluster come last.
            codes = self.clusters.codes
            of = [*self.levels, _NOTHING]
            label = [level.label for level in of]
            coarse = [level.coarse if level.level != "none" else NONE for level in of]
            fine = [level.fine if level.level != "none" else NONE for level in of]
            sure = np.array([level.confidence for level in of], dtype=np.float64)[codes]
            parts = [_categories(names, codes, self.candidates) for names in (label, coarse, fine)]
        else:
            names, sure = self.cells.names, self.cells.confidence
            parts = [
                _categories(names, codes, self.candidates)
                for codes in (self.cells.label, self.cells.coarse, self.cells.fine)
            ]
        ids = {name: term_id(name) or UNKNOWN for name in parts[0].categories}
        terms = sorted(set(ids.values()))
        place = np.array([terms.index(ids[name]) for name in parts[0].categories], dtype=np.intp)
        found: dict[str, Any] = {
            key: parts[0],
            f"{key}_ontology_term_id": _from_codes(place[parts[0].codes], terms),
            f"{key}_confidence": np.asarray(sure, dtype=np.float64),
            f"{key}_coarse": parts[1],
            f"{key}_fine": parts[2],
        }
        if self.clusters.computed:
            found[self.clusters.key] = _from_codes(self.clusters.codes, self.clusters.names)
        return found

    def write_to(self, adata: Any) -> None:
        """Write everything into an AnnData; nothing else in it is changed."""
        for name, values in self.columns().items():
            adata.obs[name] = values
        adata.uns[self.key] = self.uns


_NOTHING = Level(
    UNKNOWN, float("nan"), UNKNOWN, float("nan"), UNKNOWN, float("nan"), "", 0.0, "unknown"
)


def _categories(
    names: Sequence[str], codes: npt.NDArray[np.intp], candidates: Sequence[str]
) -> Any:
    """Return one category per name in use: candidates in their order, then all others."""
    used = {names[c] for c in np.unique(codes).tolist()}
    order = dict.fromkeys([*candidates, *sorted(used - {NONE, UNKNOWN}), NONE, UNKNOWN])
    shown = [name for name in order if name in used]
    place = {name: i for i, name in enumerate(shown)}
    at = np.array([place.get(name, 0) for name in names], dtype=np.intp)
    return _from_codes(at[codes], shown)


def _from_codes(codes: npt.NDArray[np.intp], names: Sequence[str]) -> Any:
    return pd.Categorical.from_codes(codes, pd.Index(list(names), dtype=object))


def row_of(
    name: str, cells: int, donors: int, level: Level, said: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one row of the cluster table."""
    is_type = level.level in ("type", "ancestor")
    return {
        "cluster": name,
        "cells": cells,
        "donors": donors,
        "label": level.label,
        "ontology_term_id": term_id(level.label) if is_type else None,
        "confidence": round(level.confidence, _DIGITS),
        "level": level.level,
        "coarse": level.coarse,
        "coarse_confidence": round(level.coarse_confidence, _DIGITS),
        "best": level.fine,
        "best_probability": round(level.fine_confidence, _DIGITS),
        "runner_up": level.runner_up,
        "runner_up_probability": round(level.runner_up_probability, _DIGITS),
        **said,
    }


def make_uns(
    *,
    clusters: Clusters,
    candidates: Sequence[str],
    solver: str,
    solver_settings: Mapping[str, Any],
    solver_hash: str,
    learned: Mapping[str, str],
    params: Mapping[str, Any],
    values: str,
    contexts: Sequence[str],
    batches: int,
    fitted: Fit,
    rows: Sequence[Mapping[str, Any]],
    probabilities: Floats,
    notes: Sequence[str],
    dots: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings and the table of clusters of an annotation; nested values as JSON."""
    return {
        "cello1_version": metadata.version("cello1"),
        "prompt_version": solver_settings.get("prompt", PROMPT_VERSION),
        "groupby": clusters.key,
        "solver": solver,
        "solver_settings": _json(solver_settings),
        "solver_hash": solver_hash,
        "learned_from": _json(learned),
        "params": _json(params),
        "values": values,
        "candidates": _json(list(candidates)),
        "contexts": _json(list(contexts)),
        "batches": batches,
        "calibration": _json(asdict(fitted)),
        "clusters": _json(list(rows)),
        "probabilities": _json(probabilities.round(_DIGITS).tolist()),
        "notes": _json(list(notes)),
        "dots": _json(dots),
    }


def read_uns(adata: Any, key: str = "cello1") -> dict[str, Any]:
    """Return what an annotation wrote into uns, with JSON decoded.

    Raises
    ------
    InputError
        When there is no annotation under this key.
    """
    stored = adata.uns.get(key)
    if not isinstance(stored, Mapping) or "clusters" not in stored:
        found = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and "clusters" in v]
        raise InputError(
            f"adata.uns has no annotation {key!r} (it has {', '.join(found) or 'none'}); run "
            "cello1.tl.annotate first, or name the key it was written to"
        )
    return opened(stored)


def opened(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the JSON texts of a stored annotation."""
    return {k: json.loads(v) if k in _NESTED else v for k, v in stored.items()}


def fingerprint(solver: Solver, learned: Mapping[str, str]) -> str:
    """Hash what answers depend on: settings, training files, and the files of a local model."""
    name = str(solver.settings.get("solver", ""))
    folder = Path(name.removeprefix("hf:"))
    files = sorted(folder.glob("*")) if name.startswith("hf:") and folder.is_dir() else []
    model = {path.name: file_hash(path) for path in files if path.is_file()}
    text = _json([solver.settings, learned, model])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
