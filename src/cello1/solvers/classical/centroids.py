"""Centroids: learn from training puzzles which genes each type lists.

Two models from scikit-learn, naive Bayes and logistic regression, both linear in the presence of
genes, are compared on the validation donors. The one with the higher batch accuracy is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import log_softmax

from cello1.atlas import Knowledge
from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle, label_key
from cello1.solvers.assign import assign_jointly
from cello1.solvers.base import Floats

SMOOTHING = 0.1  # pseudo-counts of naive Bayes
INVERSE_PENALTY = 0.1  # of logistic regression (C of scikit-learn)


@dataclass(frozen=True)
class Linear:
    """Log-score of a type = bias + sum of its weights over the genes listed.

    Attributes
    ----------
    kind
        ``naive Bayes`` or ``logistic regression``.
    weights, bias
        Shapes (genes, types) and (types,).
    """

    kind: str
    weights: Floats
    bias: Floats


class Centroids:
    """An expert that is fitted on puzzles with answers.

    Parameters
    ----------
    train
        Puzzles to fit the models on.
    validation
        Puzzles of other donors, to select one of the two models. Without any, naive Bayes is
        used, which has nothing to tune.

    Raises
    ------
    InputError
        When no training puzzle has an answer.
    """

    name = "centroids"

    def __init__(self, train: Sequence[Puzzle], validation: Sequence[Puzzle] = ()) -> None:
        cells = sorted(
            {
                (label_key(label), genes)
                for puzzle in train
                for label, genes in zip(puzzle.answer or (), puzzle.cells, strict=False)
            }
        )
        if not cells:
            raise InputError("no training puzzle has an answer, so centroids cannot be learned")
        self.types = {label: i for i, label in enumerate(sorted({label for label, _ in cells}))}
        self.genes = {g: i for i, g in enumerate(sorted({g for _, genes in cells for g in genes}))}
        presence = self._presence([genes for _, genes in cells])
        labels = np.array([self.types[label] for label, _ in cells])
        # Share of cells of each type that list each gene, for the reasons: weights of rare genes
        # are extreme and decide little.
        members = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))))
        self.rates = np.asarray((members @ presence).todense()).T / np.bincount(labels)
        self.model = _naive_bayes(presence, labels)
        self.validated: dict[str, float] = {}
        known = [p for p in validation if p.answer is not None]
        if known and len(self.types) > 1:
            rivals = [self.model, _logistic_regression(presence, labels)]
            ranks = [self._validate(model, known) for model in rivals]
            self.validated = {m.kind: batch for m, (batch, _) in zip(rivals, ranks, strict=True)}
            self.model = rivals[int(ranks[1] > ranks[0])]
        self.settings: dict[str, Any] = {"model": self.model.kind, "types": len(self.types)}

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return the log-probability of each candidate for each cell, shape (N, M).

        A candidate that does not occur in training gets the log-probability of a random guess, so
        that it takes the cell that fits no other candidate.
        """
        return self._scores(self.model, puzzle)

    def knows(self, label: str) -> Knowledge:
        """Return whether a type occurred in training."""
        known = label_key(label) in self.types
        return Knowledge("source", ("training puzzles",)) if known else Knowledge("not at all", ())

    def evidence(self, genes: Sequence[str], label: str, rival: str | None) -> list[str]:
        """Return the listed genes that cells of the type list more often than those of the rival.

        Without a rival, than cells of all types on average; the largest difference comes first.
        """
        j = self.types.get(label_key(label))
        if j is None:
            return []
        k = None if rival is None else self.types.get(label_key(rival))
        rows = [(gene, self.genes[gene]) for gene in genes if gene in self.genes]
        against = self.rates.mean(axis=1) if k is None else self.rates[:, k]
        gains = [(float(self.rates[row, j] - against[row]), gene) for gene, row in rows]
        return [gene for gain, gene in sorted(gains, key=lambda g: (-g[0], g[1])) if gain > 0]

    def _scores(self, model: Linear, puzzle: Puzzle) -> Floats:
        columns = [self.types.get(label_key(c), -1) for c in puzzle.candidates]
        logs = np.full((len(puzzle.cells), len(columns)), -np.log(len(self.types)))
        for i, genes in enumerate(puzzle.cells):
            rows = [self.genes[gene] for gene in genes if gene in self.genes]
            fit = log_softmax(model.bias + model.weights[rows].sum(axis=0))
            logs[i] = [fit[c] if c >= 0 else logs[i, j] for j, c in enumerate(columns)]
        return logs

    def _validate(self, model: Linear, puzzles: Sequence[Puzzle]) -> tuple[float, float]:
        """Return (batch accuracy, cell accuracy) of joint assignment."""
        rights = []
        for puzzle in puzzles:
            assert puzzle.answer_keys is not None
            chosen = assign_jointly(self._scores(model, puzzle))
            gold = [puzzle.candidate_index[key] for key in puzzle.answer_keys]
            rights.append(chosen == np.array(gold))
        return float(np.mean([r.all() for r in rights])), float(np.mean([r.mean() for r in rights]))

    def _presence(self, cells: Sequence[Sequence[str]]) -> csr_array:
        rows = np.repeat(np.arange(len(cells)), [len(set(genes)) for genes in cells])
        columns = [self.genes[gene] for genes in cells for gene in sorted(set(genes))]
        shape = (len(cells), len(self.genes))
        return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _naive_bayes(presence: csr_array, labels: np.ndarray[Any, Any]) -> Linear:
    from sklearn.naive_bayes import BernoulliNB

    # A puzzle shows every type once, so all types have the same prior.
    fitted = BernoulliNB(alpha=SMOOTHING, fit_prior=False).fit(presence, labels)
    present = fitted.feature_log_prob_.T
    absent = np.log1p(-np.exp(present))
    return Linear("naive Bayes", present - absent, absent.sum(axis=0))


def _logistic_regression(presence: csr_array, labels: np.ndarray[Any, Any]) -> Linear:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, class_weight="balanced")
        fitted.fit(presence, labels)
    weights, bias = fitted.coef_.T, fitted.intercept_
    if weights.shape[1] == 1:  # two types share one column of opposite signs
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]]) / 2
    return Linear("logistic regression", weights, bias)
