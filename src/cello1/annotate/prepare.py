"""Prepare an annotation: find clusters and candidates, make the solver, draw the questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cello1.annotate.calibrate import Fold, make_folds
from cello1.annotate.candidates import Candidates, read_candidates, tissue_types
from cello1.annotate.clusters import Clusters, find_clusters
from cello1.annotate.data import TISSUE_COLUMNS, Data, looks_like_mouse
from cello1.annotate.evidence import knows, telling, tissue_candidates
from cello1.annotate.plan import Plan, make_plan
from cello1.cells.genes import Symbols, index_symbols
from cello1.cells.loaded import DonorGroup
from cello1.cells.symbols import HUMAN, human_genes
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_splits
from cello1.puzzles.table import read_puzzles
from cello1.recipes import AnnotateSettings, AnnotateSolveSettings, SolveSettings, checked
from cello1.runs import Watch
from cello1.solvers.base import RemoteSolver, Solver
from cello1.solvers.choose import choose_solver
from cello1.solvers.told import Told
from cello1.solvers.vote import VotingSolver

# Solvers that rate cells by their genes; all others answer batches.
CLASSICAL = ("markers", "centroids", "atlas")
_MOUSE = ("mouse", "mus musculus", "ncbitaxon:10090")


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the cells are read and questions are asked.

    Attributes
    ----------
    settings, asked
        Settings of the annotation, and of the solver.
    clusters, groups
        The clusters, and the donors.
    candidates
        The types on offer.
    symbols
        The genes, without those that every cell lists.
    solver, expert
        The solver, and the one that rates cells by their genes (the solver itself or the one
        beside it), or None.
    plan
        The questions to a language model, or None.
    folds
        Donors of known type, to fit the confidence on.
    learned
        Files that the solver and the confidence are fitted on.
    notes
        What was decided or guessed.
    """

    settings: AnnotateSettings
    asked: SolveSettings
    clusters: Clusters
    groups: list[DonorGroup]
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
        """Return whether prompts leave this machine."""
        return isinstance(self.solver, RemoteSolver)


def prepare(data: Data, options: Mapping[str, Any], watch: Watch) -> Prepared:
    """Check the options, find clusters and candidates, and draw a language model's questions."""
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
    groups = data.donor_groups(settings)
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
        plan = make_plan(data, clusters, candidates.labels, groups, settings)
        if plan.left_out:
            notes.append(
                f"clusters {', '.join(plan.left_out)} share no donor with another one, so the "
                "solver was not asked about them"
            )
    folds = make_folds(splits, asked.who, candidates.labels, len(clusters.names))
    return Prepared(
        settings, asked, clusters, groups, candidates, tissues[0] if len(tissues) == 1 else None,
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
        When the data seem to be of mouse, or name another species, and no organism is given.
    """
    said = organism or data.organism
    is_human = said is not None and said.casefold() in HUMAN
    is_mouse = said is not None and said.casefold() in _MOUSE
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
    """Return the name that data use for the user's species.

    Raises
    ------
    UseError
        When it is neither human nor mouse.
    """
    if organism is None or organism.casefold() in HUMAN:
        return organism
    if organism.casefold() in _MOUSE:
        return "Mus musculus"
    raise UseError(f"organism is {organism!r}; expected human or mouse")


def _training(puzzles: str | Path | None) -> tuple[dict[str, list[Puzzle]], list[Path]]:
    """Read the training and validation splits of a build (both may be empty), with their files."""
    found = {} if puzzles is None else find_splits(puzzles)
    named = {"train": found.get("train", found.get("all")), "validation": found.get("validation")}
    splits = {name: read_puzzles(path) if path else [] for name, path in named.items()}
    return splits, [path for path in named.values() if path]


def make_solver(asked: SolveSettings, splits: Mapping[str, list[Puzzle]]) -> Solver:
    """Make the solver, fitted on the splits if it needs them."""
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
        votes.tolerant = True  # as single answers are read
    return solver


@lru_cache(2)
def _solver(settings: str, kind: type[SolveSettings]) -> Solver:
    """Make a solver once per session, since it takes seconds to load."""
    return choose_solver(kind.model_validate_json(settings))


def _expert(
    solver: Solver, asked: SolveSettings, beside: str | None, splits: Mapping[str, list[Puzzle]]
) -> Any:
    """Return what rates clusters by their genes: the solver, the one beside it, or None."""
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
    return Candidates(types, source=source, is_guess=True)
