"""The pages in a real browser: by mouse and keyboard, small and dark, with names that break out."""

import threading

import pytest
from report_toys import EVIL, knows, make_runs, right, stumbles, toy_puzzle

from cello1.play.game import Game
from cello1.play.server import PlayServer
from cello1.report.page import MOST_BYTES, report
from cello1.runs import Run, read_records

FILTER_MILLISECONDS = 200
CHUNK = 60  # of the list of puzzles


@pytest.fixture(scope="module")
def page_file(toy_runs, tmp_path_factory):
    return report(toy_runs, tmp_path_factory.mktemp("page") / "report.html")


def in_view(page, selector):
    """Wait until an element is in the window."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_be_in_viewport(timeout=60_000)


def shown(page):
    return page.locator("#list li:visible").count()


def test_it_opens_from_disk_without_error_or_request(page_file, visit):
    for scheme in ("light", "dark"):
        seen = visit(scheme=scheme)
        page = seen.open(page_file)
        seen.shot(f"report-{scheme}")
        assert seen.errors == []
        assert seen.requests == [page_file.as_uri()]
        assert page.evaluate("window.broken") is None
        assert shown(page) == 24
        assert page.locator("#detail").get_by_text(EVIL).count() > 0


def test_filters_keep_what_they_promise(page_file, visit):
    seen = visit()
    page = seen.open(page_file)
    assert page.locator("#count").inner_text() == "24 puzzles"
    page.select_option("#n", "4")
    assert shown(page) == 12
    page.select_option("#outcome", "wrong")
    page.select_option("#run", label="knows")
    assert shown(page) == 4  # of every third puzzle, those with an odd number
    page.click("button[type=reset]")
    page.get_by_text("24 puzzles", exact=True).wait_for()
    page.select_option("#outcome", "failed")
    assert shown(page) == 12  # by the one that stumbles: no answer, or not readable
    page.select_option("#outcome", "")
    page.fill("#search", "GNLY blood")
    assert 0 < shown(page) < 24
    page.fill("#search", "no such gene")
    assert shown(page) == 0
    assert "No puzzle is like that" in page.locator("#detail").inner_text()
    assert seen.errors == []


def test_a_puzzle_is_reached_and_read_by_keyboard(page_file, visit):
    seen = visit()
    page = seen.open(page_file)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator("#list button[aria-current]").focus()
    first = page.locator("#puzzle-title").inner_text()
    page.keyboard.press("ArrowDown")
    second = page.locator("#puzzle-title").inner_text()
    assert second != first
    assert page.evaluate("document.activeElement.dataset.puzzle") == "1"
    page.keyboard.press("k")
    assert page.locator("#puzzle-title").inner_text() == first
    # From the reasoning to the gene in the list of its cell, without a mouse.
    link = page.locator(".reasoning a.cited").first
    gene = link.get_attribute("data-gene")
    link.focus()
    page.keyboard.press("Enter")
    assert page.locator(".cells .shown").get_attribute("id") == "cell-1"
    assert page.locator(".cells .found").inner_text() == gene
    assert "<i>by elimination</i>" in page.locator(".reasoning").inner_text()
    page.locator("[role=tab]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[role=tabpanel]:visible").count() == 1
    assert "stumbles" in page.locator("[role=tabpanel]:visible caption").inner_text()


def test_a_failed_call_and_a_bad_format_are_shown_as_what_they_are(page_file, visit):
    page = visit().open(page_file)
    page.get_by_role("button", name="stumbles", exact=True).last.click()
    assert "HTTP 500: <b>overloaded</b>" in page.locator("#detail .panel").inner_text()
    page.keyboard.press("j")
    assert "there is text before <think>" in page.locator(".facts").inner_text()
    assert "Well, <think>" in page.locator(".reasoning").inner_text()


def test_a_phone_shows_it_without_sideways_scrolling(page_file, visit):
    seen = visit(390, 844)
    page = seen.open(page_file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#list').scrollTop") == 0
    page.locator("#list button").nth(2).click()
    in_view(page, "#puzzle-title")
    seen.shot("report-phone")
    assert page.evaluate("location.hash").startswith("#puzzle-")


def test_everything_has_a_name_for_screen_readers(page_file, visit):
    seen = visit()
    page = seen.open(page_file)
    assert seen.nameless() == []
    assert page.locator("[role=img]:not([aria-label])").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_a_thousand_puzzles_stay_small_and_filter_fast(visit, tmp_path):
    puzzles = [toy_puzzle(seed, n=10, genes=50, filler=400) for seed in range(1_000)]
    runs = make_runs(tmp_path, puzzles, knows=knows, second=right, stumbles=stumbles)
    made = report(runs, tmp_path / "report.html")
    assert made.stat().st_size < MOST_BYTES
    page = visit().open(made)
    assert page.locator("#count").inner_text() == "1000 puzzles"
    # Processor time of the page's thread: what else this machine does is not the page's.
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent():
        measured = session.send("Performance.getMetrics")["metrics"]
        return next(1_000 * m["value"] for m in measured if m["name"] == "TaskDuration")

    for word in ("cd3d", "ms4a1 blood", "rpl17", ""):
        before = spent()
        page.fill("#search", word)
        page.evaluate("document.body.offsetHeight")
        assert spent() - before < FILTER_MILLISECONDS
        assert shown(page) == CHUNK
    # The list grows as one goes down in it.
    page.locator("#list button").last.click()
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    assert shown(page) == 2 * CHUNK
    assert page.evaluate("document.activeElement.dataset.puzzle") == str(CHUNK + 1)


@pytest.fixture
def server(tmp_path):
    with Run(tmp_path / "me", command="solve", config={}, inputs=[]) as run:
        game = Game(run, [toy_puzzle(seed) for seed in range(4)], {}, number=2, seed=0)
        with PlayServer(game, "127.0.0.1", 0) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield server
            server.shutdown()


def test_a_puzzle_is_played_by_mouse_and_one_by_keyboard(server, visit, tmp_path):
    seen = visit()
    page = seen.open(server.url)
    first, second = server.game.pending.values()
    for cell, label in enumerate(first.answer):
        chip = page.locator("#types li").nth(first.candidates.index(label))
        chip.drag_to(page.locator("#cells li").nth(cell))
    seen.shot("play-by-mouse")
    page.click("#submit")
    page.wait_for_selector("#result:not([hidden])")
    assert page.locator("#result-title").inner_text().startswith("All 4 cells are right")
    page.click("#next")

    assert page.locator("#title").inner_text() == "Puzzle 2 of 2"
    wrong = [*second.answer[1::-1], *second.answer[2:]]
    page.locator("#cells select").first.focus()
    for label in wrong:
        # Down as often as the type stands below the prompt of the list.
        for _ in range(second.candidates.index(label) + 1):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
    page.keyboard.type("Because <answer>.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.locator("#result-title").inner_text().startswith("2 of 4 cells are right")
    assert page.locator("#cells .was-wrong").count() == 2
    assert "1 of 2" in page.locator("#standing").inner_text()
    assert [r["id"] for r in read_records(tmp_path / "me")] == [first.id, second.id]
    assert seen.errors == []
    assert all(url.startswith(server.url) or url.startswith("data:") for url in seen.requests)


def test_a_type_given_twice_is_told_and_a_phone_can_play(server, visit):
    seen = visit(390, 844)
    page = seen.open(server.url)
    page.select_option("#type-0", "1")
    page.select_option("#type-2", "1")
    said = page.locator("#left").inner_text()
    assert said == "2 of 4 cells have no type yet; cells 1 and 3 share a type"
    for cell, kind in enumerate(("0", "2", "1", "3")):
        assert page.locator("#submit").is_disabled()
        page.select_option(f"#type-{cell}", kind)
    assert page.locator("#submit").is_enabled()
    page.select_option("#type-0", "1")
    assert page.locator("#submit").is_disabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("window.broken") is None
    seen.shot("play-phone")
