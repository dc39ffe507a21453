"""The suite refuses what has seen a study, and leaves out the sources that come from it."""

import sys
from pathlib import Path

import pytest
import yaml

from cello1.errors import InputError

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


def of(suite, study, right, clusters=None, solver="markers, jointly"):
    """Return a set with the puzzles of which a solver solves some."""
    row = suite.Measured(tuple(map(float, right)), tuple(map(bool, right)), clusters, None)
    return suite.Set(study, study, {solver: row})


def both(suite, study, atlas, markers):
    rows = of(suite, study, atlas, solver="atlas, jointly").rows
    return suite.Set(study, study, {**rows, **of(suite, study, markers).rows})


def test_a_study_of_several_sets_counts_once(suite, capsys):
    half, none, whole = [1, 0], [0, 0], [1, 1]
    sets = [
        both(suite, "A", whole, half),
        both(suite, "A", half, half),
        both(suite, "B", half, none),
    ]
    entrants = [e for e in suite.ENTRANTS if e.name in (suite.MARKERS, suite.ATLAS)]
    suite.macro("sets", {str(i): [one] for i, one in enumerate(sets)}, entrants)
    suite.macro("studies", suite.by_study(sets), entrants)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| atlas")]
    assert [line.split("|")[2].strip() for line in lines] == ["3 of 3", "2 of 2"]
    # Over sets (1 + 1/2 + 1/2) / 3; over studies ((1 + 1/2) / 2 + 1/2) / 2.
    assert [line.split("|")[4].split()[0] for line in lines] == [".667", ".625"]


def test_a_ratio_is_over_what_both_were_asked(suite, capsys):
    alone = of(suite, "B", [1, 1], solver="atlas, jointly")
    sets = [both(suite, "A", [1, 1, 1, 1], [1, 1, 1, 1]), alone]
    entrants = [e for e in suite.ENTRANTS if e.name == suite.ATLAS]
    suite.macro("studies", suite.by_study(sets), entrants)
    assert "| 1.00 [1.00, 1.00] |" in capsys.readouterr().out


def test_solvers_of_one_set_get_the_same_resamples(suite):
    clusters = ("a", "a", "b", "c", "c", "d")
    right = [1, 0, 1, 0, 1, 1]
    one, other = (of(suite, "A", right, clusters).rows[suite.MARKERS] for _ in range(2))
    assert (one.resampled == other.resampled).all()
    low, high = one.batch.low, one.batch.high
    assert low <= one.resampled.mean() <= high


def test_results_are_kept_and_those_of_other_code_refused(suite, tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    results = suite.Results(file)
    results.keep("a", of(suite, "A", [1, 0], ("x", "y")))
    results.keep("a", suite.Set("A", "A", {"centroids": "it learned from it"}))
    again = suite.Results(file)
    assert again.sets == results.sets
    assert again.lacking("a", [suite.MARKERS, "centroids", suite.ATLAS]) == [suite.ATLAS]
    monkeypatch.setattr(suite, "fingerprint", lambda: "other")
    with pytest.raises(InputError, match="other code"):
        suite.Results(file)
    file.write_text("[]")
    with pytest.raises(InputError, match="holds no results"):
        suite.Results(file)


def test_published_rows_count_without_what_may_share_donors(suite, manifest):
    asked = suite.published_entrants(manifest, suite.ENTRANTS)
    assert asked["atlas, jointly"][1] == tuple(manifest["published"]["may_share"])
    assert asked["atlas, jointly, all sources"][1] == ()
    # The embedded model learned from tables that may share donors: shown, but in no average.
    assert "mini, assign" not in asked
    assert "mini, assign, learned from Adams 2020" in asked
