import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB

from cello1.errors import InputError
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.classical import centroids
from cello1.solvers.classical.centroids import Centroids


def presence(model, cells):
    return np.array([[g in genes for g in model.genes] for genes in cells], dtype=float)


@pytest.mark.parametrize(
    ("learner", "peer"),
    [
        ("_naive_bayes", BernoulliNB(alpha=centroids.SMOOTHING, fit_prior=False)),
        (
            "_logistic_regression",
            LogisticRegression(C=centroids.INVERSE_PENALTY, max_iter=300, class_weight="balanced"),
        ),
    ],
)
def test_scores_are_those_of_scikit_learn(toys, learner, peer):
    model = Centroids(toys[:40])
    cells = sorted(
        {(a.casefold(), g) for p in toys[:40] for a, g in zip(p.answer, p.cells, strict=True)}
    )
    x, y = presence(model, [g for _, g in cells]), [model.types[a] for a, _ in cells]
    model.model = getattr(centroids, learner)(x, np.array(y))
    peer.fit(x, y)
    for puzzle in toys[40:]:
        columns = [model.types[c.casefold()] for c in puzzle.candidates]
        wanted = peer.predict_log_proba(presence(model, puzzle.cells))[:, columns]
        np.testing.assert_allclose(model.scores(puzzle), wanted, atol=1e-6)


def test_two_types_work_for_both_models():
    pair = [
        Puzzle("", [["A", "X"], ["B", "X"]], ["a", "b"], ["a", "b"], {"donor_id": str(i)})
        for i in range(4)
    ]
    model = Centroids(pair[:2], pair[2:])
    assert model.scores(pair[0]).argmax(axis=1).tolist() == [0, 1]
    assert set(model.validated) == {"naive Bayes", "logistic regression"}


def test_the_better_model_on_validation_is_kept(toys):
    model = Centroids(toys[:40], toys[40:])
    assert model.validated[model.model.kind] == max(model.validated.values())


def test_without_validation_naive_bayes_is_taken(toys):
    assert Centroids(toys).settings["model"] == "naive Bayes"


def test_an_unseen_type_takes_the_cell_nothing_else_fits(toys, toy):
    model = Centroids(toys)
    known = toy(99, "x")
    at = known.answer.index("platelet")
    cells = list(known.cells)
    cells[at] = ("HBB", "HBA1", "HBA2")
    candidates = [c if c != "platelet" else "erythrocyte" for c in known.candidates]
    strange = Puzzle("", cells, candidates)
    chosen = centroids.assign_jointly(model.scores(strange))
    assert candidates[chosen[at]] == "erythrocyte"


def test_evidence_cites_listed_genes_that_favour_the_type(toys):
    model = Centroids(toys)
    genes = ("RPL1", "CD3E", "RPL2", "CD3D")
    assert set(model.evidence(genes, "T cell", "B cell")[:2]) == {"CD3D", "CD3E"}
    assert set(model.evidence(genes, "T cell", None)) <= set(genes)
    assert model.evidence(genes, "neuron", "B cell") == []


def test_nothing_to_learn_from_is_an_error(toys):
    with pytest.raises(InputError, match="no training puzzle has an answer"):
        Centroids([Puzzle(p.context, p.cells, p.candidates) for p in toys])


def test_the_same_puzzles_in_another_order_give_the_same_model(toys):
    a, b = Centroids(toys), Centroids(toys[::-1])
    np.testing.assert_array_equal(a.model.weights, b.model.weights)
