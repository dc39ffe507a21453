"""The suite: every solver on the fixed set of real puzzles, each study left out.

Run ``python benchmarks/suite.py DATA`` with the folder of the shared data (``cells/``,
``more_cells/``, ``cellpuzzles_sample.jsonl``). ``benchmarks/suite.yaml`` says which puzzles are
built of which file, which study they come from, and which sources of the atlas may share donors
with them. Whatever of a study went into a source, a weight or a training is left out when that
study is tested; what cannot be left out is refused and not shown.

Prints cell- and batch-level accuracy by study with 95 % intervals (over donors where there are
several, else over puzzles), the macro average over studies, and the calibration error of joint
probabilities. ``--published`` prints the published rows beside the paper's figures for all of them.
``--speed`` prints puzzles per second, memory and load time beside markers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import cello1 as co
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings, SolveSettings
from cello1.report.page import N_PUBLISHED, PUBLISHED
from cello1.scoring.calibration import ece, positions
from cello1.scoring.score import score
from cello1.scoring.statistics import Interval, clustered_interval
from cello1.solvers.base import Failure, Response, Solver
from cello1.solvers.choose import choose_solver

HERE = Path(__file__).parent
HEAD = "| solver | cell | batch | ECE |\n|---|---|---|--:|"
TRAIN_DONORS = ("101", "1015", "1244", "1256")  # of Kang 2018
VALIDATION_DONORS = ("1039", "107")


@dataclass(frozen=True)
class Entrant:
    """A solver as it is asked.

    Attributes
    ----------
    name
        Shown in tables.
    settings
        Who answers, and how.
    """

    name: str
    settings: SolveSettings

    @property
    def kind(self) -> str:
        """What the manifest calls it."""
        return self.settings.who.partition(":")[0]


ENTRANTS = (
    Entrant("chance, jointly", SolveSettings(solver="chance")),
    Entrant("markers, alone", SolveSettings(solver="markers", alone=True)),
    Entrant("markers, jointly", SolveSettings(solver="markers")),
    Entrant("centroids of Kang, alone", SolveSettings(solver="centroids", alone=True)),
    Entrant("centroids of Kang, jointly", SolveSettings(solver="centroids")),
    Entrant("mini, writing", SolveSettings(solver="mini", valid=True, max_new_tokens=1_000)),
    Entrant("mini, assign", SolveSettings(solver="mini", decode="assign")),
    Entrant("atlas, alone", SolveSettings(solver="atlas", alone=True)),
    Entrant("atlas, jointly", SolveSettings(solver="atlas")),
)


@dataclass(frozen=True)
class Measured:
    """What one solver scored on one study."""

    cell: Interval
    batch: Interval
    ece: float | None
    puzzles: int


def refuse_clash(manifest: dict[str, Any], entrant: Entrant, name: str) -> str | None:
    """Say why a solver may not be tested on a study, or None when it may.

    It may when it learned nothing from the study, or when the tested donors were held out whole.
    A source of the atlas that comes from the study is no reason: it is left out by name.
    """
    study = manifest["studies"][name]
    if entrant.kind not in manifest["learned"]:
        return f"the manifest does not say what {entrant.kind} learned from"
    if study["study"] not in manifest["learned"][entrant.kind] or study.get("held_out"):
        return None
    return f"{entrant.kind} learned from {study['study']}"


def left_out(study: str, sources: Iterable[Any]) -> tuple[str, ...]:
    """Return the names to leave out of the atlas when a study is tested."""
    return tuple(sorted({s.study for s in sources if s.study == study}))


def build(data: Path, manifest: dict[str, Any], name: str, folder: Path) -> list[Puzzle]:
    """Build the puzzles of one study; the same settings and seed give the same puzzles."""
    study = manifest["studies"][name]
    settings = BuildSettings(split="none", **study["build"])
    co.build([data / study["file"]], folder / name, settings)
    puzzles = co.read_puzzles(folder / name / "all.parquet")
    donors = study.get("donors")
    return [p for p in puzzles if donors is None or p.meta["donor_id"] in donors]


def ask(solver: Solver, puzzles: Sequence[Puzzle]) -> dict[str, Response]:
    """Ask a solver all puzzles; a puzzle that cannot be answered counts as wrong."""
    answers: dict[str, Response] = {}

    def keep(puzzle_id: str, result: Response | Failure) -> None:
        answers[puzzle_id] = Response("") if isinstance(result, Failure) else result

    solver.solve(puzzles, keep)
    return answers


def measure(
    puzzles: Sequence[Puzzle], answers: dict[str, Response], clusters: Sequence[str] | None
) -> Measured:
    """Score answers; the calibration error is that of single cells."""
    scores = [score(p, answers[p.id].text) for p in puzzles]
    confidence, right = [], []
    for puzzle in puzzles:
        p = answers[puzzle.id].probabilities
        if p is not None:
            p = np.clip(p, 0, 1)
            chosen, gold = p.argmax(axis=1), positions(puzzle, puzzle.answer or ())
            confidence += p.max(axis=1).tolist()
            right += (chosen == gold).tolist()
    return Measured(
        clustered_interval([s.cell_accuracy for s in scores], clusters),
        clustered_interval([float(s.exact) for s in scores], clusters),
        ece(confidence, right) if confidence else None,
        len(puzzles),
    )


def clusters_of(puzzles: Sequence[Puzzle]) -> list[str] | None:
    """Return the donors where there are several, else None: puzzles are resampled then."""
    donors = [str(p.meta.get("donor_id")) for p in puzzles]
    return donors if len(set(donors)) > 1 else None


def solver_for(
    entrant: Entrant,
    kang: Sequence[Puzzle],
    without: tuple[str, ...] = (),
    temperature: float | None = None,
) -> Solver:
    """Make a solver; centroids learn from Kang's training donors."""
    settings = entrant.settings
    if entrant.kind == "atlas":
        solver: Any = choose_solver(settings.model_copy(update={"without": without}))
        if temperature is not None:
            solver.expert.atlas = solver.expert.atlas.with_weights(temperature=temperature)
        return solver
    if entrant.kind != "centroids":
        return choose_solver(settings)
    train = [p for p in kang if p.meta["donor_id"] in TRAIN_DONORS]
    judge = [p for p in kang if p.meta["donor_id"] in VALIDATION_DONORS]
    return choose_solver(settings, train, judge)


def suite(
    data: Path, manifest: dict[str, Any], entrants: Sequence[Entrant], only: Sequence[str]
) -> dict[str, dict[str, Measured | str]]:
    """Measure all solvers on all studies: study -> solver -> figures, or why there are none."""
    from cello1.atlas import Atlas
    from cello1.atlas.atlas import EMBEDDED

    sources = Atlas.read().sources
    told = json.loads((EMBEDDED / "weights.json").read_text("utf-8"))
    warmers = told["temperature_without"]  # fitted without the study that is tested
    found: dict[str, dict[str, Measured | str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learn = any(entrant.kind == "centroids" for entrant in entrants)
        kang = build(data, manifest, "kang-whole", folder / "kang") if learn else []
        for key in only or manifest["studies"]:
            puzzles = build(data, manifest, key, folder)
            without = left_out(manifest["studies"][key]["study"], sources)
            found[key] = {}
            for entrant in entrants:
                if (why := refuse_clash(manifest, entrant, key)) is not None:
                    found[key][entrant.name] = why
                    continue
                warmer = warmers.get(manifest["studies"][key]["study"])
                solver = solver_for(entrant, kang, without, warmer)
                found[key][entrant.name] = measure(
                    puzzles, ask(solver, puzzles), clusters_of(puzzles)
                )
            tell(key, manifest["studies"][key]["title"], found[key])
    return found


def tell(key: str, title: str, row: dict[str, Measured | str]) -> None:
    """Print one study."""
    some = next(m for m in row.values() if isinstance(m, Measured))
    print(f"\n{title} ({key}), {some.puzzles} puzzles\n\n{HEAD}")
    for name, m in row.items():
        if isinstance(m, str):
            print(f"| {name} | not asked: {m} | | |")
        else:
            error = "" if m.ece is None else f"{m.ece:.3f}"
            print(f"| {name} | {shown(m.cell)} | {shown(m.batch)} | {error} |")
    sys.stdout.flush()


def shown(value: Interval) -> str:
    """Write an estimate with its interval."""
    return f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]".replace("0.", ".")


def macro(found: dict[str, dict[str, Measured | str]], entrants: Sequence[Entrant]) -> None:
    """Print the mean over studies on which every solver that is shown was asked, and the ECE."""
    print(
        "\n| solver | studies | cell, macro | batch, macro | ECE, median |\n|---|--:|--:|--:|--:|"
    )
    for entrant in entrants:
        rows = [row[entrant.name] for row in found.values()]
        known = [m for m in rows if isinstance(m, Measured)]
        if known:
            errors = [m.ece for m in known if m.ece is not None]
            print(
                f"| {entrant.name} | {len(known)} "
                f"| {np.mean([m.cell.estimate for m in known]):.3f} "
                f"| {np.mean([m.batch.estimate for m in known]):.3f} "
                f"| {f'{np.median(errors):.3f}' if errors else ''} |"
            )


def published(data: Path, manifest: dict[str, Any], entrants: Sequence[Entrant]) -> None:
    """Print the published rows, with all sources and without those that may share donors."""
    told = manifest["published"]
    lines = (data / told["file"]).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    share = tuple(told["may_share"])
    asked = [(e, e.name, ()) for e in entrants if e.kind != "atlas"]
    for entrant in (e for e in entrants if e.kind == "atlas"):
        asked.append((entrant, f"{entrant.name}, all sources", ()))
        asked.append((entrant, f"{entrant.name}, without {share[0]}", share[:1]))
        asked.append((entrant, f"{entrant.name}, without all that may share donors", share))
    for title, of in (
        ("test", [r for r in rows if r["split"] == "test"]),
        ("four unseen diseases", [r for r in rows if r["split"] != "test"]),
    ):
        puzzles = [row_puzzle(row) for row in of]
        clusters = runs_of([row["id"] for row in of])
        print(f"\nPublished rows, {title}: {len(puzzles)}\n\n{HEAD}")
        for entrant, name, without in asked:
            if entrant.kind == "centroids":
                continue
            m = measure(puzzles, ask(solver_for(entrant, (), without), puzzles), clusters)
            error = "" if m.ece is None else f"{m.ece:.3f}"
            print(f"| {name} | {shown(m.cell)} | {shown(m.batch)} | {error} |", flush=True)
        if title == "test":
            for model in PUBLISHED[:4]:
                name = f"{model.model}, all {N_PUBLISHED:,} rows (paper)"
                print(f"| {name} | {model.cell:.3f} | {model.batch:.3f} | |")
        else:
            print("| o1, all 539 rows (paper) | .798 | .282 | |")
            print("| Cell-o1, all 539 rows (paper) | .818 | .390 | |")


def row_puzzle(row: dict[str, Any]) -> Puzzle:
    """Make a puzzle of a published row."""
    from cello1.puzzles.table import puzzle_from_row

    puzzle = puzzle_from_row({"user_msg": row["user_msg"], "answer": row["answer"]})
    return replace(puzzle, meta={**puzzle.meta, "row": row["id"]})


def runs_of(ids: Sequence[str]) -> list[str]:
    """Name the run of consecutive numbers that each row id belongs to."""
    names, last, run = [], None, 0
    for text in ids:
        head, _, number = text.rpartition("_")
        at = (head, int(number))
        if last is None or at[0] != last[0] or at[1] != last[1] + 1:
            run += 1
        last = at
        names.append(f"run {run}")
    return names


def speed(data: Path, manifest: dict[str, Any]) -> None:
    """Print puzzles per second, peak memory and load time, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        build(data, manifest, "kang-whole", Path(name))
        file = Path(name) / "kang-whole" / "all.parquet"
        print("\n| solver | load, CPU s | puzzles / CPU s | scores only / CPU s | peak MB |")
        print("|---|--:|--:|--:|--:|")
        for solver in ("markers", "atlas"):
            code = f"import suite; suite.one_speed({solver!r}, {str(file)!r})"
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True
            )
            print(done.stdout.strip())


def one_speed(name: str, file: str) -> None:
    """Measure one solver in this process."""
    puzzles = co.read_puzzles(Path(file))
    times = -(-2_000 // len(puzzles))
    load, _ = timed(lambda: choose_solver(SolveSettings(solver=name)))
    solver: Any = choose_solver(SolveSettings(solver=name))
    solver.solve(puzzles[:50], lambda *_: None)  # compile and make rows
    count = times * len(puzzles)
    whole, _ = timed(lambda: [solver.solve(puzzles, lambda *_: None) for _ in range(times)])
    expert = solver.expert
    if hasattr(expert, "prepare"):
        alone, _ = timed(lambda: [expert.prepare(puzzles) for _ in range(times)])
    else:
        alone, _ = timed(lambda: [expert.scores(p) for _ in range(times) for p in puzzles])
    print(f"| {name} | {load:.2f} | {count / whole:,.0f} | {count / alone:,.0f} | {peak():,.0f} |")


def peak() -> float:
    """Return the peak memory of this process in MB, without what its parent had when it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds of CPU time, which a busy machine does not change much, and the result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    """Build, answer, score."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--only", action="append", default=[], help="a study; repeatable")
    arguments.add_argument("--solver", action="append", default=[], help="a solver; repeatable")
    arguments.add_argument("--published", action="store_true", help="the published rows instead")
    arguments.add_argument("--speed", action="store_true", help="speed and memory instead")
    args = arguments.parse_args()
    manifest = yaml.safe_load((HERE / "suite.yaml").read_text("utf-8"))
    if unknown := set(args.only) - set(manifest["studies"]):
        raise InputError(
            f"no study {sorted(unknown)[0]!r}; there are {', '.join(manifest['studies'])}"
        )
    entrants = [e for e in ENTRANTS if not args.solver or e.kind in args.solver]
    if args.speed:
        speed(args.data, manifest)
    elif args.published:
        published(args.data, manifest, entrants)
    else:
        macro(suite(args.data, manifest, entrants, args.only), entrants)


if __name__ == "__main__":
    main()
