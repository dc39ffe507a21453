import json

import pytest
from typer.testing import CliRunner

from cello1.behaviour.rating import KEY, PAGE, common_puzzles, count_choices, write_page
from cello1.cli import app
from cello1.errors import InputError
from cello1.puzzles.prompt import response_text
from cello1.puzzles.puzzle import Puzzle

EVIL = "</script><script>document.title='taken'</script><b>bold</b>"


@pytest.fixture
def puzzles():
    return [
        Puzzle(f"Person {i}.", [["A"], ["B"]], ["x", "y"], ["x", "y"], {"donor_id": f"d{i % 4}"})
        for i in range(12)
    ]


@pytest.fixture
def runs(puzzles):
    good = {p.id: response_text(f"good reasons {EVIL}", ("x", "y")) for p in puzzles}
    bad = {p.id: "badly formed" for p in puzzles}
    return {"good": good, "bad": bad}


def export(path, page, choose):
    """What the page would export for a rater with a rule of their own."""
    items = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    choices = {str(i): choose(item) for i, item in enumerate(items["items"])}
    path.write_text(json.dumps({"page": items["page"], "rater": path.stem, "choices": choices}))
    return path


def good_side(item):
    return "left" if "good" in item["left"]["reasoning"] else "right"


def test_choices_are_counted_for_the_run_whatever_side_it_was_on(puzzles, runs, tmp_path):
    page = write_page(tmp_path, puzzles, runs)
    ann = export(tmp_path / "ann.json", page, good_side)
    names, found = count_choices(tmp_path, puzzles, [ann])
    assert names == ["good", "bad"]
    assert (found.share.estimate, found.wins, found.losses) == (1.0, 12, 0)
    assert 0 < found.first_shown < 1  # it stood on either side
    bob = export(tmp_path / "bob.json", page, lambda item: "tie")
    _, both = count_choices(tmp_path, puzzles, [ann, bob])
    assert (both.share.estimate, both.ties, both.agreement) == (0.75, 12, 0.0)
    assert (both.share.clusters, both.share.unit) == (4, "donor")


def test_the_page_is_blind_and_its_data_cannot_become_markup(puzzles, runs, tmp_path):
    text = write_page(tmp_path, puzzles, runs).read_text()
    data = text.split('id="data">')[1].split("</script>")[0]
    assert "<" not in data
    assert '"bad"' not in data
    assert text.count("<script>") == 1
    assert "http" not in text.replace("http-equiv", "")
    assert write_page(tmp_path, puzzles, runs).read_text() == text  # the same seed, the same page


def test_what_is_no_export_of_this_page_is_refused(puzzles, runs, tmp_path):
    page = write_page(tmp_path, puzzles, runs)
    path = export(tmp_path / "ann.json", page, good_side)
    content = json.loads(path.read_text())
    for wrong, complaint in (
        ([], "not hold a JSON object"),
        (content | {"page": "other"}, "not an export"),
        (content | {"choices": {"0": "middle"}}, "has the choice 'middle'"),
        (content | {"choices": {"99": "left"}}, "item '99'"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=complaint):
            count_choices(tmp_path, puzzles, [path])
    with pytest.raises(InputError, match="key of another page"):
        write_page(tmp_path, puzzles[:5], runs)


def test_only_puzzles_that_both_answered_are_shown(puzzles, runs):
    fewer = {p.id: runs["bad"][p.id] for p in puzzles[3:]}
    assert common_puzzles(puzzles, runs["good"], fewer, most=None) == puzzles[3:]
    drawn = common_puzzles(puzzles, runs["good"], most=5)
    assert len(drawn) == 5
    assert drawn == common_puzzles(puzzles, runs["good"], most=5)
    with pytest.raises(InputError, match="no puzzle in common"):
        common_puzzles(puzzles, {}, fewer, most=5)


def test_the_command_writes_a_page_and_counts_what_comes_back(puzzles, tmp_path):
    from cello1.puzzles.table import write_puzzles

    write_puzzles(puzzles, tmp_path / "p.parquet")
    for name, seed in (("one", 1), ("two", 2)):
        arguments = ["solve", tmp_path / "p.parquet", "--solver", "chance", "--seed", seed]
        CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / name)])
    rate = ["rate", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "r")]
    shown = CliRunner().invoke(app, rate)
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "r" / KEY).exists()
    left = export(tmp_path / "left.json", tmp_path / "r" / PAGE, lambda item: "left")
    counted = CliRunner().invoke(app, [*rate, "--choices", str(left), "--json"])
    assert counted.exit_code == 0, counted.output
    found = json.loads(counted.output)
    assert (found["first"], found["second"], found["first_shown"]) == ("one", "two", 1.0)


def test_a_rater_can_choose_by_key_and_mouse_and_export(puzzles, runs, tmp_path, visit):
    seen = visit(width=390, height=800)
    page = seen.page
    page.goto(write_page(tmp_path, puzzles, runs).as_uri())
    assert page.title() == "Which response reasons better?"  # the script in the data is text
    assert EVIL in page.inner_text("main")
    page.fill("#rater", "Ann B.")
    page.keyboard.press("Tab")
    page.keyboard.press("1")
    page.click("[data-choice=tie]")
    page.keyboard.press("3")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("[data-choice=right]", "aria-pressed") == "true"
    assert page.inner_text("#progress") == "3 of 12 rated"
    width = page.evaluate("document.documentElement.scrollWidth")
    with page.expect_download() as download:
        page.click("#export")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "choices-Ann_B_.json"
    assert width <= 390
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith(("file:", "blob:"))] == []
    _, found = count_choices(tmp_path, puzzles, [saved])
    assert (found.share.n, found.unread, found.ties) == (3, 9, 1)
