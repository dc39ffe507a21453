"""Every verb works where neither the package nor a home folder can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cello1
from cello1.caches import settle_caches

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No settings of caches, and temporary files in a folder of this test."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch


def test_a_home_that_can_be_written_stays_in_use(bare, tmp_path):
    bare.setenv("HOME", str(tmp_path))
    settle_caches()
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.parametrize("home", ["/proc/nowhere", "~", "/dev/null"])
def test_without_a_home_caches_go_to_a_private_folder(bare, tmp_path, home):
    bare.setenv("HOME", home)
    bare.setattr("os.access", lambda path, mode: str(path).startswith(str(tmp_path)))
    settle_caches()
    folder = Path(os.environ["XDG_CACHE_HOME"]).parent
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)


def test_a_folder_that_others_prepared_is_passed_over(bare, tmp_path):
    bare.setenv("HOME", "/proc/nowhere")
    bare.setattr("os.access", lambda path, mode: False)
    (tmp_path / "theirs").mkdir()
    usual = tmp_path / f"cello1-cache-{os.getuid()}"
    usual.symlink_to(tmp_path / "theirs")
    settle_caches()
    # The random name of another folder may begin alike.
    assert not Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(usual)
    assert not list((tmp_path / "theirs").iterdir())


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv (util-linux) to become another user",
)
def test_an_unprivileged_user_without_a_home_can_build(tmp_path_factory, make_blood):
    """The package belongs to root and is read-only; HOME does not exist."""
    folder = Path("/tmp") / f"cello1-test-{os.getpid()}"
    shutil.copytree(
        Path(cello1.__file__).parent,
        folder / "lib" / "cello1",
        ignore=shutil.ignore_patterns("__pycache__", "models"),
    )
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    make_blood(folder / "cells.h5ad")
    try:
        said = subprocess.run(
            [*AS_NOBODY, sys.executable, "-m", "cello1", "build", folder / "cells.h5ad", "--split",
             "none", "--out", folder / "out" / "pz", "--n-min", "4", "--n-max", "6"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "lib"),
                 "HOME": "/nonexistent", "TMPDIR": str(folder / "out"), "OMP_NUM_THREADS": "1"},
            cwd=folder / "out",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "setpriv: failed to execute" in said.stderr or "No module named" in said.stderr:
            pytest.skip("this Python cannot be read by other users")
        assert said.returncode == 0, said.stderr
        assert (folder / "out" / "pz" / "all.parquet").exists()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def make_blood():
    import anndata as ad
    import numpy as np
    import pandas as pd

    types = ["B cell", "natural killer cell", "mast cell", "erythrocyte", "hepatocyte"]
    genes = [
        "CD3E",
        "CD19",
        "MS4A1",
        "LYZ",
        "NKG7",
        "GNLY",
        "PPBP",
        "HBB",
        *map("ZNF{}".format, range(92)),
    ]

    def write(path):
        obs = pd.DataFrame(
            [(f"P{d}", t) for d in range(2) for t in types for _ in range(4)],
            columns=["donor_id", "cell_type"],
        )
        obs.index = [f"c{i}" for i in range(len(obs))]
        counts = np.random.default_rng(0).poisson(3, (len(obs), len(genes))).astype("f4")
        ad.AnnData(counts, obs, pd.DataFrame(index=genes)).write_h5ad(path)

    return write
