import json

import pytest

from cello1.errors import InputError
from cello1.report.dynamics import read_log
from cello1.report.page import report
from cello1.runs import Run


def training_run(folder, lines, command="rl", end="\n"):
    with Run(folder, command=command, config={}, inputs=[]):
        pass
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "log.jsonl").write_text(text + end)
    return folder


def test_curves_take_the_fields_a_run_logs(tmp_path):
    lines = [
        {"step": 1, "reward": -1.0, "no_signal": 0.8, "kl": 0.0, "validation": None},
        {"step": 2, "reward": 0.0, "frac_reward_zero_std": 0.5, "entropy": float("nan")},
        {"step": 2, "validation": {"batch_accuracy": 0.25, "cell_accuracy": 0.5}},
        {"step": 2, "reward": 0.5},  # logged anew after a resume
    ]
    log = read_log("a", training_run(tmp_path, lines), {"command": "rl"})
    assert log.curves["reward"].steps == (1.0, 2.0)
    assert log.curves["reward"].values == (-1.0, 0.5)
    assert log.curves["signal"].values == (0.8,)
    assert log.curves["batch"].values == (0.25,)
    assert "entropy" not in log.curves


def test_smoothing_looks_back_and_keeps_the_level(tmp_path):
    lines = [{"step": i, "loss": 5.0 if i < 500 else 1.0} for i in range(1_000)]
    smooth = read_log("a", training_run(tmp_path, lines), {"command": "base"}).curves["loss"].smooth
    assert smooth[:500] == pytest.approx([5.0] * 500)
    assert 4.0 < smooth[501] < 5.0
    assert smooth[-1] == pytest.approx(1.0, abs=1e-3)


def test_a_torn_line_is_passed_over_and_a_damaged_one_is_told(tmp_path):
    torn = training_run(tmp_path / "torn", [{"step": 1, "loss": 1.0}, '{"step": 2, "lo'], end="")
    assert read_log("a", torn, {"command": "sft"}).curves["loss"].steps == (1.0,)
    damaged = training_run(tmp_path / "damaged", ['{"step": 1', {"step": 2, "loss": 1.0}])
    with pytest.raises(InputError, match="line 1 is damaged"):
        read_log("a", damaged, {"command": "sft"})


def test_a_run_without_a_log_or_measure_is_refused(tmp_path):
    empty = training_run(tmp_path / "empty", [{"epoch": 1}])
    with pytest.raises(InputError, match="no line with a step"):
        read_log("a", empty, {"command": "sft"})
    (empty / "log.jsonl").unlink()
    with pytest.raises(InputError, match=r"run of 'build' without log\.jsonl"):
        read_log("a", empty, {"command": "build"})


def test_several_trainings_are_overlaid_in_one_page(tmp_path):
    names = ("with SFT", "without SFT")
    runs = [
        training_run(tmp_path / n, [{"step": i, "reward": i / 9, "kl": 0.1} for i in range(9)])
        for n in names
    ]
    html = report(runs, tmp_path / "r.html").read_text()
    assert "Training of 2 runs" in html
    assert html.count('id="training-reward"') == 1
    assert "with SFT: from 0 at step 0" in html
    assert "without SFT: from 0 at step 0" in html
    assert 'id="puzzles"' not in html
