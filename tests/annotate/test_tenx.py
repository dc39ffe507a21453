"""A matrix of Cell Ranger, as it comes from the machine: labelled, and written as .h5ad."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pytest
from blood import TYPES

from cello1.annotate.prospect import prospect
from cello1.cells.doctor import examine
from cello1.cells.h5ad.tenx import is_tenx, write_as_h5ad
from cello1.errors import InputError

ANTIBODIES = ("CD3", "CD19")


def write_tenx(path, cells, version=3, genomes=("GRCh38",), **instead):
    """Write cells as Cell Ranger does: features x cells, by columns, with antibodies at the end."""
    x = cells.X.tocsr().astype(np.int32)
    n, genes = cells.n_obs, list(cells.var_names)
    if version == 3:
        # More counts than any gene has: they would lead every list.
        more = np.full((n, len(ANTIBODIES)), 9_999, dtype=np.int32)
        from scipy.sparse import csr_matrix, hstack

        x = csr_matrix(hstack([x, csr_matrix(more)], format="csr"), dtype=np.int32)
    parts = {
        "barcodes": np.array([f"AAAC{i:04d}-1".encode() for i in range(n)]),
        "data": x.data, "indices": x.indices.astype(np.int64), "indptr": x.indptr.astype(np.int64),
        "shape": np.array(x.shape[::-1], dtype=np.int32),
    } | instead  # fmt: skip
    ids = np.array([f"ENSG{i:011d}".encode() for i in range(x.shape[1])])
    names = np.array([name.encode() for name in genes])
    with h5py.File(path, "w") as file:
        for genome in ("matrix",) if version == 3 else genomes:
            group = file.create_group(genome)
            for name, values in parts.items():
                group.create_dataset(name, data=values, chunks=True, compression="gzip")
            if version == 3:
                kinds = [b"Gene Expression"] * len(genes) + [b"Antibody Capture"] * len(ANTIBODIES)
                of = group.create_group("features")
                of["id"], of["feature_type"] = ids, np.array(kinds)
                of["name"] = np.append(names, np.array([a.encode() for a in ANTIBODIES]))
                of["genome"] = np.array([b"GRCh38"] * x.shape[1])
            else:
                group["genes"], group["gene_names"] = ids, names
    return path


@pytest.fixture
def annotate(run):
    def call(*arguments):
        code, out, err = run("annotate", *arguments)
        return code, " ".join((out + err).split())

    return call


@pytest.mark.parametrize("version", [2, 3])
def test_cells_without_anything_known_are_clustered_and_labelled(
    annotate, cells, tmp_path, version
):
    path, out = write_tenx(tmp_path / "x.h5", cells, version), tmp_path / "out.h5ad"
    (tmp_path / "types.txt").write_text("\n".join(TYPES))
    code, said = annotate(path, "-o", out, "--candidates", tmp_path / "types.txt")
    assert code == 0, said
    after = anndata.read_h5ad(out)
    assert list(after.obs_names[:2]) == ["AAAC0000-1", "AAAC0001-1"]
    assert (after.X[:, : cells.n_vars] != cells.X).nnz == 0
    assert after.X.shape[1] == cells.n_vars + (len(ANTIBODIES) if version == 3 else 0)
    assert after.var["gene_ids"].iloc[0] == "ENSG00000000000"
    labels = after.obs["cello1"].astype(str).to_numpy()
    assert (labels == cells.obs["cell_type"].astype(str)).mean() > 0.9
    if version == 3:
        assert "Antibody Capture" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5ad", "types.txt", "x.h5"]


def test_what_would_be_sent_is_shown(annotate, cells, tmp_path):
    path, out = write_tenx(tmp_path / "x.h5", cells), tmp_path / "out.h5ad"
    asked = ("--solver", "openai:m", "--base-url", "http://localhost:9/v1", "--dry-run")
    code, said = annotate(path, "-o", out, "--candidate", "B cell", *asked)
    assert code in (0, 1), said
    assert "ENSG" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
    code, said = annotate(path, "-o", tmp_path / "out.h5")
    assert code == 2
    assert "expected a name that ends in .h5ad" in said


def test_doctor_says_what_it_is_and_what_can_be_done(cells, tmp_path):
    path = write_tenx(tmp_path / "x.h5", cells)
    (problem,) = examine(path).problems
    assert "matrix of Cell Ranger" in problem
    assert f"cello1 annotate {path} -o x.h5ad" in problem
    found = prospect(path)
    assert found.usable
    assert f"{cells.n_obs} cells" in found.found[0]
    assert f"{cells.n_vars} of Gene Expression, 2 of Antibody Capture" in found.found[0]


def test_values_and_names_are_those_that_scanpy_reads(cells, tmp_path):
    scanpy = pytest.importorskip("scanpy")
    for version in (2, 3):
        path = write_tenx(tmp_path / f"{version}.h5", cells, version)
        write_as_h5ad(path, tmp_path / f"{version}.h5ad")
        ours = anndata.read_h5ad(tmp_path / f"{version}.h5ad")
        theirs = scanpy.read_10x_h5(path, gex_only=False)
        assert list(ours.var_names) == list(theirs.var_names)
        assert list(ours.obs_names) == list(theirs.obs_names)
        assert (ours.X != theirs.X).nnz == 0
        for column in ("gene_ids", "feature_types"):
            if column in theirs.var:
                assert list(ours.var[column]) == list(theirs.var[column])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"version": 2, "genomes": ("hg19", "mm10")}, r"2 genomes \(hg19, mm10\).*genome='hg19'"),
        ({"indptr": np.array([0, 3])}, "is a damaged matrix of Cell Ranger .*2 pointers"),
        ({"shape": np.array([7])}, "is a damaged matrix of Cell Ranger .*its shape is"),
        ({"barcodes": np.array([b"A"])}, "is a damaged matrix of Cell Ranger .*1 barcodes"),
        ({"data": np.array([1])}, "is a damaged matrix of Cell Ranger .*for 1 values"),
    ],
)
def test_what_cannot_be_used_is_named(cells, tmp_path, how, words):
    path = write_tenx(tmp_path / "x.h5", cells, **how)
    assert is_tenx(path)
    with pytest.raises(InputError, match=words):
        write_as_h5ad(path, tmp_path / "x.h5ad")
    assert not prospect(path).usable


def test_the_raw_matrix_of_empty_droplets_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    x = np.zeros((300, 2_000), dtype=np.float32)
    x[:, :3] = 1
    x[:100] = rng.random((100, 2_000)) < 0.2
    from scipy.sparse import csr_matrix

    some = anndata.AnnData(csr_matrix(x))
    path = write_tenx(tmp_path / "raw.h5", some, version=2)
    with pytest.raises(InputError, match=r"raw matrix: 200 of 300 .*filtered_feature_bc_matrix"):
        write_as_h5ad(path, tmp_path / "x.h5ad")


def test_links_to_other_files_are_not_followed(cells, tmp_path):
    path = write_tenx(tmp_path / "x.h5", cells)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = [b"secret"]
    with h5py.File(path, "r+") as file:
        file["matrix/more"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
    with pytest.raises(InputError, match="would read another file"):
        write_as_h5ad(path, tmp_path / "x.h5ad")
