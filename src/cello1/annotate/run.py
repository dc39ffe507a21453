"""Annotate a data set: read it, compare its clusters, decide, say why."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from cello1.annotate.calibrate import Fit, Fold, fit_evidence, fit_votes, make_folds
from cello1.annotate.candidates import UNKNOWN, Candidates, read_candidates, tissue_types
from cello1.annotate.cells import cells_by_votes, label_cells
from cello1.annotate.clusters import Clusters, find_clusters
from cello1.annotate.data import (
    TISSUE_COLUMNS,
    Counted,
    Data,
    count,
    looks_like_mouse,
    open_data,
)
from cello1.annotate.evidence import (
    Evidence,
    Knowledge,
    know,
    knows,
    sources_of,
    telling,
    tissue_candidates,
    weigh,
)
from cello1.annotate.levels import Level, Tree, better_than_chance, probabilities
from cello1.annotate.plan import Plan, make_plan
from cello1.annotate.pool import Votes, by_chance, count_votes
from cello1.annotate.reasons import dots, headline, quotes, verdicts
from cello1.annotate.table import Annotation, PerCell, fingerprint, make_uns, row_of
from cello1.cells.genes import Symbols, index_symbols
from cello1.cells.loaded import Home
from cello1.cells.symbols import HUMAN, human_genes
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_splits
from cello1.puzzles.table import read_puzzles, write_puzzles
from cello1.recipes import AnnotateSettings, AnnotateSolveSettings, SolveSettings, checked
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.runs import Watch, file_hash
from cello1.solvers.assign import assign_jointly
from cello1.solvers.assign import probabilities as one_to_one
from cello1.solvers.base import RemoteSolver, Solver
from cello1.solvers.choose import choose_solver
from cello1.solvers.run import read_solved, remarks, solve, unanswered
from cello1.solvers.told import Told
from cello1.solvers.vote import VotingSolver

_log = logging.getLogger(__name__)
Records = Mapping[str, Mapping[str, Any]]
# Solvers that rate cells by their genes; all others are asked in batches.
CLASSICAL = ("markers", "centroids", "atlas")


@dataclass(frozen=True)
class Fitted:
    """What was fitted once for a solver.

    Attributes
    ----------
    temperature
        Log-evidence is divided by it.
    other
        How probable beforehand a type that is not on offer is, against one that is.
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
        1.2,
        0.01,
        2.4,
        "clusters simulated from tables that were left out, of pancreas and of two donors of blood",
    ),
    # Not fitted: every table of markers is another.
    "markers": Fitted(0.7, 0.01, 2.4, ""),
}
# The least probability of a label, where the user names none.
LEAST = 0.2
# Above this share of answers that cannot be read, a language model is of no use here.
UNREADABLE = 0.5


@takes(AnnotateSettings)
def annotate(
    adata: Any,
    settings: AnnotateSettings | None = None,
    *,
    groupby: str | None = None,
    leiden: float | None = None,
    candidates: str | Path | Iterable[str] | None = None,
    tissue: str | None = None,
    organism: str | None = None,
    solver: str | SolveSettings | None = None,
    beside: str | None = None,
    puzzles: str | Path | None = None,
    aliases: str | Path | None = None,
    key_added: str = "cello1",
    run: str | Path | None = None,
    copy: bool = False,
    watch: Watch = lambda what, share: None,
    **changes: Any,
) -> Any:
    """Label the clusters (or cells) of a data set, each compared with all other cells.

    Parameters
    ----------
    adata
        Cells, in memory, backed, lazy or a view, with counts or log-normalised values; `X` is
        never changed.
    settings, **changes
        :class:`cello1.recipes.AnnotateSettings`, and its fields by keyword, such as
        ``unit="cell"``. Classical solvers make no random choices.
    groupby
        Column of obs with the clusters. By default the first of the usual ones (``leiden``,
        ``louvain``, ``seurat_clusters``, ...); where there is none, clusters are computed.
    leiden
        Compute Leiden clusters at this resolution instead, into ``obs[key_added + "_leiden"]``.
    candidates
        Types on offer: a list, a text file with one on each line, or a column such as
        ``reference.obs["cell_type"]``; short names of the field (``NK``, ``CD14 Mono``) are
        understood. By default the types that are known of the tissue.
    tissue
        Tissue of the cells; by default as obs says.
    organism
        ``human`` or ``mouse``; by default as the data say. Genes of mouse are taken for the human
        genes of the same symbol.
    solver
        ``atlas``, ``markers``, ``centroids`` (learns from `puzzles`), ``mini``, ``hf:FOLDER``,
        ``openai:MODEL``, or settings with all their options; by default the one of
        :class:`cello1.recipes.AnnotateSolveSettings`.
    beside
        A classical solver whose evidence is pooled with the votes of a language model.
    puzzles
        Folder of a build: `centroids` learn from its training split, and the confidence is fitted
        on its validation split.
    aliases
        HGNC's table of alias and previous symbols, to read reasons with; by default the names of
        some 100 proteins are known.
    key_added
        Name of the result in obs and uns.
    run
        Folder for questions and answers of a language model, from which an interrupted call
        resumes.
    copy
        Return an annotated copy and leave `adata` alone.
    watch
        Called with (what is being done, share done).

    Returns
    -------
    AnnData or None
        The copy, if asked for. Else `adata` has new fields: categorical ``obs[key_added]``,
        ``obs[key_added + "_ontology_term_id"]``, ``obs[key_added + "_coarse"]`` (broad type) and
        ``obs[key_added + "_fine"]`` (the best candidate); ``obs[key_added + "_confidence"]`` in
        [0, 1], of the label, or of the best candidate where that is ``unknown`` or ``none of
        these``; and ``uns[key_added]``, which :func:`cello1.get.annotation` reads.

    Raises
    ------
    UseError
        When settings make no sense together.
    InputError
        When the data cannot be used, or batches stay without an answer.
    """
    chosen = resolve(AnnotateSettings, settings, changes)
    options = chosen.model_dump() | {
        "groupby": groupby, "leiden": leiden, "candidates": candidates, "tissue": tissue,
        "organism": organism, "solver": solver, "beside": beside, "puzzles": puzzles,
        "aliases": aliases, "key_added": key_added, "run": run,
    }  # fmt: skip
    adata = adata.copy() if copy else adata
    with open_data(adata, layer=chosen.layer, organism=species(organism)) as data:
        found = annotate_data(data, watch=watch, **options)
    found.write_to(adata)
    return adata if copy else None


def annotate_data(
    data: Data, *, watch: Watch = lambda what, share: None, **options: Any
) -> Annotation:
    """Annotate an open data set; `options` are those of :func:`annotate`."""
    prepared = prepare(data, options, watch)
    with _workspace(options.get("run")) as folder:
        return _decide(data, prepared, options, folder, watch)


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is asked.

    Attributes
    ----------
    settings, asked
        How, and of whom.
    clusters, places
        The clusters, and the donors.
    candidates
        The types on offer.
    symbols
        The genes, without those that every cell lists.
    solver
        Who answers; `expert` is who rates (the solver itself, or the one beside it), or None.
    plan
        What a language model will be asked, or None.
    folds
        Donors of known type, for the confidence.
    learned
        Files that the solver and the confidence are learned from.
    notes
        What was decided or guessed.
    """

    settings: AnnotateSettings
    asked: SolveSettings
    clusters: Clusters
    places: list[Home]
    candidates: Candidates
    tissue: str | None
    symbols: Symbols = field(repr=False)
    solver: Solver
    expert: Any
    plan: Plan | None
    folds: list[Fold] = field(repr=False)
    learned: list[Path]
    notes: list[str]

    @property
    def sends(self) -> bool:
        """Say whether prompts leave this machine."""
        return isinstance(self.solver, RemoteSolver)


def prepare(data: Data, options: Mapping[str, Any], watch: Watch) -> Prepared:
    """Check everything, find clusters and candidates, and draw what a language model is asked."""
    settings = checked(AnnotateSettings, _fields(options))
    asked = options.get("solver")
    if not isinstance(asked, SolveSettings):
        named = {} if asked is None else {"solver": asked}
        asked = checked(AnnotateSolveSettings, {**named, "seed": settings.seed})
    notes = list(data.notes)
    symbols = human_symbols(data, options.get("organism"), notes)
    splits, learned = _training(options.get("puzzles"))
    if options.get("candidates") is None and not splits["train"] and asked.who not in CLASSICAL:
        raise UseError(
            f"no candidates are named, and {asked.who} knows none of its own; give a list of "
            "cell types or a file with one on each line, or puzzles that know those of the tissue"
        )
    solver = make_solver(asked, splits)
    expert = _expert(solver, asked, options.get("beside"), splits)
    key = options.get("key_added") or "cello1"
    clusters = find_clusters(
        data, options.get("groupby"), options.get("leiden"), seed=settings.seed, key=key,
        watch=watch,
    )  # fmt: skip
    if clusters.note:
        notes.append(clusters.note)
    if lost := int((clusters.codes < 0).sum()):
        notes.append(f"{lost:,} cells have no cluster and stay unknown")
    places = data.homes(settings)
    tissues = [options["tissue"]] if options.get("tissue") else data.constant(TISSUE_COLUMNS)
    candidates = _candidates(options.get("candidates"), splits["train"], tissues, expert, settings)
    if candidates.source not in ("given",):
        notes.append(f"candidates: {len(candidates.labels)} types, {candidates.source}")
    for label, name in candidates.given.items():
        notes.append(f"candidate {name!r} is taken for {label!r}")
    if expert is not None:
        strangers = [label for label in candidates.labels if not knows(expert, label)]
        if strangers:
            notes.append(
                f"{expert.name} knows nothing of {', '.join(map(repr, strangers))}, so no cluster "
                "can get such a label"
            )
        if len(strangers) == len(candidates.labels):
            raise InputError(
                f"{expert.name} knows none of the {len(strangers)} candidates "
                f"({', '.join(map(repr, strangers[:3]))}, ...); name types by their labels in the "
                "Cell Ontology, or choose another solver"
            )
    plan = None
    if asked.who not in CLASSICAL:
        plan = make_plan(data, clusters, candidates.labels, places, settings)
        if plan.left_out:
            notes.append(
                f"clusters {', '.join(plan.left_out)} share no donor with another one, so the "
                "solver was not asked about them"
            )
    folds = make_folds(splits, asked.who, candidates.labels, len(clusters.names))
    return Prepared(
        settings, asked, clusters, places, candidates, tissues[0] if len(tissues) == 1 else None,
        symbols, solver, expert, plan, folds, learned, notes,
    )  # fmt: skip


def _fields(options: Mapping[str, Any]) -> dict[str, Any]:
    fields = {k: v for k, v in options.items() if k in AnnotateSettings.model_fields}
    fields["context_columns"] = dict(options.get("context_columns") or {})
    return fields


def human_symbols(data: Data, organism: str | None, notes: list[str]) -> Symbols:
    """Return the genes by human symbols, without those that every cell lists.

    Raises
    ------
    InputError
        When the data look like mouse, or say another species, and nobody said what to do.
    """
    said = organism or data.organism
    is_human = said is not None and said.casefold() in HUMAN
    is_mouse = said is not None and said.casefold() in ("mouse", "mus musculus", "ncbitaxon:10090")
    looks = looks_like_mouse(data.genes)
    if organism is None and not is_human and (is_mouse or looks or said is not None):
        why = f"the data say {said}" if said else f"genes are spelled as of mouse ({data.genes[0]})"
        alike = is_mouse or (looks and said is None)
        mend = "only human and mouse can be named"
        if alike:
            mend = (
                "name organism mouse (--organism mouse) to take them for the human genes of the "
                "same symbol"
            )
        raise InputError(f"{why}, but cell types are known by genes of human; {mend}")
    genes = data.genes
    if is_mouse or (looks and organism is None):
        genes = [gene.upper() for gene in genes]
        known = len(human_genes() & set(genes))
        notes.append(
            "genes of mouse are taken for the human genes of the same symbol (Cd3d for CD3D): "
            f"{known:,} of {len(genes):,} have one"
        )
    return index_symbols(telling(genes))


def species(organism: str | None) -> str | None:
    """Return how data name the species that a user names.

    Raises
    ------
    UseError
        When it is neither human nor mouse.
    """
    if organism is None or organism.casefold() in HUMAN:
        return organism
    if organism.casefold() in ("mouse", "mus musculus", "ncbitaxon:10090"):
        return "Mus musculus"
    raise UseError(f"organism is {organism!r}; expected human or mouse")


def _training(puzzles: str | Path | None) -> tuple[dict[str, list[Puzzle]], list[Path]]:
    """Read the training and validation splits of a build (both may be empty), with their files."""
    found = {} if puzzles is None else find_splits(puzzles)
    named = {"train": found.get("train", found.get("all")), "validation": found.get("validation")}
    splits = {name: read_puzzles(path) if path else [] for name, path in named.items()}
    return splits, [path for path in named.values() if path]


def make_solver(asked: SolveSettings, splits: Mapping[str, list[Puzzle]]) -> Solver:
    """Make the solver, with what it has to learn from."""
    if asked.who == "centroids":
        if not splits["train"]:
            raise UseError(
                "centroids learn from puzzles with answers: name the folder of a build with puzzles"
            )
        return choose_solver(asked, splits["train"], splits["validation"])
    if asked.who == "atlas":
        return _solver(asked.model_dump_json(), type(asked))
    solver = choose_solver(asked)
    votes = solver.solver if isinstance(solver, Told) else solver
    if isinstance(votes, VotingSolver):
        votes.tolerant = True  # as single answers are read here
    return solver


@lru_cache(2)
def _solver(settings: str, kind: type[SolveSettings]) -> Solver:
    """Make a solver that takes seconds to make, once in a session."""
    return choose_solver(kind.model_validate_json(settings))


def _expert(
    solver: Solver, asked: SolveSettings, beside: str | None, splits: Mapping[str, list[Puzzle]]
) -> Any:
    """Return who rates clusters by their genes: the solver, the one beside it, or None."""
    if asked.who in CLASSICAL:
        if beside is not None:
            raise UseError(
                f"{asked.who} decides by itself; another solver is set beside a language model"
            )
        return solver.expert  # type: ignore[attr-defined]
    if beside is None:
        return None
    if beside not in CLASSICAL:
        raise UseError(f"{beside!r} cannot stand beside; expected {', '.join(CLASSICAL)}")
    return make_solver(checked(SolveSettings, {"solver": beside}), splits).expert  # type: ignore[attr-defined]


def _candidates(
    given: str | Path | Iterable[str] | None,
    train: Sequence[Puzzle],
    tissues: Sequence[str],
    expert: Any,
    settings: AnnotateSettings,
) -> Candidates:
    if given is not None:
        return read_candidates(given, unknown_types=settings.unknown_types)
    where = ", ".join(tissues) or "any tissue"
    if train:
        types = tissue_types(train, list(tissues))
        found = read_candidates(types, unknown_types=settings.unknown_types)
        return replace(found, source=f"those that the puzzles show in {where}")
    types, source = tissue_candidates(expert, tissues)
    return Candidates(types, source=source)


def _decide(
    data: Data, prepared: Prepared, options: Mapping[str, Any], folder: Path, watch: Watch
) -> Annotation:
    """Read the cells, ask where somebody is to be asked, and settle every cluster."""
    settings, clusters = prepared.settings, prepared.clusters
    labels, notes = prepared.candidates.labels, prepared.notes
    n, m = len(clusters.names), len(labels)
    donors = _donors(data.n_cells, prepared.places)
    k = settings.top_genes
    knowledge: Knowledge | None = None
    if prepared.expert is not None:
        knowledge = know(
            prepared.expert, labels, prepared.symbols.names, k, tissue=prepared.tissue,
            others=not settings.unique and prepared.plan is None,
        )  # fmt: skip
        if not knowledge.transfers:
            notes.append(
                f"{len(prepared.symbols.names):,} genes are measured, {knowledge.measured:,} of "
                f"the {knowledge.genes:,} that {knowledge.name} knows"
            )
    places = None if knowledge is None else knowledge.places
    counted = count(
        data, prepared.symbols, clusters.codes, n, donors, k=k, places=places, watch=watch
    )
    _say_silent(counted, clusters, data, notes)
    fitted, logits, evidence = Fit(), np.zeros((n, m)), None
    constants = FITTED.get(getattr(prepared.expert, "name", ""), FITTED["markers"])
    if knowledge is not None:
        evidence = weigh(counted, knowledge)
        fitted = fit_evidence(
            prepared.folds if prepared.plan is None else [], prepared.asked, prepared.expert,
            labels, settings, _shipped(prepared.expert.name, knowledge),
        )  # fmt: skip
    votes: Votes | None = None
    records: Records = {}
    allowed = np.ones(n, dtype=bool)
    if prepared.plan is not None:
        votes, records, voted = _ask_all(prepared, folder, watch, resumes=bool(options.get("run")))
        logits = votes.logits / voted.temperature
        allowed = ~by_chance(votes, labels)
        _say_unread(votes, notes)
        if evidence is not None:
            logits = logits + evidence.scores[:, :m] / fitted.temperature
        fitted = replace(voted, temperature=voted.temperature)
        p_all, tree = np.exp(logits - logsumexp(logits, axis=1, keepdims=True)), Tree(labels, m)
    else:
        assert knowledge is not None
        assert evidence is not None
        scores = evidence.scores
        if settings.unique:
            logits = scores[:, :m] / fitted.temperature
            _refuse_too_few(n, m)
            p_all, tree = one_to_one(logits)[0], Tree(labels, m)
        else:
            p_all = probabilities(scores, m, temperature=fitted.temperature, other=constants.other)
            tree = Tree(knowledge.labels, m)
        allowed = better_than_chance(scores, m)
    chosen = None
    if settings.unique:
        _refuse_too_few(n, m)
        if prepared.plan is not None:
            p_all = one_to_one(logits)[0]
        chosen = assign_jointly(logits)
    least = LEAST if settings.min_confidence is None else settings.min_confidence
    levels = [
        tree.settle(p_all[i], least, chosen=None if chosen is None else int(chosen[i]),
                    allowed=bool(allowed[i]))
        for i in range(n)
    ]  # fmt: skip
    silent = counted.silent == counted.sizes
    levels = [
        _silent(level) if quiet else level for level, quiet in zip(levels, silent, strict=True)
    ]
    if votes is not None:
        levels = [
            _silent(level) if not answered else level
            for level, answered in zip(levels, votes.counts, strict=True)
        ]
    if not fitted.fitted:
        notes.append(f"confidence is {fitted.source}")
    said = _reasons(prepared, options, counted, knowledge, evidence, levels, votes, records)
    rows = [
        row_of(name, int(counted.sizes[i]), int(counted.donors[i]), levels[i], said[i])
        for i, name in enumerate(clusters.names)
    ]
    cells = None
    if settings.unit == "cell":
        cells = _label_cells(
            data, prepared, knowledge, counted, constants, tree, levels, votes, records, fitted,
            least, watch,
        )  # fmt: skip
    shares = p_all @ tree.share
    learned = {path.name: file_hash(path) for path in prepared.learned}
    uns = make_uns(
        clusters=clusters, candidates=labels, solver=_name(prepared), learned=learned,
        solver_settings=prepared.solver.settings,
        solver_hash=fingerprint(prepared.solver, learned),
        params=settings.model_dump() | {"min_confidence": least, "tissue": prepared.tissue},
        values=f"{data.matrix} ({data.values})",
        contexts=[] if prepared.plan is None else prepared.plan.contexts,
        batches=0 if prepared.plan is None else len(prepared.plan.batches),
        fitted=fitted, rows=rows, probabilities=shares, notes=notes,
        dots=dots(counted, rows),
    )  # fmt: skip
    key = options.get("key_added") or "cello1"
    return Annotation(key, clusters, labels, levels, shares, rows, uns, cells, notes)


def _name(prepared: Prepared) -> str:
    if prepared.plan is None:
        return str(prepared.expert.name)
    beside = f", with {prepared.expert.name}" if prepared.expert is not None else ""
    return f"{prepared.solver.name}{beside}"


def _shipped(name: str, knowledge: Knowledge) -> Fit:
    """Return the confidence that was fitted once for a solver, where it holds here."""
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


def _donors(n_cells: int, places: Sequence[Home]) -> npt.NDArray[np.intp]:
    """Return the donor of every cell as a number, shape (cells,)."""
    names = sorted({str(home.key[0]) for home in places})
    donors = np.zeros(n_cells, dtype=np.intp)
    for home in places:
        donors[home.members] = names.index(str(home.key[0]))
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


def _ask_all(
    prepared: Prepared, folder: Path, watch: Watch, *, resumes: bool
) -> tuple[Votes, Records, Fit]:
    plan = prepared.plan
    assert plan is not None

    def ask(puzzles: list[Puzzle], solver: Solver, name: str) -> Records:
        records, said = _ask(
            puzzles, solver, folder / name, prepared.learned, watch, resumes=resumes
        )
        prepared.notes.extend(said)
        return records

    where = prepared.solver.settings.get("base_url") or "this machine"
    level = logging.WARNING if prepared.sends else logging.INFO  # shown unless silenced
    _log.log(
        level,
        "%d batches of %d clusters go to %s on %s, which is told:%s", len(plan.puzzles),
        len(plan.clusters.names), prepared.solver.name, where,
        "".join(f"\n  {context}" for context in plan.contexts),
    )  # fmt: skip
    fitted = fit_votes(plan, prepared.folds, prepared.asked, prepared.solver, ask)
    records = ask(plan.puzzles, prepared.solver, "answers")
    units = [batch.clusters for batch in plan.batches]
    votes = count_votes(plan.batches, units, len(plan.clusters.names), plan.candidates, records)
    return votes, records, fitted


def _reasons(
    prepared: Prepared,
    options: Mapping[str, Any],
    counted: Counted,
    knowledge: Knowledge | None,
    evidence: Evidence | None,
    levels: Sequence[Level],
    votes: Votes | None,
    records: Records,
) -> list[dict[str, Any]]:
    names = prepared.clusters.names
    found: list[dict[str, Any]] = [{} for _ in names]
    if knowledge is not None and evidence is not None:
        known = sources_of(prepared.expert, {level.fine for level in levels})
        found = verdicts(counted, knowledge, evidence, levels, names, known)
    if prepared.plan is None or votes is None:
        return found
    labels = prepared.candidates.labels
    best = [labels.index(level.fine) for level in levels]
    table, aliases = prepared.asked.markers, options.get("aliases")
    said = quotes(
        prepared.plan, best, records, counted, markers=None if table is None else Path(table),
        aliases=None if aliases is None else Path(aliases),
    )  # fmt: skip
    for i, level in enumerate(levels):
        quoted, count_ = said[i], int(votes.counts[i])
        own = found[i]
        text = own.get("reason") or headline(names[i], level, counted, i)
        given = int(votes.chosen[i, best[i]])
        text += f" The solver gave it {level.fine} in {given} of {count_} answers"
        text += f"; {quoted.pop('quote')}" if "quote" in quoted else "."
        if not own:
            own = quoted
        else:
            own["unsupported"] = quoted["unsupported"]
        found[i] = own | {
            "reason": text, "votes": given, "batches": count_, "unread": int(votes.unread[i]),
        }  # fmt: skip
    return found


def _label_cells(
    data: Data,
    prepared: Prepared,
    knowledge: Knowledge | None,
    counted: Counted,
    constants: Fitted,
    tree: Tree,
    levels: Sequence[Level],
    votes: Votes | None,
    records: Records,
    fitted: Fit,
    least: float,
    watch: Watch,
) -> PerCell:
    if prepared.plan is None:
        assert knowledge is not None
        return label_cells(
            data, prepared.symbols, knowledge, counted, prepared.clusters, tree, levels,
            k=prepared.settings.top_genes, temperature=constants.cell_temperature,
            other=constants.other, least=least, watch=watch,
        )  # fmt: skip
    return cells_by_votes(data, prepared.plan, records, levels, fitted.temperature, least)


def _ask(
    puzzles: list[Puzzle],
    solver: Solver,
    folder: Path,
    learned: list[Path],
    watch: Watch,
    *,
    resumes: bool,
) -> tuple[Records, list[str]]:
    """Have batches answered in a run folder; what an earlier call answered is not asked again.

    Returns the answers, and what they suffered from.
    """
    path = folder / "puzzles.parquet"
    if path.exists() and [p.id for p in read_puzzles(path)] != [p.id for p in puzzles]:
        raise InputError(
            f"{folder.parent} holds an annotation of other data or with other settings; "
            "choose another run folder"
        )
    if not path.exists():
        write_puzzles(puzzles, path)
    solve(
        path, solver, folder, inputs=learned, watch=lambda n, of: watch(folder.name, n / max(1, of))
    )
    owed, failures = unanswered(folder)
    if owed:
        stopped = solver.stopped if isinstance(solver, RemoteSolver) else None
        why = stopped or (failures[0][0] if failures else "no answer")
        again = "run it again to go on" if resumes else "with a run folder it can go on"
        raise InputError(f"{owed} of {len(puzzles)} batches are unanswered ({why}); {again}")
    asked, records = read_solved(folder)
    return records, [f"{solver.name}: {line}" for line in remarks(asked, records)]


@contextmanager
def _workspace(run: str | Path | None) -> Iterator[Path]:
    if run is not None:
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="cello1-") as folder:
        yield Path(folder)
