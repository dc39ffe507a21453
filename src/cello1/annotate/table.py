"""What an annotation leaves in an AnnData, and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cello1.annotate.calibrate import Fit
from cello1.annotate.candidates import NONE, UNKNOWN
from cello1.annotate.plan import Plan
from cello1.annotate.pool import Verdicts, Votes
from cello1.errors import InputError
from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.runs import file_hash
from cello1.scoring.ontology import term_id
from cello1.solvers.base import Solver

_DIGITS = 6


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    Attributes
    ----------
    votes, verdicts
        Of the clusters.
    cells
        Positions of the cells that were labelled themselves, and their verdicts; or None.
    """

    votes: Votes
    verdicts: Verdicts
    cells: tuple[npt.NDArray[np.intp], Verdicts] | None


def labels_of(plan: Plan, verdicts: Verdicts, none: npt.NDArray[np.bool_]) -> list[str]:
    """Return the label of each unit: a candidate, ``none of these`` or ``unknown``."""
    sure = verdicts.probabilities[np.arange(len(none)), verdicts.best]
    return [
        NONE if nothing else UNKNOWN if p < plan.settings.min_confidence else plan.candidates[j]
        for j, p, nothing in zip(verdicts.best.tolist(), sure.tolist(), none.tolist(), strict=True)
    ]


def write_obs(adata: Any, plan: Plan, outcome: Outcome, key: str) -> None:
    """Write label, ontology id and confidence of every cell."""
    clusters, verdicts = plan.clusters, outcome.verdicts
    met = outcome.votes.counts > 0
    given = labels_of(plan, verdicts, verdicts.none)
    # Cells without a cluster, and clusters that no batch holds, come last.
    names = np.array([g if m else UNKNOWN for g, m in zip(given, met, strict=True)] + [UNKNOWN])
    sure = verdicts.probabilities[np.arange(len(given)), verdicts.best]
    levels = np.append(np.where(met, sure, np.nan), np.nan)
    label, confidence = names[clusters.codes].astype(object), levels[clusters.codes]
    if outcome.cells is not None:
        cells, own = outcome.cells
        nothing = own.none | verdicts.none[clusters.codes[cells]]
        label[:], confidence[:] = UNKNOWN, np.nan
        label[cells] = labels_of(plan, own, nothing)
        confidence[cells] = own.probabilities[np.arange(len(cells)), own.best]
    shown = [name for name in (*plan.candidates, NONE, UNKNOWN) if name in set(label)]
    terms = {name: term_id(name) or UNKNOWN for name in plan.candidates}
    ids = [terms.get(name, UNKNOWN) for name in label]
    adata.obs[key] = pd.Categorical(label, categories=shown)
    adata.obs[f"{key}_ontology_term_id"] = pd.Categorical(ids)
    adata.obs[f"{key}_confidence"] = np.asarray(confidence, dtype=np.float64)
    if clusters.computed:
        values = np.array([*clusters.names, None], dtype=object)[clusters.codes]
        adata.obs[clusters.key] = pd.Categorical(values, categories=clusters.names)


def write_uns(
    adata: Any,
    plan: Plan,
    outcome: Outcome,
    solver: Solver,
    learned: Mapping[str, str],
    fitted: Fit,
    key: str,
    said: Mapping[int, Mapping[str, Any]],
) -> None:
    """Write how it was made and a table of the clusters; nested values are JSON text.

    `learned` are the hashes of what the solver learned from; `said` holds evidence and reason of
    each cluster.
    """
    verdicts, votes = outcome.verdicts, outcome.votes
    given = labels_of(plan, verdicts, verdicts.none)
    sizes = np.bincount(plan.clusters.codes[plan.clusters.codes >= 0], minlength=len(given))
    rows = []
    for k, name in enumerate(plan.clusters.names):
        best, second = int(verdicts.best[k]), int(verdicts.second[k])
        row: dict[str, Any] = {"cluster": name, "cells": int(sizes[k])}
        if votes.counts[k]:
            label = given[k]
            row |= {
                "label": label,
                "ontology_term_id": term_id(label) if label not in (NONE, UNKNOWN) else None,
                "confidence": round(float(verdicts.probabilities[k, best]), _DIGITS),
                "best": plan.candidates[best],
                "runner_up": plan.candidates[second],
                "runner_up_probability": round(float(verdicts.probabilities[k, second]), _DIGITS),
                "votes": int(votes.chosen[k, best]),
                "batches": int(votes.counts[k]),
                "unread": int(votes.unread[k]),
                **said.get(k, {}),
            }
        else:
            row |= {"label": UNKNOWN, "reason": "shares no donor with another cluster"}
        rows.append(row)
    settings = plan.settings.model_dump()
    adata.uns[key] = {
        "cello1_version": metadata.version("cello1"),
        "prompt_version": PROMPT_VERSION,
        "groupby": plan.clusters.key,
        "solver": solver.name,
        "solver_settings": _json(solver.settings),
        "solver_hash": fingerprint(solver, learned),
        "learned_from": _json(learned),
        "params": _json(settings | {"size": max(len(b.clusters) for b in plan.batches)}),
        "values": f"{plan.expression.name} ({plan.expression.values})",
        "candidates": _json(plan.candidates),
        "contexts": _json(plan.contexts),
        "batches": len(plan.batches),
        "calibration": _json(asdict(fitted)),
        "clusters": _json(rows),
        "probabilities": _json(verdicts.probabilities.round(_DIGITS).tolist()),
    }


def read_uns(adata: Any, key: str = "cello1") -> dict[str, Any]:
    """Return what :func:`write_uns` wrote, with its JSON read.

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
    nested = (
        "solver_settings", "learned_from", "params", "candidates", "contexts", "calibration",
        "clusters", "probabilities",
    )  # fmt: skip
    return {k: json.loads(v) if k in nested else v for k, v in stored.items()}


def fingerprint(solver: Solver, learned: Mapping[str, str]) -> str:
    """Hash what answers depend on: settings, what was learned from, and a local model's files."""
    name = str(solver.settings.get("solver", ""))
    folder = Path(name.removeprefix("hf:"))
    files = sorted(folder.glob("*")) if name.startswith("hf:") and folder.is_dir() else []
    model = {path.name: file_hash(path) for path in files if path.is_file()}
    text = _json([solver.settings, learned, model])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
