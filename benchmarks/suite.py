"""The suite: every solver on the fixed set of real puzzles, each study left out.

Run ``python benchmarks/suite.py DATA`` with the folder of the shared data (``cells/``,
``more_cells/``, ``cellpuzzles_sample.jsonl``). ``benchmarks/suite.yaml`` says which puzzles are
built of which file, which study they come from, and which sources of the atlas may share donors
with them. Whatever of a study went into a source, a weight or a training is left out when that
study is tested; what cannot be left out is refused and not shown.

Prints cell- and batch-level accuracy by set with 95 % intervals (over donors where there are
several, else over puzzles), and the calibration error of joint probabilities; for the published
rows also the paper's figures for all of them. Then two macro averages: over the sets that are built
here, and over studies, with the published rows and the unseen diseases as two more (answered
without the sources that may share donors with them). Sets of one study count as their mean. Both
averages have intervals (clusters are resampled within each set) and the ratio to markers jointly.

``--results FILE`` keeps what is measured and measures only what it lacks, so the averages are
printed at once from results that are there; results of other code are refused. ``--speed`` prints
puzzles per second, memory and load time beside markers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import cello1 as co
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import BuildSettings, SolveSettings
from cello1.report.page import N_PUBLISHED, PUBLISHED
from cello1.runs import replacing
from cello1.scoring.calibration import ece, positions
from cello1.scoring.score import score
from cello1.scoring.statistics import (
    Interval,
    cluster_codes,
    clustered_interval,
    percentiles,
    resampled_means,
)
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


MARKERS, ATLAS = "markers, jointly", "atlas, jointly"


@dataclass(frozen=True)
class Measured:
    """What one solver scored on one set.

    Attributes
    ----------
    cells, exact
        Cell-level accuracy of every puzzle, and whether all its cells are right.
    clusters
        What is resampled, by puzzle; None: the puzzles.
    ece
        Calibration error of single cells, if the solver gives probabilities.
    """

    cells: tuple[float, ...]
    exact: tuple[bool, ...]
    clusters: tuple[str, ...] | None
    ece: float | None

    @cached_property
    def cell(self) -> Interval:
        """Mean cell-level accuracy."""
        return clustered_interval(self.cells, self.clusters)

    @cached_property
    def batch(self) -> Interval:
        """Share of puzzles with every cell right."""
        return clustered_interval(np.array(self.exact, dtype=np.float64), self.clusters)

    @cached_property
    def resampled(self) -> Any:
        """The share of puzzles solved in each resample, shape (resamples,).

        Solvers of one set get the same resamples, so their figures can be compared.
        """
        codes, _ = cluster_codes(self.clusters, len(self.exact))
        return resampled_means(np.array(self.exact, dtype=np.float64), codes)


@dataclass(frozen=True)
class Set:
    """Puzzles of the suite and what solvers scored on them.

    Attributes
    ----------
    study, title
        Study they come from, and what tables call them.
    rows
        Solver -> figures, or why there are none.
    """

    study: str
    title: str
    rows: dict[str, Measured | str]


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
        tuple(s.cell_accuracy for s in scores),
        tuple(s.exact for s in scores),
        None if clusters is None else tuple(clusters),
        ece(confidence, right) if confidence else None,
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


class Results:
    """What is measured, kept in a file so that it is measured once.

    Parameters
    ----------
    file
        Read if it exists; None keeps nothing.

    Raises
    ------
    InputError
        When the file holds no results, or results of other code.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self.made_by = file, fingerprint()
        self.sets: dict[str, Set] = {}
        if file is None or not file.exists():
            return
        try:
            told = json.loads(file.read_text("utf-8"))
            made_by = told["made_by"]
            for key, kept in told["sets"].items():
                rows = {name: restored(row) for name, row in kept.pop("rows").items()}
                self.sets[key] = Set(**kept, rows=rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file} holds no results of the suite ({error!r}); name another file"
            ) from error
        if made_by != self.made_by:
            raise InputError(
                f"the results of {file} were made by other code, atlas or model than these; "
                "delete it, or name another file"
            )

    def keep(self, key: str, found: Set) -> Set:
        """Add rows to a set, and return it with all that is known."""
        before = self.sets[key].rows if key in self.sets else {}
        self.sets[key] = replace(found, rows={**before, **found.rows})
        if self.file is not None:
            told = {"made_by": self.made_by, "sets": {k: asdict(s) for k, s in self.sets.items()}}
            with replacing(self.file) as part:
                part.write_text(json.dumps(told) + "\n", "utf-8")
        return self.sets[key]

    def lacking(self, key: str, names: Iterable[str]) -> list[str]:
        """Return the solvers that a set has no row of."""
        return [name for name in names if key not in self.sets or name not in self.sets[key].rows]


def restored(row: Any) -> Measured | str:
    """Make a row of a set of what was kept of it."""
    if isinstance(row, str):
        return row
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Measured(**lists)


def fingerprint() -> str:
    """Return a hash of all that figures depend on: the package with its data, and the suite."""
    root = Path(co.__file__).parent
    files = [p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    content = hashlib.sha256()
    for path in (*sorted(files), HERE / "suite.py", HERE / "suite.yaml"):
        content.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def suite(
    data: Path,
    manifest: dict[str, Any],
    entrants: Sequence[Entrant],
    only: Sequence[str],
    results: Results,
) -> None:
    """Measure the solvers on sets of real puzzles, and print them."""
    from cello1.atlas import Atlas
    from cello1.atlas.atlas import EMBEDDED

    sources = Atlas.read().sources
    told = json.loads((EMBEDDED / "weights.json").read_text("utf-8"))
    warmers = told["temperature_without"]  # fitted without the study that is tested
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kang: list[Puzzle] = []
        for key in only:
            study, title = (manifest["studies"][key][field] for field in ("study", "title"))
            rows: dict[str, Measured | str] = {}
            lacking = results.lacking(key, [e.name for e in entrants])
            asked = [e for e in entrants if e.name in lacking]
            puzzles = build(data, manifest, key, folder) if asked else []
            without = left_out(study, sources)
            for entrant in asked:
                if (why := refuse_clash(manifest, entrant, key)) is not None:
                    rows[entrant.name] = why
                    continue
                if entrant.kind == "centroids" and not kang:
                    kang = build(data, manifest, "kang-whole", folder / "kang")
                solver = solver_for(entrant, kang, without, warmers.get(study))
                rows[entrant.name] = measure(puzzles, ask(solver, puzzles), clusters_of(puzzles))
            tell(key, results.keep(key, Set(study, title, rows)), entrants)


def tell(key: str, found: Set, entrants: Sequence[Entrant]) -> None:
    """Print the rows of a set for some solvers."""
    kinds = {e.name.partition(",")[0] for e in entrants}
    rows = {name: m for name, m in found.rows.items() if name.partition(",")[0] in kinds}
    counts = [len(m.exact) for m in rows.values() if isinstance(m, Measured)]
    print(f"\n{found.title} ({key}), {counts[0] if counts else 'no'} puzzles\n\n{HEAD}")
    for name, m in rows.items():
        if isinstance(m, str):
            print(f"| {name} | not asked: {m} | | |")
        else:
            error = "" if m.ece is None else f"{m.ece:.3f}"
            print(f"| {name} | {shown(m.cell)} | {shown(m.batch)} | {error} |")
    sys.stdout.flush()


def shown(value: Interval) -> str:
    """Write an estimate with its interval."""
    return with_bounds(value.estimate, value.low, value.high)


def with_bounds(estimate: float, low: float, high: float, digits: int = 3) -> str:
    """Write an estimate with its bounds."""
    text = f"{estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return re.sub(r"\b0\.", ".", text)


def by_study(sets: Iterable[Set]) -> dict[str, list[Set]]:
    """Put the sets of one study together."""
    found: dict[str, list[Set]] = {}
    for one in sets:
        found.setdefault(one.study, []).append(one)
    return found


def batch_macro(groups: Iterable[Sequence[Measured]]) -> tuple[float, Any]:
    """Return the batch-level accuracy averaged over groups of sets, and its resamples.

    Every group counts as the mean over its sets.
    """
    groups = list(groups)
    estimate = np.mean([np.mean([m.batch.estimate for m in group]) for group in groups])
    resampled = np.mean([np.mean([m.resampled for m in g], axis=0) for g in groups], axis=0)
    return float(estimate), resampled


def macro(title: str, groups: dict[str, list[Set]], entrants: Sequence[Entrant]) -> None:
    """Print averages over groups of sets, each over those a solver was asked, and the ECE.

    The ratio to markers is over the groups of which both were asked all sets.
    """
    print(f"\nMacro average over {title}\n")
    print("| solver | of | cell | batch | / markers, jointly | ECE, median |")
    print("|---|--:|--:|---|---|--:|")
    for entrant in entrants:
        known = measured_groups(groups, entrant.name)
        if not known:
            continue
        cell = np.mean([np.mean([m.cell.estimate for m in group]) for group in known.values()])
        estimate, draws = batch_macro(known.values())
        of_groups = ([m.ece for m in group if m.ece is not None] for group in known.values())
        errors = [np.mean(of_group) for of_group in of_groups if of_group]
        ratio = ""
        markers = measured_groups(groups, MARKERS)
        if entrant.name != MARKERS and (both := [key for key in known if key in markers]):
            over, over_draws = batch_macro(known[key] for key in both)
            under, under_draws = batch_macro(markers[key] for key in both)
            if under and under_draws.all():
                bounds = percentiles(over_draws / under_draws)
                ratio = with_bounds(over / under, *bounds, digits=2)
        print(
            f"| {entrant.name} | {len(known)} of {len(groups)} | {cell:.3f} "
            f"| {with_bounds(estimate, *percentiles(draws))} | {ratio} "
            f"| {f'{np.median(errors):.3f}' if errors else ''} |"
        )


def measured_groups(groups: dict[str, list[Set]], name: str) -> dict[str, list[Measured]]:
    """Return the figures of a solver by group: of those with a figure, from their sets with one."""
    found = {
        key: [m for one in sets if isinstance(m := one.rows.get(name), Measured)]
        for key, sets in groups.items()
    }
    return {key: some for key, some in found.items() if some}


PUBLISHED_SETS = {
    "published-test": ("test", "published rows, test"),
    "published-unseen": ("unseen", "published rows, four unseen diseases"),
}


def published(
    data: Path,
    manifest: dict[str, Any],
    entrants: Sequence[Entrant],
    only: Sequence[str],
    results: Results,
) -> None:
    """Measure the published rows, with all sources and without those that may share donors."""
    told = manifest["published"]
    lines = (data / told["file"]).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    asked = published_entrants(manifest, entrants)
    for key, (split, title) in PUBLISHED_SETS.items():
        if key not in only:
            continue
        of = [r for r in rows if (r["split"] == "test") == (split == "test")]
        puzzles = [row_puzzle(row) for row in of]
        clusters = runs_of([row["id"] for row in of])
        found: dict[str, Measured | str] = {}
        for name in results.lacking(key, asked):
            entrant, without = asked[name]
            solver = solver_for(entrant, (), without)
            found[name] = measure(puzzles, ask(solver, puzzles), clusters)
        tell(key, results.keep(key, Set(title, title, found)), entrants)
        if split == "test":
            for model in PUBLISHED[:4]:
                name = f"{model.model}, all {N_PUBLISHED:,} rows (paper)"
                print(f"| {name} | {model.cell:.3f} | {model.batch:.3f} | |")
        else:
            print("| o1, all 539 rows (paper) | .798 | .282 | |")
            print("| Cell-o1, all 539 rows (paper) | .818 | .390 | |")


def published_entrants(
    manifest: dict[str, Any], entrants: Sequence[Entrant]
) -> dict[str, tuple[Entrant, tuple[str, ...]]]:
    """Return how solvers are asked published rows: row of the table -> solver, sources left out.

    The row with the plain name of a solver, which averages count, is the one without anything that
    may share donors with the rows.
    """
    share = tuple(manifest["published"]["may_share"])
    asked: dict[str, tuple[Entrant, tuple[str, ...]]] = {}
    for entrant in entrants:
        learned = [s for s in manifest["learned"].get(entrant.kind, ()) if s in share]
        if entrant.kind == "atlas":
            asked[f"{entrant.name}, all sources"] = (entrant, ())
            asked[f"{entrant.name}, without {share[0]} alone"] = (entrant, share[:1])
            asked[entrant.name] = (entrant, share)
        elif learned:
            asked[f"{entrant.name}, learned from {', '.join(learned)}"] = (entrant, ())
        elif entrant.kind != "centroids":  # those of Kang know one tissue
            asked[entrant.name] = (entrant, ())
    return asked


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
    arguments.add_argument("--only", action="append", default=[], help="a set; repeatable")
    arguments.add_argument("--solver", action="append", default=[], help="a solver; repeatable")
    arguments.add_argument("--published", action="store_true", help="the published rows alone")
    arguments.add_argument("--results", type=Path, help="kept here; what is there is not repeated")
    arguments.add_argument("--speed", action="store_true", help="speed and memory instead")
    args = arguments.parse_args()
    manifest = yaml.safe_load((HERE / "suite.yaml").read_text("utf-8"))
    keys = [*manifest["studies"], *PUBLISHED_SETS]
    if unknown := set(args.only) - set(keys):
        raise InputError(f"no set {sorted(unknown)[0]!r}; there are {', '.join(keys)}")
    entrants = [e for e in ENTRANTS if not args.solver or e.kind in args.solver]
    if args.speed:
        speed(args.data, manifest)
        return
    only = args.only or (list(PUBLISHED_SETS) if args.published else keys)
    results = Results(args.results)
    suite(args.data, manifest, entrants, [k for k in manifest["studies"] if k in only], results)
    published(args.data, manifest, entrants, only, results)
    built = {key: one for key, one in results.sets.items() if key in manifest["studies"]}
    if built:
        macro("sets", {key: [one] for key, one in built.items()}, entrants)
    macro("studies", by_study(results.sets.values()), entrants)


if __name__ == "__main__":
    main()
