from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cello1.solvers import assign
from cello1.solvers.assign import assign_alone, assign_jointly, probabilities

shapes = st.integers(2, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 6)))
matrices = shapes.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(-8, 8, width=32)))


def enumerated(scores):
    """The definition: weigh every injective assignment, and add up."""
    n, m = scores.shape
    shares = np.zeros((n, m))
    best, best_order = -np.inf, None
    for order in permutations(range(m), n):
        total = sum(scores[i, j] for i, j in enumerate(order))
        shares[range(n), order] += np.exp(total)
        if total > best:
            best, best_order = total, order
    return shares / shares[0].sum(), best, best_order


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_exact_probabilities_are_those_of_enumeration(scores):
    shares, method = probabilities(scores)
    assert method == "exact"
    np.testing.assert_allclose(shares, enumerated(scores)[0], rtol=1e-7, atol=1e-10)
    # What is summed in logs, where products could vanish, is the same.
    np.testing.assert_allclose(assign._exact_in_logs(scores), shares, rtol=1e-7, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_the_joint_assignment_has_the_highest_total(scores):
    columns = assign_jointly(scores)
    assert len(set(columns.tolist())) == len(scores)
    total = scores[range(len(scores)), columns].sum()
    assert total == pytest.approx(enumerated(scores)[1])


def test_alone_each_cell_takes_its_best_type_even_twice():
    assert assign_alone(np.array([[3.0, 1.0], [2.0, 1.0]])).tolist() == [0, 0]
    assert assign_jointly(np.array([[3.0, 1.0], [2.0, 1.0]])).tolist() == [0, 1]


def test_an_easy_cell_settles_a_hard_one():
    # Cell 2 cannot tell the types apart; cell 1 can, and so decides for both.
    shares, _ = probabilities(np.array([[9.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(shares[1], [0, 1], atol=1e-3)


@pytest.mark.parametrize("scale", [1e3, 1e5])
def test_huge_scores_neither_overflow_nor_vanish(scale):
    scores = np.random.default_rng(0).normal(size=(10, 12)) * scale
    shares, _ = probabilities(scores)
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert np.array_equal(shares.argmax(axis=1), assign_jointly(scores))


def test_constants_per_cell_do_not_matter():
    scores = np.random.default_rng(1).normal(size=(5, 7))
    moved = scores + np.arange(5)[:, None] * 50
    np.testing.assert_allclose(probabilities(scores)[0], probabilities(moved)[0], atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 20), (17, 24)])
def test_beyond_sixteen_candidates_sinkhorn_keeps_the_sums(shape):
    scores = np.random.default_rng(2).normal(size=shape) * 3
    shares, method = probabilities(scores)
    assert method == "sinkhorn"
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert (shares.sum(axis=0) <= 1 + 1e-6).all()


def test_sinkhorn_is_near_the_exact_where_both_can_be_had():
    scores = np.random.default_rng(3).normal(size=(8, 10)) * 2
    errors = np.abs(assign._sinkhorn(scores) - probabilities(scores)[0])
    assert errors.mean() < 0.03
    assert errors.max() < 0.2
