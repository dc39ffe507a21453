"""Why a cluster has its label: the genes cited for its cells, checked, and a reason in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from cello1.annotate.batches import Batch
from cello1.annotate.plan import Plan
from cello1.annotate.table import Outcome
from cello1.citations.aliases import Aliases, read_aliases
from cello1.citations.citations import Citation, citations, passage
from cello1.citations.evidence import strike, support
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import label_key
from cello1.solvers.base import Floats
from cello1.solvers.classical.markers import Markers

_SHOWN = 12
_CELL = re.compile(r"\b([Cc])ell (\d+)\b")
Records = Mapping[str, Mapping[str, Any]]


def reasons(
    plan: Plan, outcome: Outcome, records: Records, *, markers: Path | None, aliases: Path | None
) -> dict[int, dict[str, Any]]:
    """Return evidence and reason of every cluster.

    Parameters
    ----------
    plan, outcome, records
        What was asked, decided and said.
    markers, aliases
        Tables; by default those of the package.

    Returns
    -------
    dict
        Cluster -> ``supported`` genes (in the lists, and more frequent in the cluster than
        elsewhere), ``unsupported`` ones (cited, but never in a list), ``evidence`` (every gene
        with its figures), and ``reason``: what the solver wrote in the surest batch that gives
        the cluster its label, with false citations struck through.
    """
    known = read_aliases(aliases)
    table = Markers.from_file(markers)
    names = plan.expression.symbols.names
    inside, outside = expressed(plan)
    cited, surest = _read(plan, outcome, records, known)
    found: dict[int, dict[str, Any]] = {}
    for k in range(len(plan.clusters.names)):
        label = plan.candidates[int(outcome.verdicts.best[k])]
        entry = table.entry(label)
        weights = None if entry is None else {g for g, w in table.weights[entry].items() if w > 0}
        items = support(
            cited[k],
            dict(zip(names, inside[k].tolist(), strict=True)),
            dict(zip(names, outside[k].tolist(), strict=True)),
            weights,
        )
        apart = [s for s in items if s.listed and (s.inside or 0) > (s.outside or 0)]
        found[k] = {
            "supported": [s.gene for s in apart][:_SHOWN],
            "unsupported": [s.gene for s in items if not s.listed][:_SHOWN],
            "evidence": [asdict(s) for s in items[:_SHOWN]],
            "reason": surest.get(k, ""),
        }
    return found


def expressed(plan: Plan) -> tuple[Floats, Floats]:
    """Return the share of cells that express each gene, shape (clusters, symbols), twice.

    First within each cluster, then among all other cells that have a cluster. Columns that share
    a symbol count as one.
    """
    codes, symbols = plan.clusters.codes, plan.expression.symbols
    cells = np.flatnonzero(codes >= 0)
    matrix = plan.expression.matrix[cells]
    seen = csr_matrix(
        ((matrix.data > 0).astype(np.float64), matrix.indices, matrix.indptr), matrix.shape
    )
    columns = np.flatnonzero(symbols.rank >= 0)
    to_symbol = csr_matrix(
        (np.ones(len(columns)), (columns, symbols.rank[columns])),
        shape=(matrix.shape[1], len(symbols.names)),
    )
    seen = csr_matrix((seen @ to_symbol).minimum(1.0))
    k = len(plan.clusters.names)
    member = csr_matrix(
        (np.ones(len(cells)), (codes[cells], np.arange(len(cells)))), shape=(k, len(cells))
    )
    counts = np.asarray((member @ seen).todense())
    sizes = np.bincount(codes[cells], minlength=k)[:, None]
    others = np.maximum(len(cells) - sizes, 1)
    return counts / sizes, (counts.sum(axis=0) - counts) / others


def _read(
    plan: Plan, outcome: Outcome, records: Records, aliases: Aliases
) -> tuple[list[list[Citation]], dict[int, str]]:
    """Collect the citations for each cluster where it was given its label, and the best reason."""
    vocabulary = frozenset(plan.expression.symbols.names)
    labels = [label_key(plan.candidates[int(j)]) for j in outcome.verdicts.best]
    cited: list[list[Citation]] = [[] for _ in labels]
    surest: dict[int, tuple[float, str]] = {}
    for batch in plan.batches:
        record = records.get(batch.puzzle.id, {})
        said = parse_response(record.get("text", ""))
        if not isinstance(said, Answer) or len(said.labels) != len(batch.clusters):
            continue
        found = citations(batch.puzzle, said.reasoning, vocabulary, aliases, denied=True)
        for i, (cluster, label) in enumerate(zip(batch.clusters, said.labels, strict=True)):
            if label_key(label) != labels[cluster]:
                continue
            own = [c for c in found if c.cell == i + 1]
            cited[cluster] += [c for c in own if not c.denied]
            sure = _sureness(batch, record, i, label)
            text = passage(said.reasoning, i + 1, batch.puzzle)
            if text and (cluster not in surest or sure > surest[cluster][0]):
                surest[cluster] = (sure, _name(strike(text, own), batch, plan))
    return cited, {cluster: text for cluster, (_, text) in surest.items()}


def _sureness(batch: Batch, record: Mapping[str, Any], i: int, label: str) -> float:
    if "probabilities" not in record:
        return float(record.get("agreement") or record.get("logprob") or 0.0)
    return float(record["probabilities"][i][batch.puzzle.candidate_index[label_key(label)]])


def _name(text: str, batch: Batch, plan: Plan) -> str:
    """Name clusters instead of the numbers that cells have in a batch."""

    def named(match: re.Match[str]) -> str:
        i = int(match[2]) - 1
        if not 0 <= i < len(batch.clusters):
            return match[0]
        return f"{match[1]}luster {plan.clusters.names[batch.clusters[i]]}"

    return _CELL.sub(named, text)
