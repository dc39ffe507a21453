from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run; `--hypothesis-profile=default` searches for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared")
    return SHARED


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return the status and what it printed."""
    from cello1 import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cello1", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return stopped.value.code or 0, said.out, said.err

    return call


@pytest.fixture(scope="session")
def cells_dir(shared: Path) -> Path:
    return shared / "data" / "cells"


@pytest.fixture(scope="session")
def labelled():
    from accuracy import read_labels

    return read_labels(Path(__file__).parent / "behaviour" / "behaviour_labels.jsonl")


@pytest.fixture(scope="session")
def blood():
    from cello1.puzzles.puzzle import Puzzle

    return Puzzle(
        "Blood.",
        [["S100A8", "LYZ"], ["CD8A", "CD3D", "NKG7"], ["MS4A1", "CD79A"], ["GNLY", "NKG7"]],
        ["B cell", "CD8-positive, alpha-beta T cell", "classical monocyte", "natural killer cell"],
        ["classical monocyte", "CD8-positive, alpha-beta T cell", "B cell", "natural killer cell"],
        {"donor_id": "d1"},
    )


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory):
    """Two runs over 24 puzzles: one that knows, one that stumbles."""
    from report_toys import knows, make_runs, stumbles, toy_puzzle

    puzzles = [toy_puzzle(seed, n=3 + seed % 2) for seed in range(24)]
    return make_runs(tmp_path_factory.mktemp("toys"), puzzles, knows=knows, stumbles=stumbles)


@pytest.fixture(scope="module")  # Playwright's event loop must not outlive these tests
def chromium():
    """A real browser: Debian's Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright (pip)")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Tests may run as root in a container, where the sandbox of Chromium cannot start.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page with what went wrong in it, and where its screenshots go."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        self.errors, self.requests = [], []
        page.set_default_timeout(120_000)  # a busy machine is no fault of the page
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, where):
        self.page.goto(where if isinstance(where, str) else where.as_uri())
        self.page.wait_for_selector("#app:not([hidden])")
        return self.page

    def nameless(self):
        """Return the controls that a screen reader has no name for."""
        return self.page.evaluate("""() => [
            ...document.querySelectorAll("button, a, select, input")
        ].filter((e) => !(
            e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label")
        )).map((e) => e.outerHTML)""")

    def shot(self, name):
        """Keep a screenshot: in $CELLO1_SCREENSHOTS, if set, else in the test's own folder."""
        self.page.screenshot(path=self.folder / f"{name}.png")


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a page in a window of some size and colour scheme."""
    folder = Path(os.environ.get("CELLO1_SCREENSHOTS", tmp_path))
    contexts = []

    def start(width=1280, height=860, scheme="light"):
        viewport = {"width": width, "height": height}
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=scheme))
        return Visit(contexts[-1].new_page(), folder)

    yield start
    for context in contexts:
        context.close()
