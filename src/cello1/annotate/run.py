"""Annotate an AnnData: plan, ask, pool, write."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cello1.annotate.calibrate import Fit, Fold, fit, make_folds
from cello1.annotate.plan import Plan, make_plan
from cello1.annotate.pool import count_votes, settle
from cello1.annotate.reasons import reasons
from cello1.annotate.table import Outcome, write_obs, write_uns
from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles, read_splits, write_puzzles
from cello1.recipes import AnnotateSettings, SolveSettings, checked
from cello1.runs import file_hash
from cello1.solvers.base import Solver
from cello1.solvers.choose import choose_solver
from cello1.solvers.run import read_solved, remarks, solve, unanswered

Watch = Callable[[str, float], None]
Records = Mapping[str, Mapping[str, Any]]


def annotate(
    adata: Any,
    *,
    groupby: str | None = None,
    leiden: float | None = None,
    candidates: str | Path | Iterable[str] | None = None,
    solver: str | SolveSettings = "markers",
    puzzles: str | Path | None = None,
    aliases: str | Path | None = None,
    key_added: str = "cello1",
    unit: Literal["cluster", "cell"] = "cluster",
    rank: Literal["cells", "pseudobulk", "specific"] = "cells",
    batches: int | None = None,
    batch_size: int | None = None,
    unique: bool = False,
    min_confidence: float = 0.0,
    unknown_types: bool = False,
    top_genes: int = 50,
    min_genes: int = 50,
    donor_key: str = "donor_id",
    batch_key: str | None = None,
    layer: str | None = None,
    context_columns: Mapping[str, str] | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    copy: bool = False,
    watch: Watch = lambda what, share: None,
    say: Callable[[Plan, Solver], None] | None = None,
) -> Any:
    """Label the clusters (or cells) of a data set, all of a donor together.

    Parameters
    ----------
    adata
        Cells in memory, with counts or log-normalised values; `X` is never changed.
    groupby
        Column of obs with the clusters.
    leiden
        Compute Leiden clusters at this resolution instead, into ``obs[key_added + "_leiden"]``.
    candidates
        Types on offer: a list, a text file with one on each line, or a column such as
        ``reference.obs["cell_type"]``. By default the types that `puzzles` show in the tissue.
    solver
        ``markers``, ``centroids`` (learns from `puzzles`), ``mini``, ``hf:FOLDER``,
        ``openai:MODEL``, or settings with all their options.
    puzzles
        Folder of a build: `centroids` learn from its training split, and the confidence is fitted
        on its validation split.
    aliases
        HGNC's table of alias and previous symbols, to read reasons with; by default the names of
        some 100 proteins are known.
    key_added
        Name of the result in obs and uns.
    unit
        Label ``cluster`` or each ``cell``.
    rank
        What stands for a cluster in a batch: one of its ``cells``, a ``pseudobulk`` of up to 50
        (needs counts), or the genes that are ``specific`` to it.
    batches
        How many each cluster (default 20) or cell (default 3) takes part in.
    batch_size
        Clusters in a batch at most; by default half of them, or all when `unique`.
    unique
        Give every type to one cluster only.
    min_confidence
        Below it a cluster is ``unknown``.
    unknown_types
        Allow candidates that the Cell Ontology does not know.
    top_genes, min_genes
        Genes listed per cell; cells that express fewer than `min_genes` are used only where a
        cluster has no others.
    donor_key, batch_key
        Columns of obs; a batch never crosses donors. Without `donor_key`, all cells are one donor.
    layer
        ``X``, ``raw.X`` or a layer; by default the first matrix with counts.
    context_columns
        Column -> sentence with ``{value}`` that is added to the context.
    seed
        Of every random choice.
    run
        Folder for questions and answers: a killed call goes on from there.
    copy
        Return an annotated copy and leave `adata` alone.
    watch
        Called with (what is being done, share done).
    say
        Called with the plan and the solver before anything is asked. By default the contexts are
        printed when they leave this machine.

    Returns
    -------
    AnnData or None
        The copy, if asked for. Else `adata` has new fields: categorical ``obs[key_added]`` and
        ``obs[key_added + "_ontology_term_id"]``, ``obs[key_added + "_confidence"]`` in [0, 1] (of
        the best candidate, also where the label is ``unknown`` or ``none of these``), and
        ``uns[key_added]``, which :func:`cello1.get.annotation` reads.

    Raises
    ------
    UseError
        When settings make no sense together.
    InputError
        When the data cannot be used, or batches stay without an answer.
    """
    options = dict(locals())
    adata = adata.copy() if copy else adata
    prepared = prepare(adata, options)
    plan, asker = prepared.plan, prepared.solver
    (say or announce)(plan, asker)
    with _workspace(run) as folder:

        def ask(puzzles: list[Puzzle], solver: Solver, name: str) -> Records:
            return _ask(puzzles, solver, folder / name, prepared.learned, watch, resumes=bool(run))

        fitted = fit(
            plan,
            prepared.folds,
            prepared.asked,
            asker,
            ask,
        )
        records = ask(plan.puzzles, asker, "answers")
    outcome = decide(plan, records, fitted)
    write_obs(adata, plan, outcome, key_added)
    table = prepared.asked.markers
    said = reasons(
        plan, outcome, records, markers=None if table is None else Path(table),
        aliases=None if aliases is None else Path(aliases),
    )  # fmt: skip
    learned = {path.name: file_hash(path) for path in prepared.learned}
    write_uns(adata, plan, outcome, asker, learned, fitted, key_added, said)
    return adata if copy else None


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is asked.

    Attributes
    ----------
    plan
        The batches.
    asked, solver
        Who answers.
    folds
        Donors of known type that will be asked about, for the confidence.
    learned
        Files that the solver and the confidence are learned from.
    """

    plan: Plan
    asked: SolveSettings
    solver: Solver
    folds: list[Fold]
    learned: list[Path]


def prepare(adata: Any, options: Mapping[str, Any]) -> Prepared:
    """Check everything and draw the batches; `options` are those of :func:`annotate`."""
    fields = {k: v for k, v in options.items() if k in AnnotateSettings.model_fields}
    fields["context_columns"] = dict(options.get("context_columns") or {})
    settings = checked(AnnotateSettings, fields)
    asked = options["solver"]
    if not isinstance(asked, SolveSettings):
        asked = checked(SolveSettings, {"solver": asked, "seed": settings.seed})
    splits, learned = _training(options["puzzles"])
    plan = make_plan(
        adata, groupby=options["groupby"], leiden_resolution=options["leiden"],
        candidates=options["candidates"], train=splits["train"], settings=settings,
        key_added=options["key_added"],
    )  # fmt: skip
    solver = make_solver(asked, splits)
    return Prepared(plan, asked, solver, list(make_folds(plan, splits, asked.solver)), learned)


def _training(puzzles: str | Path | None) -> tuple[dict[str, list[Puzzle]], list[Path]]:
    """Read the training and validation splits of a build (both may be empty), with their files."""
    found = {} if puzzles is None else read_splits(Path(puzzles))
    named = {"train": found.get("train", found.get("all")), "validation": found.get("validation")}
    splits = {name: read_puzzles(path) if path else [] for name, path in named.items()}
    return splits, [path for path in named.values() if path]


def make_solver(asked: SolveSettings, splits: Mapping[str, list[Puzzle]]) -> Solver:
    """Make the solver, with what it has to learn from."""
    if asked.solver == "centroids":
        if not splits["train"]:
            raise UseError(
                "centroids learn from puzzles with answers: name the folder of a build with puzzles"
            )
        return choose_solver(asked, splits["train"], splits["validation"])
    return choose_solver(asked)


def announce(plan: Plan, solver: Solver) -> None:
    """Print what a solver that is not on this machine will be told of the donors."""
    if hasattr(solver, "dry_run"):
        print(f"{len(plan.puzzles)} prompts go to {solver.settings.get('base_url')} and say:")
        for context in plan.contexts:
            print(f"  {context}")


def decide(plan: Plan, records: Records, fitted: Fit) -> Outcome:
    """Pool the answers to one verdict for each cluster and, where asked for, for each cell."""
    settings, names = plan.settings, plan.clusters.names
    units = [batch.clusters for batch in plan.batches]
    votes = count_votes(plan.batches, units, len(names), plan.candidates, records)
    verdicts = settle(votes, temperature=fitted.temperature, unique=settings.unique)
    cells = None
    if settings.unit == "cell":
        asked = np.unique([cell for batch in plan.batches for cell in batch.cells])
        slot = {cell: i for i, cell in enumerate(asked.tolist())}
        owners = [[slot[cell] for cell in batch.cells] for batch in plan.batches]
        own = count_votes(plan.batches, owners, len(asked), plan.candidates, records)
        cells = (asked, settle(own, temperature=fitted.temperature))
    return Outcome(votes, verdicts, cells)


def _ask(
    puzzles: list[Puzzle],
    solver: Solver,
    folder: Path,
    learned: list[Path],
    watch: Watch,
    *,
    resumes: bool,
) -> Records:
    """Have batches answered in a run folder; what an earlier call answered is not asked again."""
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
        why = getattr(solver, "stopped", None) or (failures[0][0] if failures else "no answer")
        again = "run it again to go on" if resumes else "with a run folder it can go on"
        raise InputError(f"{owed} of {len(puzzles)} batches are unanswered ({why}); {again}")
    asked, records = read_solved(folder)
    for line in remarks(asked, records):
        warnings.warn(f"{solver.name}: {line}", stacklevel=2)
    return records


@contextmanager
def _workspace(run: str | Path | None) -> Iterator[Path]:
    if run is not None:
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="cello1-") as folder:
        yield Path(folder)
