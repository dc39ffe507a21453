"""The page of an annotation: everything escaped, legible with many names, used in a browser."""

from __future__ import annotations

import numpy as np
import pytest
from blood import MARKERS, TYPES, blood

import cello1 as co
from cello1.errors import InputError

EVIL = "<img src=x onerror=\"window.broken='yes'\"> & 'co'"


def annotated(clusters=TYPES, names=None):
    cells = blood(clusters, cells=6)
    if names is not None:
        cells.obs["cluster"] = cells.obs["cluster"].cat.rename_categories(names)
    cells.obsm["X_umap"] = np.random.default_rng(0).normal(size=(cells.n_obs, 2))
    co.tl.annotate(cells, groupby="cluster", candidates=[*TYPES, "hepatocyte"], solver="markers")
    return cells


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    cells = annotated(names=[EVIL, "1", "2", "3"])
    made = co.report(cells, folder / "page.html")
    assert (folder / "page.html").read_text("utf-8") == made
    return folder / "page.html"


def test_the_page_says_what_was_decided(page_file):
    text = page_file.read_text("utf-8")
    for kind in TYPES:
        assert kind in text
    assert MARKERS["B cell"][0] in text
    assert EVIL not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count("data:image/png;base64,") == 2


def test_without_an_embedding_there_is_no_map():
    cells = annotated()
    del cells.obsm["X_umap"]
    assert "data:image/png" not in co.report(cells)
    with pytest.raises(InputError, match="no annotation 'other'"):
        co.report(cells, key="other")


def test_it_opens_from_disk_without_error_or_request(page_file, visit):
    for scheme in ("light", "dark"):
        seen = visit(scheme=scheme)
        page = seen.open(page_file)
        seen.shot(f"annotation-{scheme}")
        assert seen.errors == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [page_file.as_uri()]
        assert page.evaluate("window.broken") is None
        assert page.locator("#clusters tbody th").get_by_text(EVIL).count() == 1


def test_clusters_are_sorted_searched_and_explained(page_file, visit):
    seen = visit()
    page = seen.open(page_file)
    rows = page.locator("#clusters tbody tr")
    assert page.locator("#count").inner_text() == "4 of 4 clusters"
    page.get_by_role("button", name="Label").click()
    labels = page.locator("#clusters .label").all_inner_texts()
    assert labels == sorted(labels, key=str.casefold)
    page.fill("#search", "platelet")
    shown = [i for i in range(rows.count()) if rows.nth(i).is_visible()]
    assert 0 < len(shown) < 4
    row = rows.nth(shown[0])
    row.get_by_text("Why").click()
    assert "cells" in row.locator("details p").inner_text()
    assert seen.errors == []


def test_a_phone_shows_it_without_sideways_scrolling(page_file, visit):
    seen = visit(390, 844)
    page = seen.open(page_file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.shot("annotation-phone")


def test_everything_has_a_name_for_screen_readers(page_file, visit):
    seen = visit()
    page = seen.open(page_file)
    assert seen.nameless() == []
    assert page.locator("[role=img]:not([aria-label]), img:not([alt])").count() == 0
