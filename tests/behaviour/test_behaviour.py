import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from cello1.behaviour.detect import ERRORS
from cello1.behaviour.measures import (
    OWN,
    TABLE,
    differences,
    measure,
    read_responses,
    summarize,
)
from cello1.cli import app
from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.table import write_puzzles
from cello1.solvers.classical.markers import Markers

SURE_FIRST = (
    "Start with the clearest. Cell 3 shows MS4A1, so B cell. Cell 1 shows LYZ, so classical "
    "monocyte. Cell 4 has GNLY: NK cell. Only CD8 T cell is left for Cell 2."
)
IN_LINE = (
    "Cell 1: LYZ, classical monocyte. Cell 2: NKG7, NK cell. Cell 3: B cell. Cell 4: CD8 T cell."
)
RIGHT = ("classical monocyte", "CD8-positive, alpha-beta T cell", "B cell", "natural killer cell")
WRONG = (RIGHT[0], RIGHT[3], RIGHT[2], RIGHT[1])


@pytest.fixture
def puzzles(blood):
    return [
        replace(blood, context=f"Blood of person {i}.", meta={"donor_id": f"d{i % 3}"})
        for i in range(6)
    ]


@pytest.fixture
def responses(puzzles):
    texts = [response_text(SURE_FIRST, RIGHT), response_text(IN_LINE, WRONG)]
    return [(p, {"text": texts[i % 2]}) for i, p in enumerate(puzzles)]


def test_shares_are_means_over_responses_and_resample_donors(puzzles, responses):
    responses[0] = (puzzles[0], {"text": "no format"})
    found = summarize(*measure(responses))
    assert (found.responses, found.malformed, found.wrong_cells) == (6, 1, 6)
    assert found.measures["elimination"].estimate == pytest.approx(2 / 5)
    assert found.measures["elimination"].clusters == 3
    assert found.measures["elimination"].unit == "donor"
    assert found.measures["agreement"].estimate == 1.0
    assert sum(found.errors[name].estimate for name in ERRORS) == pytest.approx(1)


def test_order_is_positive_when_right_cells_come_first_and_negative_when_last(puzzles):
    # IN_LINE settles its right cells as first and third; turned round, as second and last.
    turned = (
        "Cell 4: CD8 T cell. Cell 3: MS4A1, B cell. Cell 2: NKG7, NK cell. Cell 1: LYZ, monocyte."
    )
    for text, tau in ((IN_LINE, 2 / (6 * 4) ** 0.5), (turned, -2 / (6 * 4) ** 0.5)):
        measured, _ = measure([(puzzles[0], {"text": response_text(text, WRONG)})])
        assert measured[0].values["order_right"] == pytest.approx(tau)
    measured, _ = measure([(puzzles[0], {"text": response_text(IN_LINE, RIGHT)})])
    assert "order_right" not in measured[0].values  # all right: no order to be right in


def test_how_clear_a_cell_is_comes_from_the_runs_own_scores_if_it_has_any(puzzles):
    text = response_text(SURE_FIRST, RIGHT)  # settles cells 3, 1, 4, 2
    scores = [[0.0, 0, 3, 0], [0.0, 1, 0, 0], [4.0, 0, 0, 0], [0.0, 0, 0, 2]]
    measured, _ = measure([(puzzles[0], {"text": text, "scores": scores})])
    assert measured[0].values["order_clear"] == pytest.approx(1)
    assert measured[0].margin_source == OWN
    measured, _ = measure([(puzzles[0], {"text": text})])
    assert measured[0].margin_source == TABLE
    assert Markers.from_file().scores(puzzles[0]).any()


def test_paired_differences_are_of_the_same_puzzles(puzzles, responses):
    all_sure = [(p, {"text": response_text(SURE_FIRST, RIGHT)}) for p in puzzles[:4]]
    a, b = measure(all_sure)[0], measure(responses)[0]
    found = differences(a, b)["curriculum"]
    assert (found.n, found.estimate) == (4, 0.5)


def test_traces_are_read_like_runs_and_rows_without_responses_are_refused(puzzles, tmp_path):
    traces = [replace(p, meta={**p.meta, "assistant_msg": response_text(SURE_FIRST, RIGHT)})
              for p in puzzles]  # fmt: skip
    write_puzzles(traces, tmp_path / "reasoning.parquet")
    for source in (tmp_path, tmp_path / "reasoning.parquet"):
        assert len(read_responses(source)) == 6
    other = replace(
        traces[0], meta={**traces[0].meta, "assistant_msg": response_text(IN_LINE, WRONG)}
    )
    write_puzzles([traces[0], other], tmp_path / "two.parquet")
    measured, _ = measure(read_responses(tmp_path / "two.parquet"))
    assert [m.values["curriculum"] for m in measured] == [1.0, 0.0]  # each row its own response
    write_puzzles(puzzles, tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="holds no responses"):
        read_responses(tmp_path / "bare.parquet")


def run(*arguments):
    wide = {"COLUMNS": "160"}  # so that no name is broken over lines
    return CliRunner(env=wide).invoke(app, [str(a) for a in arguments])


@pytest.fixture
def solved(puzzles, tmp_path):
    path = tmp_path / "puzzles.parquet"
    write_puzzles(puzzles, path)
    for solver in ("markers", "chance"):
        assert run("solve", path, "--solver", solver, "--out", tmp_path / solver).exit_code == 0
    return tmp_path


def test_the_command_compares_runs_and_leaves_its_figures_in_them(solved):
    shown = run("behaviour", solved / "markers", solved / "chance")
    assert shown.exit_code == 0, shown.output
    assert "markers - chance" in shown.output
    assert "self reflection" in shown.output
    kept = json.loads((solved / "markers" / "behaviour.json").read_text())
    as_json = json.loads(run("behaviour", solved / "markers", "--json").output)
    assert as_json["runs"]["markers"] == kept
    assert kept["measures"]["self_reflection"]["estimate"] == 0.0  # it settles each cell once
    assert kept["measures"]["discussed"]["estimate"] == 1.0
    assert kept["measures"]["consistent"]["estimate"] == 1.0


def test_wrong_use_is_named(solved):
    missing = run("behaviour", solved / "markers", "--judge", "openai:m")
    assert type(missing.exception).__name__ == "UseError"
    assert run("behaviour").exit_code == 2
