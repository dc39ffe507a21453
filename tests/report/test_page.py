import base64
import gzip
import json
import re

import pytest
from report_toys import EVIL, make_runs, stumbles, toy_puzzle
from typer.testing import CliRunner

from cello1.cli import app
from cello1.errors import InputError, UseError
from cello1.report import page
from cello1.report.gather import gather
from cello1.report.page import report


def data_of(html):
    found = re.search(r'id="data">([A-Za-z0-9+/=\s]+)</script>', html)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def made(runs, tmp_path, **more):
    return report(runs, tmp_path / "report.html", **more).read_text("utf-8")


def test_what_came_from_data_is_text_and_nothing_is_loaded(toy_runs, tmp_path):
    html = made(toy_runs, tmp_path)
    assert EVIL not in html
    assert "&lt;script&gt;window.broken" in html
    assert len(re.findall("<script", html)) == 2  # the data and our own
    assert "<b>overloaded" not in html
    assert not re.findall(r'(?:src|href)="(?!#)', html.replace("xlink:", ""))
    data = data_of(html)
    assert EVIL in data["types"]
    assert len(data["puzzles"]) == 24


def test_the_data_hold_what_runs_said(toy_runs, tmp_path):
    data = data_of(made(toy_runs, tmp_path))
    assert data["runs"] == ["knows", "stumbles"]
    first, second = data["puzzles"][0], data["puzzles"][1]
    knew, stumbled = first["runs"]
    assert knew["right"][:2] == [0, 0]
    assert not knew["exact"]
    assert knew["shares"][0][first["answer"][0]] == 900
    assert stumbled == {"failure": "HTTP 500: <b>overloaded</b>"}
    assert second["runs"][0]["exact"]
    assert second["runs"][1]["format"] is False
    assert second["runs"][1]["given"] == [None] * len(second["cells"])
    cited = [piece for piece in knew["text"] if isinstance(piece, list)]
    assert ["Cell 1", 1] in cited
    assert [data["genes"][first["cells"][0][0]], 1] in [piece[:2] for piece in cited]


def test_responses_that_cannot_be_read_are_counted(toy_runs, tmp_path):
    html = report(toy_runs, tmp_path / "r.html").read_text("utf-8")
    found = gather(toy_runs).solved[1].evaluation
    assert (found.tolerant.unreadable, found.tolerant.still_unreadable) == (6, 0)
    assert found.tolerant.batch_accuracy > found.overall.batch_accuracy.estimate
    assert "not in the exact format, in all" in html
    assert html.count("read tolerantly, 0 stay unreadable") == 1  # of the one run that has any


def test_the_same_runs_give_the_same_page(toy_runs, tmp_path):
    assert made(toy_runs, tmp_path) == made(toy_runs, tmp_path)


def test_a_run_without_any_answer_says_why(tmp_path):
    puzzles = [toy_puzzle(seed) for seed in range(6)]
    runs = make_runs(tmp_path, puzzles, dead=lambda i, p: None, alive=stumbles)
    html = made(runs, tmp_path)
    assert "0 of 6" in html
    assert "call failed: HTTP 500: &lt;b&gt;overloaded&lt;/b&gt;" in html
    alone = made(runs[:1], tmp_path)
    assert "None of the puzzles was answered" in alone


def test_more_puzzles_than_fit_are_sampled_and_it_is_said(toy_runs, tmp_path, monkeypatch):
    html = made(toy_runs, tmp_path, most_puzzles=5)
    assert "A random sample of 5 of the 24 puzzles" in html
    assert len(data_of(html)["puzzles"]) == 5
    whole = len(made(toy_runs, tmp_path).encode())
    monkeypatch.setattr(page, "MOST_BYTES", whole - 1_000)
    smaller = made(toy_runs, tmp_path)
    assert len(smaller.encode()) < whole - 1_000
    assert "A random sample of" in smaller


def test_runs_over_other_puzzles_have_no_difference(tmp_path):
    runs = [
        *make_runs(tmp_path / "a", [toy_puzzle(s) for s in range(6)], one=stumbles),
        *make_runs(tmp_path / "b", [toy_puzzle(s) for s in range(90, 96)], two=stumbles),
    ]
    html = made(runs, tmp_path)
    assert "no puzzle in common" in html
    assert "2 runs on 12 puzzles" in html


def test_costs_follow_from_prices(toy_runs, tmp_path):
    answered = len(gather(toy_runs[:1]).solved[0].scored)
    html = made(toy_runs, tmp_path, prices={"knows": (1_000.0, 2_000.0)})
    assert f"{answered * (90 * 1_000 + 9 * 2_000) / 1e6:,.4f} USD" in html
    with pytest.raises(UseError, match=r"'nobody'; the runs are knows, stumbles"):
        made(toy_runs, tmp_path, prices={"nobody": (1.0, 1.0)})


def test_bad_input_is_told_in_one_line(toy_runs, tmp_path):
    with pytest.raises(InputError, match="named twice"):
        gather([toy_runs[0], toy_runs[0]])
    with pytest.raises(InputError, match="no run folder"):
        gather([tmp_path])
    call = CliRunner().invoke(app, ["report", str(toy_runs[0]), "--price", "knows=1"])
    assert isinstance(call.exception, UseError)
    assert "expected RUN=IN,OUT" in str(call.exception)


def test_the_command_writes_page_and_figures(toy_runs, tmp_path):
    out, figures = tmp_path / "r.html", tmp_path / "figures"
    args = ["report", *map(str, toy_runs), "-o", str(out), "--figures", str(figures)]
    call = CliRunner().invoke(app, args)
    assert call.exit_code == 0, call.output
    assert out.stat().st_size > 10_000
    drawn = {path.name for path in figures.iterdir()}
    assert {"batch-by-n.svg", "batch-by-n.png", "confusion-knows.svg", "length-tokens.svg"} <= drawn
