"""Three runs on real cells of held-out donors: classical, a language model, one with failures."""

import pytest
from report_toys import make_runs  # noqa: F401  (puts the neighbouring tests' server on the path)
from typer.testing import CliRunner

import cello1
from cello1.cli import app
from cello1.recipes import BuildSettings


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cells_dir):
    pytest.importorskip("openai", reason="needs the extra `api`")
    import misbehaving

    folder = tmp_path_factory.mktemp("kang")
    settings = BuildSettings(test_donors=("1016", "1488"), per_n=10, seed=0)
    cello1.build([cells_dir / "kang2018_ifnb2800.h5ad"], folder / "puzzles", settings)
    server = misbehaving.Server()
    answers = {"model": [misbehaving.right]}
    refuse = misbehaving.error(400, "<b>not allowed</b>")
    answers["failing"] = [refuse, misbehaving.right, refuse, misbehaving.says({"content": "no"})]
    made = [folder / "markers"]
    solve = ["solve", str(folder / "puzzles"), "--solver"]
    CliRunner().invoke(app, [*solve, "markers", "--out", str(made[0])])
    for name, script in answers.items():
        server.script = script
        made.append(folder / name)
        endpoint = ["openai:m", "--base-url", server.url, "--in-flight", "1"]
        CliRunner().invoke(app, [*solve, *endpoint, "--out", str(made[-1])])
    server.stop()
    return made


def test_one_command_reports_them_and_the_page_works(runs, tmp_path, visit):
    out = tmp_path / "report.html"
    call = CliRunner().invoke(app, ["report", *map(str, runs), "-o", str(out)])
    assert call.exit_code == 0, call.output
    for width in (1280, 390):
        seen = visit(width)
        page = seen.open(out)
        assert seen.errors == []
        assert seen.requests == [out.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        seen.shot(f"kang-{width}")
    assert "call failed: HTTP 400: <b>not allowed</b>" in page.locator("#responses").inner_text()
    page.select_option("#run", label="failing")
    page.select_option("#outcome", "failed")
    assert page.locator("#list li").count() > 2
    # Real cells: the markers cited are in their lists.
    page.select_option("#outcome", "")
    page.select_option("#run", label="markers")
    assert page.locator(".reasoning .cited.marker").count() > 0
    assert page.locator(".reasoning .cited.absent").count() == 0
