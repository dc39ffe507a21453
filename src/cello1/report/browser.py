"""The puzzles of a report as compact data, for the puzzle browser of the page.

Genes and types are numbers into a table, probabilities are per mille, and the whole is compressed:
1,000 puzzles with three runs take a few megabytes. Base64 has no character that could end a
script element, so the data cannot either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from cello1.citations.citations import gene_vocabulary
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.report.confusion import given_labels, true_labels
from cello1.report.gather import SolvedRun
from cello1.report.marked import marked
from cello1.scoring.score import Score
from cello1.solvers.classical.markers import Markers

_META = ("donor_id", "tissue", "disease", "dataset")


def asked(runs: Sequence[SolvedRun]) -> list[Puzzle]:
    """Return every puzzle that any run was asked, once, in order of first appearance."""
    return list({p.id: p for run in runs for p in run.puzzles}.values())


def draw_puzzles(puzzles: Sequence[Puzzle], most: int, seed: int) -> list[Puzzle]:
    """Return the puzzles, or `most` of them drawn at random; their order stays."""
    if len(puzzles) <= most:
        return list(puzzles)
    kept = random.Random(seed).sample(range(len(puzzles)), most)
    return [puzzles[i] for i in sorted(kept)]


def browser_data(runs: Sequence[SolvedRun], puzzles: Sequence[Puzzle]) -> dict[str, Any]:
    """Make the data of the puzzle browser (JSON values).

    Parameters
    ----------
    runs
        Solved runs, in the order of the page.
    puzzles
        Puzzles to show.
    """
    markers = Markers.from_file()
    known = {gene for genes in markers.weights.values() for gene in genes}
    vocabulary = gene_vocabulary(asked(runs)) | known
    genes, types = _Numbers(), _Numbers()
    scores = [{s.puzzle.id: s.score for s in run.scored} for run in runs]
    shown = []
    for puzzle in puzzles:
        index = {label: j for j, label in enumerate(puzzle.candidates)}
        said = [
            _response(run, puzzle, scored.get(puzzle.id), vocabulary, markers)
            for run, scored in zip(runs, scores, strict=True)
        ]
        shown.append({
            "id": puzzle.id,
            "context": puzzle.context.strip(),
            **{name: _text(puzzle.meta.get(name)) for name in _META},
            "cells": [[genes[gene] for gene in cell] for cell in puzzle.cells],
            "candidates": [types[label] for label in puzzle.candidates],
            "answer": [index[label] for label in true_labels(puzzle)],
            "runs": said,
        })  # fmt: skip
    return {
        "runs": [run.name for run in runs],
        "genes": list(genes),
        "types": list(types),
        "markers": {types[t]: _known(markers, t, genes) for t in list(types)},
        "puzzles": shown,
    }


def _response(
    run: SolvedRun, puzzle: Puzzle, score: Score | None, vocabulary: Set[str], markers: Markers
) -> dict[str, Any] | None:
    """Return the response of one run to a puzzle; None if it was not asked or is not done."""
    if score is None:
        failure = run.failures.get(puzzle.id)
        return None if failure is None else {"failure": failure}
    record = run.records[puzzle.id]
    given = given_labels(puzzle, record["text"])
    said = parse_response(record["text"])
    text = said.reasoning if isinstance(said, Answer) else record["text"]
    index = {label: j for j, label in enumerate(puzzle.candidates)}
    response: dict[str, Any] = {
        "format": score.format_valid,
        "exact": score.exact,
        "right": [int(r) for r in score.right],
        "given": [None if label is None else index[label] for label in given],
        "reason": score.reason,
        "text": marked(puzzle, text, given, vocabulary, markers),
        "tokens": record.get("completion_tokens"),
        "seconds": round(float(record.get("seconds") or 0.0), 3),
        "cut": record.get("finish_reason") == "length",
    }
    # The answer as given, if it has the wrong number of labels or labels not on offer.
    if isinstance(said, Answer) and None in given:
        response["labels"] = list(said.labels)
    if record.get("probabilities") is not None:
        shares = np.array(record["probabilities"], dtype=np.float64)
        response["shares"] = np.rint(1_000 * np.nan_to_num(shares)).astype(int).tolist()
        response["method"] = record.get("probability_method")
    return response


def _known(markers: Markers, label: str, genes: Mapping[str, int]) -> list[int]:
    """Return the known markers of a type that are in any list."""
    kind = markers.entry(label)
    weights = {} if kind is None else markers.weights[kind]
    return sorted(genes[gene] for gene, weight in weights.items() if weight > 0 and gene in genes)


class _Numbers(dict[str, int]):
    """Numbers for names, in order of first use."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
