"""Pooled evidence, and the votes of single cells beside it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from cello1.annotate import evidence as module
from cello1.annotate.data import VOTERS, _choose_voters, average
from cello1.annotate.evidence import Knowledge, listed_by, weigh
from cello1.annotate.reasons import Shares

# Genes a, b, c, d; the last type lists a and b alike, and nobody knows anything of d.
WEIGHTS = np.array([[4, -4, 3], [-4, 4, 3], [-2, -2, 2], [0, 0, 0]], dtype=float)


def evidence(clusters, offered=3):
    """Weigh clusters of cells that list one gene each."""
    lists = np.array([[gene] for cells in clusters for gene in cells], dtype=np.int32)
    sizes = np.array([len(cells) for cells in clusters])
    owners = np.repeat(np.arange(len(clusters)), sizes)
    known = Knowledge(
        ["A", "B", "C"], WEIGHTS, np.ones(3, dtype=bool), np.ones((1, 4), np.float32), 4, 4, "test"
    )
    cells = listed_by(lists, known.places)
    listed = np.array(
        [np.asarray(cells[owners == k].mean(axis=0)).ravel() for k in range(len(sizes))]
    )
    return weigh(listed, average(listed, sizes), lists, owners, known, offered)


def test_a_mixed_cluster_is_what_most_of_its_cells_are():
    found = evidence([[0] * 33 + [1] * 27, [2] * 40, [3] * 40])
    assert found.pooled[0].argmax() == 2  # what is pooled fits neither
    assert found.scores[0].argmax() == 0
    np.testing.assert_allclose(found.votes[0], [0.55, 0.45, 0], atol=0.01)


def test_a_kind_that_is_everywhere_is_not_hidden_by_the_mean_of_all():
    found = evidence([[0] * 60 + [1] * 5, [0] * 30 + [1] * 25, [0] * 60 + [1] * 3])
    assert found.scores.argmax(axis=1).tolist() == [0, 0, 0]
    # Splitting a cluster changes nothing of the others.
    split = evidence([[0] * 60 + [1] * 5, [0] * 30 + [1] * 25, [0] * 30 + [1] * 3, [0] * 30])
    np.testing.assert_allclose(split.pooled[:2], found.pooled[:2], atol=0.05)


def test_cells_that_list_nothing_known_do_not_agree_on_anything():
    found = evidence([[0] * 20, [1] * 20, [3] * 20])
    gap = np.sort(found.scores[2])[::-1]
    assert found.votes[2].max() < 0.7
    assert gap[0] - gap[1] < found.scores[0].max() - np.sort(found.scores[0])[1]


def test_a_type_that_nothing_is_known_of_gets_no_votes():
    lists = np.array([[0], [0], [1], [1]], dtype=np.int32)
    known = Knowledge(
        ["A", "B", "?"], WEIGHTS * [1, 1, 0], np.array([True, True, False]),
        np.ones((1, 4), np.float32), 4, 4, "test",
    )  # fmt: skip
    listed = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    found = weigh(listed, listed.mean(axis=0), lists, np.array([0, 0, 1, 1]), known, 3)
    assert (found.votes[:, 2] == 0).all()
    assert np.isfinite(found.scores).all()


def test_a_cluster_of_one_cell_hardly_moves_the_mean():
    listed = np.array([[1.0, 0], [0, 1.0], [5.0, 5.0]])
    before = average(listed[:2], np.array([200, 50]))
    after = average(listed, np.array([200, 50, 1]))
    assert np.abs(after - before).max() < 0.25
    assert np.abs(before - 0.5).max() < 0.05  # whether clusters are large hardly matters


def test_voters_are_spread_over_a_cluster():
    codes = np.array([0, 1] * (2 * VOTERS) + [-1] * 5 + [2])
    chosen = _choose_voters(codes, 3)
    assert np.bincount(codes[chosen]).tolist() == [VOTERS, VOTERS, 1]
    places = np.flatnonzero(chosen & (codes == 0))
    assert np.diff(places).max() <= 4
    assert not chosen[codes < 0].any()


def test_ratings_in_pieces_give_the_same(monkeypatch):
    clusters = [[0] * 33 + [1] * 27, [2] * 40, [3] * 40, [1] * 9]
    whole, before = evidence(clusters), WEIGHTS.copy()
    monkeypatch.setattr(module, "BLOCK", 7)
    pieces = evidence(clusters)
    for name in ("scores", "pooled", "votes", "base", "weights", "common"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), atol=1e-9)
    np.testing.assert_array_equal(WEIGHTS, before)
    rating = np.array([clusters[0].count(g) for g in range(4)]) / 60 @ whole.weights - whole.base
    np.testing.assert_allclose(whole.apart(0) @ whole.weights, rating, atol=1e-5)
    np.testing.assert_allclose(whole.pooled[0], rating, atol=1e-5)


def test_shares_of_cells_inside_and_outside_a_cluster():
    # Symbols that several genes share can be counted more often than there are cells.
    counted = SimpleNamespace(detected=np.array([[2, 0], [9, 3]]), sizes=np.array([4, 6]))
    share = Shares(counted)
    np.testing.assert_allclose(share.inside(0), [0.5, 0])
    np.testing.assert_allclose(share.outside(0), [1.0, 0.5])
    np.testing.assert_allclose(share.inside(1), [1.0, 0.5])
    np.testing.assert_allclose(share.outside(1), [0.5, 0])
