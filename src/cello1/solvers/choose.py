"""From settings to a solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from cello1.errors import InputError, UseError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import SolveSettings
from cello1.solvers.base import Solver
from cello1.solvers.vote import VotingSolver

CLASSICAL = ("chance", "markers", "centroids")


def choose_solver(
    settings: SolveSettings, train: Sequence[Puzzle] = (), validation: Sequence[Puzzle] = ()
) -> Solver:
    """Make the solver that some settings name; what it needs is loaded now.

    Parameters
    ----------
    settings
        Who answers, and how.
    train, validation
        Puzzles to learn from and to choose a model on, for `centroids`.

    Raises
    ------
    UseError
        When the name is of no solver.
    InputError
        When a model, a table or training puzzles cannot be used.
    """
    kind, _, name = settings.solver.partition(":")
    if kind in CLASSICAL:
        return _classical(settings, train, validation)
    if settings.solver == "mini" or (kind == "hf" and name):
        return _local(settings, name)
    if kind == "openai" and name:
        return _endpoint(settings, name)
    raise UseError(
        f"no solver {settings.solver!r}; there are mini, {', '.join(CLASSICAL)}, "
        "hf:FOLDER_OR_NAME and openai:MODEL"
    )


def runs_models() -> bool:
    """Say whether what local language models need is installed."""
    return all(find_spec(name) is not None for name in ("torch", "transformers"))


def _classical(
    settings: SolveSettings, train: Sequence[Puzzle], validation: Sequence[Puzzle]
) -> Solver:
    from cello1.solvers.classical.centroids import Centroids
    from cello1.solvers.classical.chance import Chance
    from cello1.solvers.classical.expert import ClassicalSolver, Expert
    from cello1.solvers.classical.markers import Markers

    expert: Expert
    if settings.solver == "chance":
        expert = Chance(settings.seed)
    elif settings.solver == "markers":
        expert = Markers.from_file(None if settings.markers is None else Path(settings.markers))
    else:
        expert = Centroids(train, validation)
    return ClassicalSolver(expert, joint=not settings.alone)


def _local(settings: SolveSettings, name: str) -> Solver:
    if not runs_models():
        raise InputError(
            f"solver {settings.solver} needs torch and transformers, which are not installed; "
            "install them with: pip install 'cello1[local]'"
        )
    from cello1.solvers.local.language import LanguageModel, LanguageSolver
    from cello1.solvers.local.likelihood import LikelihoodSolver
    from cello1.solvers.local.mini import FOLDER, Mini

    if settings.engine == "vllm":
        return _vllm(settings, name or str(FOLDER))
    language = LanguageModel(name) if name else Mini()
    if settings.decode == "assign":
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
            f"solver {settings.solver} needs {' and '.join(missing)}, which cannot be found; "
            "install with: pip install 'cello1[api]'"
        )
    from cello1.solvers.endpoint.request import Learned
    from cello1.solvers.endpoint.solver import EndpointSolver

    learned = Learned()
    return _voting(
        settings,
        lambda k: EndpointSolver(
            name,
            base_url=settings.base_url,
            in_flight=settings.in_flight,
            per_minute=settings.per_minute,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.sampling_temperature,
            seed=settings.seed,
            sample=k,
            price_in=settings.price_in,
            price_out=settings.price_out,
            max_cost=None if settings.max_cost is None else settings.max_cost / settings.samples,
            cache=None if settings.cache is None else Path(settings.cache),
            learned=learned,
        ),
    )


def _voting(settings: SolveSettings, sampler: Callable[[int], Solver]) -> Solver:
    if settings.samples == 1:
        return sampler(0)
    # One solver per sample for the whole run: endpoints keep accounts.
    return VotingSolver(
        cache(sampler), settings.samples, permute=settings.permute, seed=settings.seed
    )
