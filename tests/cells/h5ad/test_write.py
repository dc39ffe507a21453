"""Files are written in plain types; a place that cannot be written is reported first."""

from __future__ import annotations

import errno
import os

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from cello1.cells.h5ad import write
from cello1.cells.h5ad.write import can_create, plain_table, write_h5ad
from cello1.errors import InputError


def test_all_parts_of_a_file_are_written(make_cells, tmp_path):
    adata = make_cells()
    adata.raw = adata.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_umap"] = np.zeros((adata.n_obs, 2))
    adata.obsm["table"] = pd.DataFrame({"a": ["x"] * adata.n_obs}, index=adata.obs_names)
    adata.obs["gaps"] = pd.Series([None, "b"] * (adata.n_obs // 2), adata.obs_names)
    adata.obs["text"] = pd.array(["a", None] * (adata.n_obs // 2), dtype="string")
    can_create(tmp_path / "new" / "out.h5ad")
    write_h5ad(adata, tmp_path / "new" / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "new" / "out.h5ad")
    assert again.obs["text"].tolist()[0] == "a"
    assert again.obs["gaps"].isna().sum() == adata.n_obs // 2
    assert again.obsm["table"]["a"].tolist() == ["x"] * adata.n_obs
    assert again.raw.var_names.tolist() == adata.var_names.tolist()
    assert (again.layers["counts"] != adata.X).nnz == 0


def test_nothing_is_stored_as_values_and_mask(make_cells, tmp_path):
    """Strings of pandas 3, in columns, categories and the index, are written as ever."""
    adata = make_cells()
    adata.obs["plain"] = pd.array(["a", "b"] * (adata.n_obs // 2), dtype="string")
    adata.obs["kinds"] = pd.Categorical(pd.array(["a", "b"] * (adata.n_obs // 2), dtype="string"))
    adata.obs.index = adata.obs.index.astype("string")
    write_h5ad(adata, tmp_path / "out.h5ad")
    found = []
    with h5py.File(tmp_path / "out.h5ad") as file:
        file.visititems(lambda name, node: found.append(str(node.attrs.get("encoding-type"))))
    assert "nullable-string-array" not in found
    assert plain_table(adata.obs)["plain"].dtype == object


def test_a_folder_or_a_closed_place_is_told_at_once(make_cells, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        can_create(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="nothing can be written to"):
        can_create(tmp_path / "file" / "out.h5ad")


def test_a_full_disk_names_the_file_and_what_is_free(make_cells, tmp_path, monkeypatch):
    class Full(write._Disk):
        """Has room for a kilobyte."""

        def write(self, data):
            if self.tell() > 1024 and self.error is None:
                self.error = OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(write, "_Disk", Full)
    with pytest.raises(OSError, match=r"MB free") as told:
        write_h5ad(make_cells(), tmp_path / "out.h5ad")
    assert told.value.errno == errno.ENOSPC
    assert told.value.filename == os.fspath(tmp_path / "out.h5ad")
    assert not list(tmp_path.iterdir())
