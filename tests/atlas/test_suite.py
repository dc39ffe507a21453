"""The suite refuses what has seen a study, and leaves out the sources that come from it."""

import sys
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = __import__("suite")
    yield module
    sys.modules.pop("suite", None)


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((BENCHMARKS / "suite.yaml").read_text("utf-8"))


def entrant(suite, kind):
    return next(e for e in suite.ENTRANTS if e.kind == kind)


def test_who_learned_from_a_study_is_refused_on_it(suite, manifest):
    why = suite.refuse_clash(manifest, entrant(suite, "centroids"), "kang-whole")
    assert why == "centroids learned from Kang 2018"
    assert suite.refuse_clash(manifest, entrant(suite, "centroids"), "kang-test") is None
    assert suite.refuse_clash(manifest, entrant(suite, "atlas"), "kang-whole") is None
    assert suite.refuse_clash(manifest, entrant(suite, "centroids"), "hnscc") is None


def test_a_solver_the_manifest_does_not_know_is_refused(suite, manifest):
    del manifest["learned"]["chance"]
    assert "does not say" in suite.refuse_clash(manifest, entrant(suite, "chance"), "liver")


def test_sources_of_a_tested_study_are_left_out(suite):
    from cello1.atlas import Atlas

    sources = Atlas.read().sources
    assert suite.left_out("Adams 2020", sources) == ("Adams 2020",)
    assert suite.left_out("Puram 2017", sources) == ()
    # Every study and source that may share donors with the published rows is there to be left out.
    told = yaml.safe_load((BENCHMARKS / "suite.yaml").read_text("utf-8"))["published"]["may_share"]
    assert set(told) <= {s.study for s in sources}


def test_neighbouring_rows_are_one_cluster(suite):
    ids = ["test_000000", "test_000001", "test_000009", "unseen_000010", "unseen_000011"]
    assert suite.runs_of(ids) == ["run 1", "run 1", "run 2", "run 3", "run 3"]
