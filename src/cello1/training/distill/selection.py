"""Which responses become traces: what is accepted, and which of the accepted are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from cello1.citations.citations import TOKEN, citations
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.recipes import DistillSettings
from cello1.scoring.score import score


class Verdict(NamedTuple):
    """Whether a response is accepted, and if not, why.

    Attributes
    ----------
    kind
        ``accepted``, ``format``, ``wrong``, ``genes``, ``length`` or ``early answer``.
    reason
        The same in words; empty when accepted.
    """

    kind: str
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the response may become a trace."""
        return self.kind == "accepted"


def judge(puzzle: Puzzle, text: str, settings: DistillSettings, vocabulary: Set[str]) -> Verdict:
    """Judge a response: format and every cell, then the filters that are switched on.

    Parameters
    ----------
    puzzle
        A puzzle with its answer.
    text
        The whole response.
    settings
        The filters.
    vocabulary
        What counts as a gene.
    """
    found, response = score(puzzle, text), parse_response(text)
    if not isinstance(response, Answer):
        return Verdict("format", response.reason)
    if not found.exact:
        wrong = found.right.count(False)
        return Verdict("wrong", found.reason or f"{wrong} of {len(found.right)} cells are wrong")
    return _filter(puzzle, response, settings, vocabulary) or Verdict("accepted", "")


def _filter(
    puzzle: Puzzle, response: Answer, settings: DistillSettings, vocabulary: Set[str]
) -> Verdict | None:
    reasoning = response.reasoning
    words, fewest, most = len(reasoning.split()), settings.min_words, settings.max_words
    if fewest is not None and words < fewest:
        return Verdict("length", f"{words} words of reasoning, below {fewest}")
    if most is not None and words > most:
        return Verdict("length", f"{words} words of reasoning, above {most}")
    if settings.no_early_answer and answers_early(puzzle, reasoning, vocabulary):
        return Verdict("early answer", "the whole answer stands before the first gene cited")
    if settings.min_true_genes is not None:
        cited = citations(puzzle, reasoning, vocabulary)
        true = sum(c.true for c in cited)
        if true < settings.min_true_genes * len(cited) or not cited:
            example = next((c for c in cited if not c.true), None)
            such = "" if example is None else f", such as {example.gene} for cell {example.cell}"
            return Verdict("genes", f"{true} of {len(cited)} cited genes are in their cell{such}")
    return None


def answers_early(puzzle: Puzzle, reasoning: str, vocabulary: Set[str]) -> bool:
    """Say whether all labels stand in the order of the cells before any gene is cited.

    Candidates listed in another order are no answer.
    """
    first_gene = min(
        (match.start() for match in TOKEN.finditer(reasoning) if match.group() in vocabulary),
        default=len(reasoning),
    )
    opening, at = reasoning[:first_gene].casefold(), 0
    for label in puzzle.answer_keys or ():
        at = opening.find(label, at)
        if at < 0:
            return False
        at += len(label)
    return True


def choose(
    puzzle: Puzzle,
    accepted: Sequence[Mapping[str, Any]],
    settings: DistillSettings,
    vocabulary: Set[str],
) -> list[Mapping[str, Any]]:
    """Choose which accepted records of a puzzle are kept, at most `per_puzzle` different ones."""
    different = {r["text"]: r for r in sorted(accepted, key=lambda r: -int(r["sample"]))}
    records = sorted(different.values(), key=lambda r: int(r["sample"]))
    if settings.keep == "random":
        rng = np.random.default_rng([settings.seed, int(puzzle.id, 16)])
        records = [records[i] for i in rng.permutation(len(records))]
    elif settings.keep == "best_supported":
        records.sort(key=lambda r: support(puzzle, r["text"], vocabulary), reverse=True)
    else:
        sign = 1 if settings.keep == "shortest" else -1
        records.sort(key=lambda r: sign * len(r["text"].split()))
    return records[: settings.per_puzzle]


def support(puzzle: Puzzle, text: str, vocabulary: Set[str]) -> tuple[float, int]:
    """Return the share of cited genes that are true, and how many are."""
    response = parse_response(text)
    cited = citations(puzzle, getattr(response, "reasoning", ""), vocabulary)
    true = sum(c.true for c in cited)
    return (true / len(cited) if cited else 0.0), true
