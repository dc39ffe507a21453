"""Make the solver that settings describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.source import find_puzzles, find_splits
from cello1.puzzles.table import read_puzzles
from cello1.recipes import SolveSettings
from cello1.recipes.solve import SPLIT, runs_models
from cello1.solvers.base import Solver
from cello1.solvers.told import telling
from cello1.solvers.vote import voting

if TYPE_CHECKING:
    from cello1.solvers.classical.atlas import AtlasExpert
    from cello1.solvers.classical.expert import Expert
    from cello1.solvers.evidence import AtlasEvidence

CLASSICAL = ("chance", "markers", "centroids", "atlas")


def choose_solver(
    settings: SolveSettings,
    train: Sequence[Puzzle] = (),
    validation: Sequence[Puzzle] = (),
    *,
    load: bool = True,
) -> Solver:
    """Make the solver that settings describe, and load what it needs.

    Parameters
    ----------
    settings
        The solver and its options.
    train, validation
        Puzzles to fit `centroids` on, and to select their model on.
    load
        Load the weights of a local model. Otherwise only its name and settings are available.

    Raises
    ------
    UseError
        When there is no solver of this name.
    InputError
        When a model, a table or training puzzles cannot be used.
    """
    settings = settings.model_copy(update={"solver": settings.who})
    kind, _, name = settings.who.partition(":")
    if settings.engine == "ray":
        from cello1.solvers.on_ray import OnRay

        here = settings.model_copy(update={"engine": "transformers", "address": None})
        return OnRay(
            choose_solver(here, train, validation, load=False),
            lambda: choose_solver(here, train, validation),
            settings.address,
            model=kind not in CLASSICAL,
        )
    if kind in CLASSICAL:
        return _classical(settings, train, validation)
    if settings.who == "atlas+mini":
        return _together(settings, load)
    if settings.who == "mini" or (kind == "hf" and name):
        return _informed(_local(settings, name, load), settings)
    if kind == "openai" and name:
        return _informed(_endpoint(settings, name), settings)
    raise UseError(
        f"no solver {settings.who!r}; there are mini, {', '.join(CLASSICAL)}, atlas+mini, "
        "hf:FOLDER_OR_NAME and openai:MODEL"
    )


@dataclass(frozen=True)
class Chosen:
    """The puzzles and the solver of a call of `solve`.

    Attributes
    ----------
    puzzles
        The file.
    solver
        The solver.
    learned
        The files it was fitted on.
    """

    puzzles: Path
    solver: Solver
    learned: list[Path]


def choose_for(
    puzzles: str | Path,
    settings: SolveSettings,
    *,
    split: str = SPLIT,
    revision: str | None = None,
    train: str | Path | None = None,
    validation: str | Path | None = None,
) -> Chosen:
    """Find the puzzles to solve and make the solver, fitted if it needs training puzzles.

    Parameters
    ----------
    puzzles
        Their source: see :mod:`cello1.puzzles.source`.
    settings
        The solver and its options.
    split
        Which split to solve, where there are several.
    revision
        Branch, tag or commit of puzzles on the hub.
    train, validation
        Files to fit centroids on, and to select their model on; by default those of the folder.

    Raises
    ------
    UseError
        When the folder has no such split, training puzzles are missing, or there is no solver of
        this name.
    InputError
        When a file, a model or a table cannot be used.
    """
    path = find_puzzles(puzzles, split, revision=revision)
    files: dict[str, Path] = {}
    if settings.who == "centroids":
        named = {"train": train, "validation": validation}
        beside = find_splits(puzzles, revision=revision) if None in named.values() else {}
        for name, file in named.items():
            found = find_puzzles(file, name) if file else beside.get(name)
            files |= {name: found} if found else {}
        if "train" not in files:
            raise UseError("centroids learn from puzzles with answers: name a file with --train")
    known = {name: read_puzzles(file) for name, file in files.items()}
    solver = choose_solver(settings, known.get("train", ()), known.get("validation", ()))
    return Chosen(path, solver, [*files.values()])


def _classical(
    settings: SolveSettings, train: Sequence[Puzzle], validation: Sequence[Puzzle]
) -> Solver:
    from cello1.solvers.classical.expert import ClassicalSolver

    # Imported separately: the atlas needs neither pandas nor scikit-learn.
    expert: Expert
    if settings.who == "chance":
        from cello1.solvers.classical.chance import Chance

        expert = Chance(settings.seed)
    elif settings.who == "markers":
        from cello1.solvers.classical.markers import Markers

        expert = Markers.from_file(settings.markers)
    elif settings.who == "atlas":
        expert = _atlas(settings)
    else:
        from cello1.solvers.classical.centroids import Centroids

        expert = Centroids(train, validation)
    return ClassicalSolver(expert, joint=not settings.alone)


def _atlas(settings: SolveSettings) -> AtlasExpert:
    from cello1.atlas import Atlas
    from cello1.solvers.classical.atlas import AtlasExpert

    return AtlasExpert(
        Atlas.read(settings.atlas, only=settings.atlas_only, without=settings.without),
        {
            "atlas": None if settings.atlas is None else str(settings.atlas),
            "atlas_only": settings.atlas_only,
            "without": list(settings.without),
        },
    )


def evidence_for(settings: SolveSettings) -> AtlasEvidence:
    """Return what adds evidence to puzzles, from the atlas in the settings."""
    from cello1.solvers.evidence import AtlasEvidence

    return AtlasEvidence(_atlas(settings))


def _informed(solver: Solver, settings: SolveSettings) -> Solver:
    if settings.evidence is None:
        return solver
    tell = evidence_for(settings)
    told = telling(solver, tell, tell.settings)
    told.name += " with evidence"
    return told


def _together(settings: SolveSettings, load: bool) -> Solver:
    _need_models(settings)
    from cello1.solvers.classical.expert import ClassicalSolver
    from cello1.solvers.local.likelihood import LikelihoodSolver
    from cello1.solvers.local.mini import Mini
    from cello1.solvers.together import Together

    expert = Together(_atlas(settings), LikelihoodSolver(Mini(load=load)))
    return ClassicalSolver(expert, joint=not settings.alone)


def _need_models(settings: SolveSettings) -> None:
    if not runs_models():
        raise InputError(
            f"solver {settings.who} needs torch and transformers, which are not installed; "
            "install them with: pip install 'cello1[local]'; --solver atlas needs neither"
        )


def _local(settings: SolveSettings, name: str, load: bool) -> Solver:
    _need_models(settings)
    from cello1.solvers.local.language import LanguageModel, LanguageSolver
    from cello1.solvers.local.likelihood import LikelihoodSolver, rates_candidates
    from cello1.solvers.local.mini import FOLDER, Mini

    if settings.engine == "vllm":
        return _vllm(settings, name or str(FOLDER))
    language = LanguageModel(name, load=load) if name else Mini(load=load)
    wanted = settings.valid or settings.samples > 1 or settings.temperature is not None
    writes = settings.decode == "generate" or wanted
    if settings.decode == "assign" or (not writes and rates_candidates(language)):
        return LikelihoodSolver(language)
    return _voting(
        settings,
        lambda k: LanguageSolver(
            language,
            valid=settings.valid,
            temperature=settings.sampling_temperature,
            seed=settings.seed,
            sample=k,
            max_new_tokens=settings.max_new_tokens,
        ),
    )


def _vllm(settings: SolveSettings, name: str) -> Solver:
    if settings.decode == "assign":
        raise UseError("decode=assign cannot be used with engine vllm; use engine transformers")
    from cello1.solvers.local.vllm import VllmSolver

    return _voting(
        settings,
        lambda k: VllmSolver(
            name,
            valid=settings.valid,
            temperature=settings.sampling_temperature,
            seed=settings.seed,
            sample=k,
            max_new_tokens=settings.max_new_tokens,
        ),
    )


def _endpoint(settings: SolveSettings, name: str) -> Solver:
    if missing := [p for p in ("openai", "httpx2", "tenacity") if find_spec(p) is None]:
        raise InputError(
            f"solver {settings.who} needs {' and '.join(missing)}, which cannot be found; "
            "install with: pip install 'cello1[api]'"
        )
    from cello1.solvers.endpoint.request import Learned
    from cello1.solvers.endpoint.solver import EndpointSolver

    learned = Learned()
    limit = None if settings.max_cost is None else settings.max_cost / settings.samples
    each = settings.model_copy(update={"max_cost": limit})
    return _voting(settings, lambda k: EndpointSolver(name, each, sample=k, learned=learned))


def _voting(settings: SolveSettings, sampler: Callable[[int], Solver]) -> Solver:
    if settings.samples == 1:
        return sampler(0)
    # One solver per sample for the whole run: endpoints keep accounts.
    return voting(cache(sampler), settings.samples, permute=settings.permute, seed=settings.seed)
