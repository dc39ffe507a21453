"""Donors and diseases that the user names are held out, whole."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import numpy as np
import pytest

from cello1.cells.make import make_puzzles
from cello1.cells.split import SPLITS, split_puzzles
from cello1.errors import InputError
from cello1.recipes import BuildSettings


def split(puzzles, **settings):
    return split_puzzles(puzzles, BuildSettings(**settings))


def donors(puzzles):
    return {p.meta["donor_id"] for p in puzzles}


def assert_dealt_once(splits, puzzles):
    dealt = Counter(p.id for members in splits.values() for p in members)
    assert dealt == Counter(p.id for p in puzzles)


def test_named_donors_are_tested_and_validated_on_and_nobody_else(crowd):
    puzzles = crowd(20)
    splits = split(puzzles, test_donors=("d3", "d5"), validation_donors=("d7",))
    assert donors(splits["test"]) == {"d3", "d5"}
    assert donors(splits["validation"]) == {"d7"}
    assert_dealt_once(splits, puzzles)


def test_with_only_test_donors_named_the_rest_is_still_validated_on(crowd):
    splits = split(crowd(20), test_donors=("d3",))
    assert donors(splits["test"]) == {"d3"}
    assert len(splits["validation"]) > 0


def test_a_named_donor_brings_what_it_is_tied_to(make_puzzle):
    at = [("d1", "lung"), ("d1", "blood"), ("d2", "blood"), ("d3", "liver"), ("d4", "skin")]
    puzzles = [make_puzzle(d, tissue=t) for d, t in at]
    assert donors(split(puzzles, split="tissue", test_donors=("d1",))["test"]) == {"d1", "d2"}
    with pytest.raises(InputError, match="tied by shared donors"):
        split(puzzles, split="tissue", test_donors=("d1",), validation_donors=("d2",))


@pytest.mark.parametrize("wish", ["test_donors", "validation_donors", "unseen_diseases"])
def test_a_name_that_does_not_occur_is_refused_with_those_that_do(crowd, wish):
    with pytest.raises(InputError, match=r"no puzzle has .* 'nobody' to hold out; there are d"):
        split(crowd(6), **{wish: ("nobody",)})


@pytest.mark.parametrize("kind", ["donor", "dataset", "tissue", "disease"])
def test_unseen_diseases_are_held_out_with_all_their_donors(make_puzzle, kind):
    at = [(f"d{i}", f"disease{i % 4}", f"tissue{i}", f"file{i}") for i in range(12)]
    puzzles = [make_puzzle(d, disease=x, tissue=t, dataset=f) for d, x, t, f in at]
    puzzles.append(make_puzzle("d0", disease="normal", tissue="tissue0", dataset="file0"))
    splits = split(puzzles, split=kind, unseen_diseases=("disease0",))
    assert donors(splits["unseen"]) == {"d0", "d4", "d8"}
    for name in SPLITS:
        assert "disease0" not in {p.meta["disease"] for p in splits[name]}
        assert "d0" not in donors(splits[name])
    assert_dealt_once(splits, puzzles)


def test_an_unseen_disease_is_held_out_where_it_comes_with_others_too(make_puzzle):
    puzzles = [make_puzzle(f"d{i}", disease="normal") for i in range(6)]
    puzzles += [make_puzzle("x1", disease="flu"), make_puzzle("x2", disease="cough || flu")]
    assert donors(split(puzzles, unseen_diseases=("flu",))["unseen"]) == {"x1", "x2"}


@pytest.mark.parametrize("kind", ["donor", "cell"])
def test_no_cell_of_an_unseen_disease_is_trained_on(make_cells, save, small, kind):
    """Also where healthy cells of the donor stand beside it; a split that cannot do so says so."""
    adata = make_cells(donors=6, cells=12)
    donor, even = adata.obs["donor_id"], np.arange(adata.n_obs) % 2 == 0
    ill = ((donor == "D0") & even) | (donor == "D1")
    adata.obs["disease"] = np.where(ill, "flu", "normal")
    plan = small(unseen_diseases=("flu",), split=kind, per_n=20)
    with suppress(InputError):
        splits = split_puzzles(make_puzzles(save(adata), plan)[0], plan)
        seen = {c for name in SPLITS for p in splits[name] for c in p.meta["cell_ids"]}
        assert not seen & set(adata.obs_names[ill])
