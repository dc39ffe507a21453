"""Files that are odd, but good: their puzzles are right and come back as they were."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cello1.cells.build import build
from cello1.cells.make import make_puzzles
from cello1.errors import InputError
from cello1.puzzles.table import read_puzzles


@pytest.mark.parametrize("label", ['"B" cell', "B 'memory' cell", "CD4+ αβ, naïve <T> cell", "B;,"])
def test_quotes_and_other_signs_in_labels_work_and_come_back(
    make_cells, save, small, tmp_path, label
):
    adata = make_cells()
    adata.obs["cell_type"] = adata.obs["cell_type"].replace("B cell", label)
    build([save(adata)], tmp_path / "out", small(split="none", per_n=20))
    puzzles = read_puzzles(tmp_path / "out" / "all.parquet")
    assert puzzles == make_puzzles(tmp_path / "good.h5ad", small(per_n=20))[0]
    assert label in {name for p in puzzles for name in p.answer}


def test_donors_may_have_any_letters(make_cells, save, small, tmp_path):
    names = ["Пациент-7", "患者3", "Zoë", "donor\u00a0x"]
    adata = make_cells()
    adata.obs["donor_id"] = [names[int(d[1:])] for d in adata.obs["donor_id"]]
    built = build([save(adata, "Größe ß")], tmp_path / "out", small())
    puzzles = [p for f in tmp_path.glob("out/*.parquet") for p in read_puzzles(f)]
    assert built.ok
    assert {p.meta["donor_id"] for p in puzzles} == set(names)


def test_some_rows_of_zeros_are_dropped_and_the_rest_is_used(make_cells, save, small):
    adata = make_cells()
    x = adata.X.toarray()
    x[::10] = 0
    adata.X = x
    _, report = make_puzzles(save(adata), small())
    assert report.drops == {"no expressed gene": 11}
    assert report.used == adata.n_obs - 11


def test_what_is_advised_for_few_genes_works(make_cells, save, small):
    adata = make_cells()
    adata.X = np.where(np.arange(200) < 30, adata.X.toarray() + 1, 0)
    puzzles, report = make_puzzles(save(adata), small(min_genes=30))
    assert report.status == "built"
    assert all(len(cell) == 30 for p in puzzles for cell in p.cells)


def test_donors_that_an_old_file_keeps_as_codes_beside_their_names_are_not_taken_for_numbers(
    make_cells, save, small
):
    """Before anndata 0.8 a category was a column of codes with a reference to its names."""
    path = save(make_cells())
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        codes, names = obs["donor_id/codes"][:], obs["donor_id/categories"][:]
        del obs["donor_id"]
        obs["__categories/donor_id"] = names
        obs["donor_id"] = codes
        obs["donor_id"].attrs["categories"] = obs["__categories/donor_id"].ref
    try:
        puzzles, _ = make_puzzles(path, small())
    except InputError as error:
        text = str(error)
    else:
        text = " ".join({p.meta["donor_id"] for p in puzzles})
    assert "D0" in text or "write it again" in text
