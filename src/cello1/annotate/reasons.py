"""Explain the label of a cluster: one verdict from all its evidence, as text.

It names the genes that distinguish the cluster and support the type, the genes against it, and
those that separate it from the runner-up. The text of a language model is quoted as such; genes
that it cites but that are in no list are struck through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cello1.annotate.batches import Batch
from cello1.annotate.data import Counted
from cello1.annotate.evidence import Evidence, Knowledge
from cello1.annotate.levels import Level, broad_type
from cello1.annotate.plan import Plan
from cello1.citations.aliases import Aliases, read_aliases
from cello1.citations.citations import Citation, citations, passage
from cello1.citations.evidence import strike, support
from cello1.puzzles.answer import Malformed, parse_tolerantly
from cello1.puzzles.puzzle import label_key
from cello1.solvers.base import Floats
from cello1.solvers.classical.markers import Markers

_SHOWN, _IN_WORDS, _BETWEEN = 12, 6, 3
_DOTS, _MOST_DOTS = 5, 200
# A gene of the type counts against it below this share of cells that express it.
_RARE, _COMMON = 0.05, 0.2
# From this share of cells on, a second broad type is mentioned.
_MIXED = 0.25
_CELL = re.compile(r"\b([Cc])ell (\d+)\b")
# Expressed in every cell, or in every stressed or dividing cell: no evidence for any type.
_EVERYWHERE = re.compile(
    r"^(MT-|M?RP[LS]\d|RPLP\d|RPSA|MALAT1$|NEAT1$|XIST$|ACTB$|ACTG1$|B2M$|EEF1|EEF2$|TMSB4X$|"
    r"TMSB10$|FTL$|FTH1$|GAPDH$|TPT1$|PTMA$|UB[BC]$|HSP|FOS[B]?$|JUN[BD]?$|MT[12][A-Z]$)",
    re.IGNORECASE,
)
Records = Mapping[str, Mapping[str, Any]]


class Shares:
    """Shares of cells that express each gene, in a cluster and in all others, shape (symbols,)."""

    def __init__(self, counted: Counted) -> None:
        self.detected, self.sizes = counted.detected, counted.sizes
        self.total, self.n_cells = np.zeros(self.detected.shape[1]), int(self.sizes.sum())
        for k in range(len(self.sizes)):
            self.total += self._cells(k)

    def _cells(self, k: int) -> npt.NDArray[np.intp]:
        return np.asarray(np.minimum(self.detected[k], self.sizes[k]))

    def inside(self, k: int) -> Floats:
        """Return the shares in a cluster."""
        return np.asarray(self._cells(k) / max(int(self.sizes[k]), 1))

    def outside(self, k: int) -> Floats:
        """Return the shares in all other clusters together."""
        others = max(self.n_cells - int(self.sizes[k]), 1)
        return np.asarray((self.total - self._cells(k)) / others)


def verdicts(
    counted: Counted, knowledge: Knowledge, evidence: Evidence, levels: Sequence[Level],
    names: Sequence[str], sources: Mapping[str, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return evidence and reason for every cluster, from a classical solver.

    Parameters
    ----------
    counted, knowledge, evidence
        Genes that the cells list, weights of the solver, and the evidence from both.
    levels
        The labels.
    names
        Names of the clusters.
    sources
        Type -> sources of the solver's data on it, as text.
    """
    share = Shares(counted)
    symbols = counted.symbols.names
    usable = np.array([not _EVERYWHERE.match(symbol) for symbol in symbols], dtype=bool)
    index = {label: j for j, label in enumerate(knowledge.labels)}
    broad = [broad_type(label) for label in knowledge.labels]
    found = []
    for k, level in enumerate(levels):
        j, r = index[level.fine], index[level.runner_up]
        own, rival = knowledge.weights[:, j], knowledge.weights[:, r]
        inside, outside = share.inside(k), share.outside(k)
        gain = evidence.apart(k) * own
        speaks = _best(np.where(usable & (own > 0) & (inside > outside), gain, 0.0), _SHOWN)
        lacking = usable & (own > 0) & (inside < _RARE) & (inside <= outside)
        against = _best(np.where(lacking, own, 0.0), _BETWEEN)
        foreign = usable & (own < 0) & (inside > outside) & (inside > _COMMON)
        against += _best(np.where(foreign, -gain, 0.0), _BETWEEN)
        between = own - rival
        for_own = _best(np.where(usable & (own > 0) & (inside > outside), between * inside, 0.0),
                        _BETWEEN)  # fmt: skip
        for_rival = _best(np.where(usable & (rival > 0), -between, 0.0), _BETWEEN)
        items = [
            {
                "gene": symbols[g], "inside": _rounded(inside[g]), "outside": _rounded(outside[g]),
                "marker": bool(own[g] > 0), "speaks": way, "weight": round(float(gain[g]), 4),
            }
            for way, genes in (("for", speaks), ("against", against)) for g in genes
        ]  # fmt: skip

        def told(genes: list[int], inside: Floats = inside, outside: Floats = outside) -> str:
            return ", ".join(
                f"{symbols[g]} ({_percent(inside[g])} of its cells, "
                f"{_percent(outside[g])} of others)"
                for g in genes
            )

        lines = [headline(names[k], level, counted, k)]
        if speaks:
            where = sources.get(level.fine)
            lines.append(
                f"For {level.fine} speak {told(speaks[:_IN_WORDS])}"
                + (f"; known from {where}." if where else ".")
            )
        else:
            lines.append("No gene sets it apart that speaks for any type on offer.")
        if against:
            lines.append(f"Against it: {told(against)}.")
        if mixed := _mixed(evidence.votes[k], broad):
            lines.append(mixed)
        if level.runner_up_probability > 0:
            part = [f"The runner-up is {level.runner_up} ({level.runner_up_probability:.2f})"]
            if for_rival:
                part.append(f"for which {_listing([symbols[g] for g in for_rival])} would speak")
            if for_own:
                part.append(f"and against which {_listing([symbols[g] for g in for_own])} do")
            lines.append(", ".join(part) + ".")
        found.append(
            {
                "supported": [symbols[g] for g in speaks],
                "unsupported": [],
                "evidence": items,
                "reason": " ".join(lines),
            }
        )
    return found


def dots(counted: Counted, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the share of cells of every cluster that express each cluster's first genes."""
    place = {symbol: g for g, symbol in enumerate(counted.symbols.names)}
    genes = list(dict.fromkeys(
        gene for n in range(_DOTS) for row in rows for gene in row.get("supported", [])[n : n + 1]
        if gene in place
    ))[:_MOST_DOTS]  # fmt: skip
    share, at = Shares(counted), [place[gene] for gene in genes]
    inside = [share.inside(k)[at].round(3).tolist() for k in range(len(counted.sizes))]
    return {"genes": genes, "shares": inside}


def headline(name: str, level: Level, counted: Counted, k: int) -> str:
    """Return the label of a cluster as a sentence."""
    cells, donors = int(counted.sizes[k]), int(counted.donors[k])
    who = f"Cluster {name} ({cells:,} cell{'s' * (cells != 1)}"
    who += f", {donors} donors)" if donors > 1 else ")"
    if level.level == "none":
        return (
            f"{who} is none of these: its cells look like no type on offer, nor like a close "
            f"relative of one. The nearest is {level.fine} ({level.fine_confidence:.2f})."
        )
    if level.level == "unknown":
        return (
            f"{who} is unknown: no label is sure enough. The likeliest is {level.fine} "
            f"({level.fine_confidence:.2f})."
        )
    if level.level == "ancestor":
        return (
            f"{who} is {level.label}, with probability {level.confidence:.2f}; its subtypes cannot "
            f"be told apart. The likeliest is {level.fine} ({level.fine_confidence:.2f})."
        )
    return f"{who} is {level.label}, with probability {level.confidence:.2f}."


def quotes(
    plan: Plan,
    best: Sequence[int],
    records: Records,
    counted: Counted,
    *,
    markers: Path | None,
    aliases: Path | None,
) -> dict[int, dict[str, Any]]:
    """Return the reasons of a language model for every cluster, with its citations checked.

    Parameters
    ----------
    plan, records
        Questions and answers.
    best
        The candidate of each cluster.
    counted
        Genes that the cells list and express.
    markers, aliases
        Tables; by default those of the package.

    Returns
    -------
    dict
        Cluster -> ``supported`` genes (in the lists, and more frequent in the cluster than
        elsewhere), ``unsupported`` ones (cited, but never in a list), ``evidence`` (every gene
        with its figures), and ``reason``: the text of the most confident batch that gives the
        cluster its label, quoted, with false citations struck through.
    """
    known = read_aliases(aliases)
    table = Markers.from_file(markers)
    names, share = counted.symbols.names, Shares(counted)
    labels = [label_key(plan.candidates[j]) for j in best]
    cited, surest = _read(plan, labels, records, known, frozenset(names))
    found: dict[int, dict[str, Any]] = {}
    for k in range(len(labels)):
        entry = table.entry(plan.candidates[best[k]])
        weights = None if entry is None else {g for g, w in table.weights[entry].items() if w > 0}
        items = support(
            cited[k],
            dict(zip(names, share.inside(k).tolist(), strict=True)),
            dict(zip(names, share.outside(k).tolist(), strict=True)),
            weights,
        )
        items = [s for s in items if not _EVERYWHERE.match(s.gene)]
        apart = [s for s in items if s.listed and (s.inside or 0) > (s.outside or 0)]
        found[k] = {
            "supported": [s.gene for s in apart][:_SHOWN],
            "unsupported": [s.gene for s in items if not s.listed][:_SHOWN],
            "evidence": [asdict(s) for s in items[:_SHOWN]],
        }
        if k in surest:
            text, answers = surest[k]
            found[k]["quote"] = f"one of {answers} answers said: \N{LEFT DOUBLE QUOTATION MARK}" \
                f"{text}\N{RIGHT DOUBLE QUOTATION MARK}"  # fmt: skip
    return found


def _read(
    plan: Plan,
    labels: Sequence[str],
    records: Records,
    aliases: Aliases,
    vocabulary: frozenset[str],
) -> tuple[list[list[Citation]], dict[int, tuple[str, int]]]:
    """Collect the citations from batches that gave each cluster its label, and the best reason."""
    cited: list[list[Citation]] = [[] for _ in labels]
    surest: dict[int, tuple[float, str]] = {}
    answers = np.zeros(len(labels), dtype=np.intp)
    for batch in plan.batches:
        record = records.get(batch.puzzle.id, {})
        read = parse_tolerantly(record.get("text", ""), batch.puzzle)
        if isinstance(read, Malformed) or len(read.answer.labels) != len(batch.clusters):
            continue
        said = read.answer
        found = citations(batch.puzzle, said.reasoning, vocabulary, aliases, denied=True)
        for i, (cluster, label) in enumerate(zip(batch.clusters, said.labels, strict=True)):
            answers[cluster] += 1
            if label_key(label) != labels[cluster]:
                continue
            own = [c for c in found if c.cell == i + 1]
            cited[cluster] += [c for c in own if not c.denied]
            sure = _sureness(batch, record, i, label)
            text = passage(said.reasoning, i + 1, batch.puzzle)
            if text and (cluster not in surest or sure > surest[cluster][0]):
                surest[cluster] = (sure, _name(strike(text, own), batch, plan))
    return cited, {k: (text, int(answers[k])) for k, (_, text) in surest.items()}


def _sureness(batch: Batch, record: Mapping[str, Any], i: int, label: str) -> float:
    if "probabilities" not in record:
        return float(record.get("agreement") or record.get("logprob") or 0.0)
    return float(record["probabilities"][i][batch.puzzle.candidate_index[label_key(label)]])


def _name(text: str, batch: Batch, plan: Plan) -> str:
    """Replace the numbers of cells in a batch by the names of their clusters."""

    def named(match: re.Match[str]) -> str:
        i = int(match[2]) - 1
        if not 0 <= i < len(batch.clusters):
            return match[0]
        return f"{match[1]}luster {plan.clusters.names[batch.clusters[i]]}"

    return _CELL.sub(named, text)


def _best(values: npt.NDArray[Any], n: int) -> list[int]:
    """Return the positions of the n highest positive values, highest first."""
    some = np.argsort(-values, kind="stable")[:n]
    return [int(i) for i in some if values[i] > 0]


def _listing(genes: Sequence[str]) -> str:
    return genes[0] if len(genes) == 1 else f"{', '.join(genes[:-1])} and {genes[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 or share == 0 else "< 1 %"


def _mixed(votes: Floats, broad: Sequence[str]) -> str:
    """Return a remark where many cells of a cluster fit another broad type than the majority."""
    shares: dict[str, float] = {}
    for kind, share in zip(broad, votes.tolist(), strict=True):
        shares[kind] = shares.get(kind, 0.0) + share
    (first, most), (second, next_most) = sorted(
        [*shares.items(), ("", 0.0)], key=lambda item: (-item[1], item[0])
    )[:2]
    if next_most < _MIXED:
        return ""
    return (
        f"It may be mixed: one by one, {_percent(most)} of its cells fit {first} best and "
        f"{_percent(next_most)} {second}."
    )


def _rounded(share: float) -> float:
    return round(float(share), 4)
