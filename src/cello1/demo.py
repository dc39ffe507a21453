"""The whole line on real cells in under a minute: build, audit, solve, score.

By default on the blood cells that ship inside scanpy: 700 cells of one donor, 10 types, of which
only 765 variable genes are kept (Zheng et al. 2017, doi:10.1038/ncomms14049), so the lists look
more telling than those of a full experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel

from cello1.cells.build import build
from cello1.cells.doctor import examine
from cello1.cells.h5ad.read import open_h5ad, open_table
from cello1.cells.report import Drop
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.puzzles.table import read_puzzles
from cello1.recipes import BuildSettings, SolveSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.recipes.solve import runs_models
from cello1.runs import write_atomic
from cello1.scoring.evaluate import evaluate
from cello1.solvers.choose import CLASSICAL, choose_solver
from cello1.solvers.run import read_solved, solve
from cello1.terminal.tables import audit_table, files_table, scores_table, show
from cello1.terminal.text import text as line

DATASET = "pbmc68k_reduced"
_MOST_TOKENS = 1_000  # of a response of the embedded model, whose words are short
# The labels of the file, as the Cell Ontology names them.
LABELS = {
    "CD14+ Monocyte": "CD14-positive monocyte",
    "CD19+ B": "B cell",
    "CD34+": "hematopoietic precursor cell",
    "CD4+/CD25 T Reg": "regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "naive thymus-derived CD4-positive, alpha-beta T cell",
    "CD4+/CD45RO+ Memory": "CD4-positive, alpha-beta memory T cell",
    "CD56+ NK": "natural killer cell",
    "CD8+ Cytotoxic T": "CD8-positive, alpha-beta cytotoxic T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "naive thymus-derived CD8-positive, alpha-beta T cell",
    "Dendritic": "dendritic cell",
}


@takes(BuildSettings)
def demo(
    out: Path,
    file: Path | None = None,
    settings: BuildSettings | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Run the demo, print it, and return the figures of every solver.

    Parameters
    ----------
    out
        Folder for the puzzles and the runs; a second call resumes an interrupted first.
    file
        The reader's own .h5ad instead of the built-in cells.
    settings, **changes
        `donor_key` and `cell_type_key` of the file, and the `seed`; sizes and split are chosen to
        suit the file.
    """
    given = resolve(BuildSettings, settings, changes)
    donor_key, cell_type_key, seed = given.donor_key, given.cell_type_key, given.seed
    if file is None:
        file = built_in(out / f"{DATASET}.h5ad")
        show(line("700 blood cells of one donor ship with scanpy; 765 variable genes are kept."))
    settings = choose_settings(file, donor_key, cell_type_key, seed)
    show(line("\n1. Build puzzles and audit them", "bold"))
    made = build([file], out / "puzzles", settings)
    show(files_table(made.reports), audit_table(made.audit))

    splits = {name: read_puzzles(out / "puzzles" / f"{name}.parquet") for name in made.audit.sizes}
    if not splits.get("test") or not splits.get("train"):
        raise InputError(f"{file} gives too few puzzles to train and test on: {made.audit.sizes}")
    show(line("\n2. Solve the test puzzles, each cell alone and the batch jointly", "bold"))
    evaluations, shown = {}, None
    for name, asked in _solvers(seed).items():
        solver = choose_solver(asked, splits["train"], splits["validation"])
        run = solve(out / "puzzles" / "test.parquet", solver, out / "runs" / name)
        puzzles, records = read_solved(run)
        texts = {i: r["text"] for i, r in records.items()}
        evaluations[solver.name] = evaluate(puzzles, texts, seed=seed)
        if name == "centroids-joint":
            shown = (solver.name, puzzles[0], texts[puzzles[0].id])
    show(scores_table(evaluations))
    if shown is not None:
        who, puzzle, text = shown
        show(line(f"\n3. One puzzle, as {who} answered it", "bold"), _panel(puzzle, text))
    return {
        name: {
            "cell_accuracy": e.overall.cell_accuracy.estimate,
            "batch_accuracy": e.overall.batch_accuracy.estimate,
            "puzzles": e.overall.n,
        }
        for name, e in evaluations.items()
    }


def _solvers(seed: int) -> dict[str, SolveSettings]:
    """Return who is asked: the classical solvers, and the embedded model where it can run."""
    asked = {
        f"{name}-{'alone' if alone else 'joint'}": SolveSettings(
            solver=name, alone=alone, seed=seed
        )
        for name in CLASSICAL
        for alone in (True, False)
    }
    if not runs_models():
        show(
            line(
                "The embedded model is left out, alone and with the atlas (atlas+mini, the "
                "default of `cello1 solve`); it needs: pip install 'cello1[local]'."
            )
        )
        return asked
    return asked | {
        "mini-valid": SolveSettings(
            solver="mini", valid=True, max_new_tokens=_MOST_TOKENS, seed=seed
        ),
        "mini-assign": SolveSettings(solver="mini", decode="assign", seed=seed),
        "both-joint": SolveSettings(solver="atlas+mini", seed=seed),
    }


def choose_settings(file: Path, donor_key: str, cell_type_key: str, seed: int) -> BuildSettings:
    """Choose what suits a file: by donor where there are three, else by cell, and say so."""
    with open_h5ad(file) as opened:
        one_donor = donor_key not in open_table(opened, "obs")
    settings = BuildSettings(
        donor_key=donor_key,
        cell_type_key=cell_type_key,
        one_donor=one_donor,
        n_min=2,
        split="none",
        seed=seed,
    )
    report = _report(file, settings)
    if report.used == 0 and Drop.NO_DONOR in report.drops:
        settings = settings.model_copy(update={"pooled_donors": True})
        report = _report(file, settings)
    if report.largest < 3:
        raise InputError(f"{file} has at most {report.largest} types per donor; a demo needs 3")
    changes: dict[str, Any] = {"n_min": min(8, report.largest), "n_max": 15, "split": "donor"}
    if report.donors < 3:
        # Too few people to hold any out: other cells of the same donors are the best there is.
        changes |= {"split": "cell", "fractions": (0.5, 0.0, 0.5)}
    if one_donor:
        show(line(f"{file.name} has no column {donor_key!r}: all cells are taken as one donor."))
    return settings.model_copy(update=changes)


def _report(file: Path, settings: BuildSettings) -> Any:
    diagnosis = examine(file, settings)
    if diagnosis.report is None:
        raise InputError("; ".join(diagnosis.problems))
    return diagnosis.report


def built_in(path: Path) -> Path:
    """Write scanpy's own cells as an .h5ad file of CELLxGENE shape, and return its path."""
    if path.exists():
        return path
    import tempfile

    import scanpy as sc
    from anndata import AnnData

    cells = sc.datasets.pbmc68k_reduced()
    obs = cells.obs[["bulk_labels"]].rename(columns={"bulk_labels": "cell_type"})
    obs["cell_type"] = obs["cell_type"].map(LABELS).astype("category")
    for column, value in {
        "donor_id": "donor A",
        "tissue": "blood",
        "disease": "normal",
        "organism": "Homo sapiens",
    }.items():
        obs[column] = value
        obs[column] = obs[column].astype("category")
    var = cells.raw.var.assign(feature_name=cells.raw.var_names)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        AnnData(X=cells.raw.X, obs=obs, var=var).write_h5ad(whole)
        write_atomic(path, whole.read_bytes())
    return path


def _panel(puzzle: Puzzle, text: str) -> Panel:
    lists: Sequence[str] = [
        f"Cell {i}: {', '.join(genes[:12])}, ..." for i, genes in enumerate(puzzle.cells, 1)
    ]
    gold = " | ".join(puzzle.answer or ())
    return Panel(line("\n".join([*lists, "", text, "", f"right answer: {gold}"])))
