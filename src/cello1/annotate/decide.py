"""Decide every cluster: from evidence and votes to a label with its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from cello1.annotate.ask import Records, ask_all
from cello1.annotate.calibrate import Fit, fit_evidence
from cello1.annotate.candidates import UNKNOWN
from cello1.annotate.cells import cells_by_votes, label_cells
from cello1.annotate.clusters import Clusters
from cello1.annotate.data import Counted, Data, count
from cello1.annotate.evidence import Evidence, Knowledge, know, places_of, sources_of, weigh
from cello1.annotate.levels import (
    Level,
    Tree,
    better_elsewhere,
    better_than_chance,
    probabilities,
)
from cello1.annotate.pool import Votes, by_chance
from cello1.annotate.prepare import Prepared
from cello1.annotate.reasons import dots, headline, quotes, verdicts
from cello1.annotate.table import Annotation, PerCell, fingerprint, make_uns, row_of
from cello1.cells.loaded import DonorGroup
from cello1.errors import InputError
from cello1.runs import Watch, file_hash
from cello1.solvers.assign import assign_jointly
from cello1.solvers.assign import probabilities as one_to_one
from cello1.solvers.base import Floats


@dataclass(frozen=True)
class Fitted:
    """Constants that were fitted once for a solver.

    Attributes
    ----------
    temperature
        Divisor of the log-evidence.
    other
        Prior probability of a type that is not on offer, relative to one that is.
    cell_temperature
        The same for single cells.
    source
        What it was fitted on.
    """

    temperature: float
    other: float
    cell_temperature: float
    source: str


FITTED = {
    "atlas": Fitted(
        3.0,
        0.1,
        2.4,
        "clusters simulated from tables that were left out, of pancreas and of two donors of blood",
    ),
    # Not fitted: marker tables differ too much.
    "markers": Fitted(2.0, 0.1, 2.4, ""),
}
# Default of the lowest probability that a label may have.
LEAST = 0.2
# Above this share of unreadable answers the annotation fails.
UNREADABLE = 0.5


@dataclass(frozen=True)
class Found:
    """What supports the types: the evidence of a classical solver, votes, or both.

    Attributes
    ----------
    counted
        Genes that the clusters list.
    knowledge, evidence, fit
        Of a classical solver, with the temperature of its evidence; None without one.
    votes, records, voted
        Of a language model: its votes, its answers, and the temperature of the votes.
    """

    counted: Counted = field(repr=False)
    knowledge: Knowledge | None = None
    evidence: Evidence | None = None
    fit: Fit = field(default_factory=Fit)
    votes: Votes | None = None
    records: Records = field(default_factory=dict, repr=False)
    voted: Fit = field(default_factory=Fit)

    @property
    def confidence(self) -> Fit:
        """The fit behind the confidences: that of the votes, where there are any."""
        return self.fit if self.votes is None else self.voted


def decide(
    data: Data, prepared: Prepared, options: Mapping[str, Any], folder: Path, watch: Watch
) -> Annotation:
    """Read the cells, ask the language model if there is one, and decide every cluster."""
    settings, clusters, notes = prepared.settings, prepared.clusters, prepared.notes
    found = _look(data, prepared, folder, watch, resumes=bool(options.get("run")))
    counted = found.counted
    p, tree = _probabilities(prepared, found)
    if prepared.candidates.is_guess and found.votes is None and not settings.unique:
        prepared, found, p, tree = _with_more(prepared, found, p, tree)
    least = LEAST if settings.min_confidence is None else settings.min_confidence
    levels = _levels(prepared, found, p, tree, least)
    if not found.confidence.fitted:
        notes.append(f"confidence is {found.confidence.source}")
    said = _reasons(prepared, options, found, levels)
    rows = [
        row_of(name, int(counted.sizes[i]), int(counted.donors[i]), levels[i], said[i])
        for i, name in enumerate(clusters.names)
    ]
    cells = None
    if settings.unit == "cell":
        cells = _label_cells(data, prepared, found, tree, levels, least, watch)
    shares = p @ tree.share
    learned = {path.name: file_hash(path) for path in prepared.learned}
    uns = make_uns(
        clusters=clusters, candidates=prepared.candidates.labels, solver=_name(prepared),
        learned=learned, solver_settings=prepared.solver.settings,
        solver_hash=fingerprint(prepared.solver, learned),
        params=settings.model_dump() | {"min_confidence": least, "tissue": prepared.tissue},
        values=f"{data.matrix} ({data.values})",
        contexts=[] if prepared.plan is None else prepared.plan.contexts,
        batches=0 if prepared.plan is None else len(prepared.plan.batches),
        fitted=found.confidence, rows=rows, probabilities=shares, notes=notes,
        dots=dots(counted, rows),
    )  # fmt: skip
    key = options.get("key_added") or "cello1"
    return Annotation(
        key, clusters, prepared.candidates.labels, levels, shares, rows, uns, cells, notes
    )


def _look(data: Data, prepared: Prepared, folder: Path, watch: Watch, *, resumes: bool) -> Found:
    """Read the cells once, and ask the language model if there is one."""
    settings, notes, labels = prepared.settings, prepared.notes, prepared.candidates.labels
    expert, symbols = prepared.expert, prepared.symbols.names
    knowledge: Knowledge | None = None
    with ThreadPoolExecutor(1) as pool:
        # The rows of the types take as long as reading a hundred thousand cells.
        known = None if expert is None else pool.submit(
            know, expert, labels, symbols, settings.top_genes, tissue=prepared.tissue,
            others=not settings.unique and prepared.plan is None,
        )  # fmt: skip
        counted = count(
            data, prepared.symbols, prepared.clusters.codes, len(prepared.clusters.names),
            _donors(data.n_cells, prepared.groups), k=settings.top_genes,
            places=None if expert is None else places_of(expert, symbols, settings.top_genes),
            watch=watch,
        )  # fmt: skip
        if known is not None:
            knowledge = known.result()
    if knowledge is not None and not knowledge.transfers:
        notes.append(
            f"{len(symbols):,} genes are measured, {knowledge.measured:,} of the "
            f"{knowledge.genes:,} that {knowledge.name} knows"
        )
    _say_silent(counted, prepared.clusters, data, notes)
    found = Found(counted, knowledge)
    if knowledge is not None:
        evidence = weigh(
            counted.listed, counted.everyone, counted.voters, counted.owners, knowledge,
            len(labels),
        )  # fmt: skip
        fit = fit_evidence(
            prepared.folds if prepared.plan is None else [], prepared.asked, prepared.expert,
            labels, settings, _shipped(prepared.expert.name, knowledge),
        )  # fmt: skip
        found = replace(found, evidence=evidence, fit=fit)
    if prepared.plan is not None:
        votes, records, voted = ask_all(prepared, folder, watch, resumes=resumes)
        _say_unread(votes, notes)
        found = replace(found, votes=votes, records=records, voted=voted)
    return found


def _probabilities(prepared: Prepared, found: Found) -> tuple[Floats, Tree]:
    """Return the probability of every type, shape (K, L), and the types."""
    labels, unique = prepared.candidates.labels, prepared.settings.unique
    m = len(labels)
    if found.votes is None and not unique:
        assert found.knowledge is not None
        assert found.evidence is not None
        tree = Tree(found.knowledge.labels, m)
        prior = tree.prior(_constants(prepared).other)
        return probabilities(found.evidence.scores, prior, found.fit.temperature), tree
    logits = _logits(found, m)
    if unique:
        _refuse_too_few(len(logits), m)
        return one_to_one(logits)[0], Tree(labels, m)
    return np.asarray(softmax(logits, axis=1)), Tree(labels, m)


def _with_more(
    prepared: Prepared, found: Found, p: Floats, tree: Tree
) -> tuple[Prepared, Found, Floats, Tree]:
    """Offer types that clusters fit better than any of the tissue, too, and decide again."""
    known, counted, m = found.knowledge, found.counted, tree.offered
    if known is None or not (more := better_elsewhere(p, m)):
        return prepared, found, p, tree
    for h, clusters in sorted(more.items()):
        names = ", ".join(prepared.clusters.names[k] for k in clusters)
        prepared.notes.append(
            f"{known.labels[h]} is not among the types of the tissue, but cluster {names} fits it "
            "better than all of them, so it is on offer, too"
        )
    order = [*range(m), *sorted(more)]
    order += [h for h in range(m, len(known.labels)) if h not in more]
    known = replace(
        known, labels=[known.labels[h] for h in order], weights=known.weights[:, order],
        known=known.known[order],
    )  # fmt: skip
    m += len(more)
    prepared = replace(prepared, candidates=replace(prepared.candidates, labels=known.labels[:m]))
    evidence = weigh(
        counted.listed, counted.everyone, counted.voters, counted.owners, known, m
    )  # fmt: skip
    found = replace(found, knowledge=known, evidence=evidence)
    return prepared, found, *_probabilities(prepared, found)


def _logits(found: Found, m: int) -> Floats:
    """Return the log-odds of the candidates from evidence and votes together, shape (K, M)."""
    logits = np.zeros((len(found.counted.sizes), m))
    if found.votes is not None:
        logits = logits + found.votes.logits / found.voted.temperature
    if found.evidence is not None:
        logits = logits + found.evidence.scores[:, :m] / found.fit.temperature
    return logits


def _levels(prepared: Prepared, found: Found, p: Floats, tree: Tree, least: float) -> list[Level]:
    """Decide every cluster; those that express nothing, or got no answer, stay unknown."""
    m = len(prepared.candidates.labels)
    heard = found.counted.silent < found.counted.sizes
    if found.votes is not None:
        allowed = ~by_chance(found.votes, prepared.candidates.labels)
        heard &= found.votes.counts > 0
    else:
        assert found.evidence is not None
        allowed = better_than_chance(found.evidence.pooled, m) & found.evidence.speaks(m)
    chosen = [None] * len(p)
    if prepared.settings.unique:
        chosen = assign_jointly(_logits(found, m)).tolist()
    levels = [
        tree.settle(own, least, chosen=one, allowed=bool(may))
        for own, one, may in zip(p, chosen, allowed, strict=True)
    ]
    return [one if says else _silent(one) for one, says in zip(levels, heard, strict=True)]


def _constants(prepared: Prepared) -> Fitted:
    return FITTED.get(getattr(prepared.expert, "name", ""), FITTED["markers"])


def _name(prepared: Prepared) -> str:
    if prepared.plan is None:
        return str(prepared.expert.name)
    beside = f", with {prepared.expert.name}" if prepared.expert is not None else ""
    return f"{prepared.solver.name}{beside}"


def _shipped(name: str, knowledge: Knowledge) -> Fit:
    """Return the fit that comes with a solver, where it applies to these data."""
    if name not in FITTED or not FITTED[name].source:
        return Fit(
            FITTED[name].temperature if name in FITTED else 1.0,
            "not fitted: no puzzles of known type were given",
        )
    fitted = FITTED[name]
    if not knowledge.transfers:
        return Fit(
            fitted.temperature,
            f"not fitted on data such as these: {knowledge.measured:,} of {knowledge.genes:,} "
            "known genes are measured",
        )
    return Fit(fitted.temperature, f"fitted on {fitted.source}", fitted=True)


def _donors(n_cells: int, groups: Sequence[DonorGroup]) -> npt.NDArray[np.intp]:
    """Return the donor of every cell as a number, shape (cells,)."""
    names = sorted({str(group.key[0]) for group in groups})
    donors = np.zeros(n_cells, dtype=np.intp)
    for group in groups:
        donors[group.members] = names.index(str(group.key[0]))
    return donors


def _say_silent(counted: Counted, clusters: Clusters, data: Data, notes: list[str]) -> None:
    silent = int(counted.silent.sum())
    if silent == int(counted.sizes.sum()):
        raise InputError(
            f"no cell expresses any gene in {data.matrix}; name another matrix with layer"
        )
    quiet = counted.silent == counted.sizes
    whole = [name for name, is_quiet in zip(clusters.names, quiet, strict=True) if is_quiet]
    if whole:
        notes.append(
            f"no cell of cluster {', '.join(map(repr, whole))} expresses any gene in "
            f"{data.matrix}; it stays unknown"
        )
    elif silent:
        notes.append(f"{silent:,} cells express no gene; they have the label of their cluster")


def _say_unread(votes: Votes, notes: list[str]) -> None:
    unread, total = int(votes.unread.sum()), int((votes.unread + votes.counts).sum())
    if unread > UNREADABLE * total:
        raise InputError(
            f"{unread} of {total} answers about clusters could not be read or gave a label that is "
            "not on offer; nothing was annotated: choose another model, or let it give only valid "
            "answers (--valid, for models on this machine)"
        )
    if unread:
        notes.append(
            f"{unread} of {total} answers about clusters could not be read or gave a label that is "
            "not on offer; they do not count"
        )
    mended, read = votes.tolerated
    if mended:
        notes.append(
            f"{mended} of {read} answers that were read do not keep to the form that was asked for"
        )


def _refuse_too_few(n: int, m: int) -> None:
    if n > m:
        raise InputError(
            f"{n} clusters cannot have unique labels from {m} candidates; name more candidates, "
            "or allow one type for several clusters (unique=False)"
        )


def _silent(level: Level) -> Level:
    return replace(
        level, label=UNKNOWN, confidence=0.0, coarse=UNKNOWN, coarse_confidence=0.0,
        fine_confidence=0.0, runner_up_probability=0.0, level="unknown",
    )  # fmt: skip


def _reasons(
    prepared: Prepared,
    options: Mapping[str, Any],
    found: Found,
    levels: Sequence[Level],
) -> list[dict[str, Any]]:
    names, counted, votes = prepared.clusters.names, found.counted, found.votes
    verdict: list[dict[str, Any]] = [{} for _ in names]
    if found.knowledge is not None and found.evidence is not None:
        known = sources_of(prepared.expert, {level.fine for level in levels})
        verdict = verdicts(counted, found.knowledge, found.evidence, levels, names, known)
    if prepared.plan is None or votes is None:
        return verdict
    labels = prepared.candidates.labels
    best = [labels.index(level.fine) for level in levels]
    table, aliases = prepared.asked.markers, options.get("aliases")
    said = quotes(
        prepared.plan, best, found.records, counted, markers=None if table is None else Path(table),
        aliases=None if aliases is None else Path(aliases),
    )  # fmt: skip
    for i, level in enumerate(levels):
        quoted, count_ = said[i], int(votes.counts[i])
        own = verdict[i]
        text = own.get("reason") or headline(names[i], level, counted, i)
        given = int(votes.chosen[i, best[i]])
        text += f" The solver gave it {level.fine} in {given} of {count_} answers"
        text += f"; {quoted.pop('quote')}" if "quote" in quoted else "."
        if not own:
            own = quoted
        else:
            own["unsupported"] = quoted["unsupported"]
        verdict[i] = own | {
            "reason": text, "votes": given, "batches": count_, "unread": int(votes.unread[i]),
        }  # fmt: skip
    return verdict


def _label_cells(
    data: Data,
    prepared: Prepared,
    found: Found,
    tree: Tree,
    levels: Sequence[Level],
    least: float,
    watch: Watch,
) -> PerCell:
    if prepared.plan is not None:
        temperature = found.voted.temperature
        return cells_by_votes(data, prepared.plan, found.records, levels, temperature, least)
    assert found.knowledge is not None
    assert found.evidence is not None
    constants = _constants(prepared)
    return label_cells(
        data, prepared.symbols, found.knowledge, found.evidence, prepared.clusters, tree, levels,
        k=prepared.settings.top_genes, temperature=constants.cell_temperature,
        other=constants.other, least=least, watch=watch,
    )  # fmt: skip
