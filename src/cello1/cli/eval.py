"""The verb `eval` of the command line."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from cello1.cli.options import AsJson, Puzzles, print_json
from cello1.recipes import EvaluateSettings


def evaluate(
    settings: EvaluateSettings,
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; the others are compared with the first.")
    ],
    puzzles: Puzzles = None,
    calibrate_on: Annotated[
        list[Path] | None,
        typer.Option(help="Run of the same solver on validation puzzles; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score runs: accuracies with 95 % intervals over donors, chance, paired differences."""
    from cello1.citations.evidence import cited_share
    from cello1.runs import read_run, run_names, write_json
    from cello1.scoring import evaluate as scoring
    from cello1.solvers.calibrated import run_calibration, temperatures
    from cello1.solvers.run import evidence_of, read_solved, remarks, token_counts
    from cello1.terminal import tables

    names, seed = run_names(runs), settings.seed
    evaluations, scored, confidences, figures = {}, {}, {}, {}
    cited = {}
    fitted = temperatures(runs, calibrate_on or [])
    for name, run in zip(names, runs, strict=True):
        asked, records = read_solved(run, puzzles)
        texts, tokens = {i: r["text"] for i, r in records.items()}, token_counts(records)
        found = scoring.evaluate(asked, texts, tokens=tokens, seed=seed)
        told = evidence_of(read_run(run))
        apart = [f"{name}: asked {told}; one without is another thing"] if told else []
        notes = [*found.notes, *apart, *(f"{name}: {line}" for line in remarks(asked, records))]
        evaluations[name] = replace(found, notes=notes)
        scored[name] = scoring.score_all(asked, texts, tokens)
        measured = asdict(evaluations[name])
        if told:
            measured["told"] = told
        if sure := run_calibration(asked, records, fitted.get(run), seed=seed):
            confidences[name] = sure
            measured["calibration"] = {level: asdict(c) for level, c in sure.items()}
        if genes := cited_share(asked, texts, seed=seed):
            cited[name] = genes
            measured["cited_genes"] = asdict(genes)
        write_json(run / "metrics.json", measured)
        figures[name] = measured
    first = names[0]
    pairs = {
        f"{first} - {name}": scoring.compare(scored[first], scored[name], seed=seed)
        for name in names[1:]
    }
    if as_json:
        paired = {k: {m: asdict(p) for m, p in v.items()} | {"n": n} for k, (v, n) in pairs.items()}
        print_json({"runs": figures, "paired": paired})
        return
    tables.show(tables.scores_table(evaluations))
    if confidences:
        tables.show(tables.calibration_table(confidences))
    if cited:
        tables.show(tables.citations_table(cited))
    if pairs:
        tables.show(tables.paired_table(pairs))
    for name, evaluation in evaluations.items():
        for by, groups in evaluation.by.items():
            if len(groups) > 1:
                tables.show(tables.breakdown_table(name, evaluation, by))
