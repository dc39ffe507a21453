"""Tables take what comes from outside literally, and fit the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rich.console import Console

from cello1.cells.audit import audit
from cello1.cells.doctor import Diagnosis
from cello1.cells.report import FileReport
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import evaluate
from cello1.terminal.tables import (
    Table,
    audit_table,
    breakdown_table,
    diagnosis_table,
    files_table,
    scores_table,
)
from cello1.terminal.text import clean, text

NASTY = "a[/]b[red]c[link=x]\x1b[31m\x1b]0;title\x07\u202eend"


def printed(part, width):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(part)
    return capture.get()


def scored(*texts):
    puzzles = [
        Puzzle(f"c{i}", [("A",), ("B",)], ("B cell", "T cell"), ("B cell", "T cell"),
               {"donor_id": f"d{i}", "tissue": NASTY if i else "blood"})
        for i in range(len(texts))
    ]  # fmt: skip
    return evaluate(puzzles, {p.id: t for p, t in zip(puzzles, texts, strict=True)})


RIGHT = response_text("x", ("B cell", "T cell"))


def test_markup_is_taken_literally_and_control_characters_are_written_out():
    assert clean(NASTY) == "a[/]b[red]c[link=x]\\x1b[31m\\x1b]0;title\\x07\\u202eend"
    assert clean("one\ntwo\t\u03b1\u03b2") == "one\ntwo\t\u03b1\u03b2"
    shown = printed(text(NASTY), 200)
    assert "a[/]b[red]c[link=x]" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("width", [40, 80, 160])
def test_names_from_outside_show_as_they_are(width):
    evaluation = scored(RIGHT, RIGHT)
    for part in (scores_table({NASTY: evaluation}), breakdown_table(NASTY, evaluation, "tissue")):
        shown = printed(part, width)
        whole = "".join(c for c in shown if not c.isspace() and c not in "\u2502\u2503")
        assert "a[/]b[red]c[link=x]" in whole
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_files_donors_and_problems_of_doctor_show_as_they_are():
    report = FileReport(path=NASTY, dataset=NASTY, message=NASTY, drops={NASTY: 2})
    found = Diagnosis(
        path=NASTY,
        matrices={NASTY: NASTY},
        columns={NASTY: NASTY},
        donors={NASTY: (3, 40)},
        report=report,
        problems=[NASTY],
    )
    puzzles = [Puzzle("x", [("A",), ("B",)], ("[/]", "[red]"), ("[/]", "[red]"))]
    for part in (diagnosis_table(found), files_table([report])):
        for width in (60, 200):
            shown = printed(part, width)
            assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert shown.count("a[/]b[red]c[link=x]") >= 2
    assert "[red] (1)" in printed(audit_table(audit({"all": puzzles})), 200)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_nothing_is_cut_off_at_any_width(width):
    shown = printed(scores_table({"centroids jointly": scored(RIGHT, RIGHT)}), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "\u2026" not in shown
    for figure in ("centroids jointly", "1.000 [", "0.500", "words"):
        assert figure in shown


def test_a_table_that_fits_stays_a_table():
    table = Table("run", "puzzles >", title="few")
    table.add_row("a", 12)
    assert len(printed(table, 80).splitlines()) == 6
    assert "puzzles" in printed(table, 80).splitlines()[2]


def test_a_piped_table_obeys_columns():
    program = (
        "from cello1.terminal.tables import Table, show\n"
        "t = Table('a', *[f'column{i} >' for i in range(5)])\n"
        "t.add_row('x', *['0.123 [0.100, 0.200]'] * 5)\nshow(t)\n"
    )
    for columns, least, most in (("70", 0, 70), (None, 100, 160)):
        env = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
        env |= {"COLUMNS": columns} if columns else {}
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
        assert least <= max(map(len, done.stdout.splitlines())) <= most


def test_unreadable_responses_are_counted_and_what_a_tolerant_reading_gives():
    found = scored(RIGHT, "x</think>\n\n<answer>**B cell** | T cell</answer>", "I cannot tell.")
    assert (found.tolerant.unreadable, found.tolerant.still_unreadable) == (2, 1)
    assert found.overall.batch_accuracy.estimate == pytest.approx(1 / 3)  # the score stays strict
    assert found.tolerant.batch_accuracy == pytest.approx(2 / 3)
    shown = " ".join(printed(scores_table({"run": found}), 400).split())
    assert "2 of 3 responses are not in the exact format" in shown
    assert "1 x bold, quoted or code labels" in shown
    assert "exact format" not in printed(scores_table({"run": scored(RIGHT)}), 400)
