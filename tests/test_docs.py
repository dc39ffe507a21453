"""The documentation: every page can be reached, every link leads somewhere, and it builds."""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cello1
from cello1.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if not {"_build", "generated"} & set(page.relative_to(DOCS).parts)
)
READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCED = re.compile(r"^(`{3,}|:{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Return the relative links of a page; those in blocks of code are none."""
    found = LINK.findall(FENCED.sub("", page.read_text("utf-8")))
    return [link for link in found if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    text = FENCED.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def in_toctrees(page: Path) -> set[Path]:
    """Return the pages below a page, itself included."""
    reached = {page}
    for block in TOCTREE.findall(page.read_text("utf-8")):
        for line in block.splitlines():
            if line and not line.startswith(":"):
                reached |= in_toctrees(page.parent / f"{line.strip()}.md")
    return reached


def verbs() -> set[str]:
    group = typer.main.get_command(app)
    return set(group.commands)  # type: ignore[attr-defined]


def test_every_page_is_in_a_toctree() -> None:
    assert in_toctrees(DOCS / "index.md") == set(PAGES)


def test_readme_links_to_every_page() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    linked.add(DOCS / "changelog.md")  # it only includes CHANGELOG.md
    assert ROOT / "CHANGELOG.md" in linked
    assert set(PAGES) - linked == set()


@pytest.mark.parametrize("page", [*READMES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}"


def test_the_index_page_has_whole_addresses() -> None:
    """What the index of packages shows of the README: every link leads there, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(links(ROOT / "README.md")) > 30
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    found = LINK.findall(FENCED.sub("", text))
    assert all(link.startswith("https://") for link in found)
    home = project["project"]["urls"]["Homepage"]
    assert f"{home}/blob/main/docs/results.md" in found
    assert any(link.endswith("/main/docs/alone-or-together.svg") for link in found)
    assert "raw.githubusercontent.com" in next(link for link in found if link.endswith(".svg"))


def test_contributing_shows_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    tree = text.split("```")[3]
    named = set(re.findall(r"(\w+)(?:/|\.py)", tree))
    rooms = {
        path.stem
        for path in (ROOT / "src" / "cello1").iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }
    assert rooms - named == set()


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(cited["version"]) == cello1.__version__


def test_tested_versions_are_within_the_bounds_of_every_core_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if re.match(r"[\w.-]+==[^;]+$", line))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    for line in project["dependencies"]:
        needed = Requirement(line)
        assert any(bound.operator == "<" for bound in needed.specifier), f"no upper bound: {line}"
        assert needed.specifier.contains(tested[canonicalize_name(needed.name)]), line


def test_the_notice_names_all_data_that_come_along() -> None:
    """Whatever is neither code nor a template: its source, or that it is our own."""
    notice = (ROOT / "NOTICE").read_text("utf-8")
    package = ROOT / "src" / "cello1"
    data = [
        path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc", ".nbi", ".nbc", ".typed")
        and "templates" not in path.parts
    ]
    assert len(data) > 10
    unnamed = [
        name
        for path in data
        if (name := path.relative_to(ROOT).as_posix()) not in notice
        and f"{path.parent.relative_to(ROOT).as_posix()}/\n" not in notice
    ]
    assert unnamed == []


def test_the_licence_of_igraph_is_told_where_it_is_installed() -> None:
    told = [(DOCS / name).read_text("utf-8") for name in ("quickstart.md", "limits.md")]
    assert all(
        re.search(r"igraph, which is \[?under the GPL", " ".join(page.split())) for page in told
    )


def test_every_verb_has_a_page() -> None:
    pages = {page.stem for page in (DOCS / "cli").glob("*.md")} - {"index"}
    assert pages == verbs(), "write docs/cli/VERB.md, name it in docs/cli/index.md and README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_commands_on_pages_know_their_options(page: Path) -> None:
    """Every `cello1 VERB --option` that a page shows is a verb with that option."""
    group = typer.main.get_command(app)
    blocks = [found.group() for found in FENCED.finditer(page.read_text("utf-8"))]
    text = "\n".join(blocks).replace("\\\n", " ")
    for verb, rest in re.findall(r"^cello1 ([a-z]+)(.*)$", text, re.MULTILINE):
        assert verb in verbs(), f"{page}: cello1 {verb}"
        known = {o for p in group.commands[verb].params for o in p.opts}  # type: ignore[attr-defined]
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest.partition(" # ")[0]))
        assert used <= known, f"{page}: cello1 {verb}{rest}"


@cache
def all_options() -> set[str]:
    group = typer.main.get_command(app)
    parameters = [p for verb in group.commands.values() for p in verb.params]  # type: ignore[attr-defined]
    found = {o for p in [*group.params, *parameters] for o in (*p.opts, *p.secondary_opts)}
    return found | {"--help", "--debug"}


@pytest.mark.parametrize("page", [*READMES[:2], *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_names_in_the_text_of_pages_exist(page: Path) -> None:
    """Every option, file and import path that a page names is there."""
    text = page.read_text("utf-8")
    for code in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
        if page.name != "interop.md" and not code.startswith("python "):  # of other programs
            options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code))
            assert options <= all_options(), f"{page}: {code}"
        if re.fullmatch(r"[a-z_]+(/[\w.-]+)*/[a-z][\w-]*\.(py|yaml|md|tsv)", code):
            folders = (ROOT, DOCS, ROOT / "src" / "cello1")
            assert any((folder / code).exists() for folder in folders), f"{page}: {code}"
    for name in set(re.findall(r"\bcello1(?:\.[A-Za-z_]\w*)+", text)):
        module, _, last = name.rpartition(".")
        if not is_module(name):
            assert hasattr(import_module(module), last), f"{page}: {name}"


def is_module(name: str) -> bool:
    """Return whether a name is that of a module, without loading it: some need other tools."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_api_names_all_that_is_public() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    rooms = {name: getattr(cello1, name) for name in ("tl", "pl", "get")}
    public = {f"cello1.{name}" for name in cello1.__all__ if name not in rooms}
    public |= {f"cello1.{room}.{name}" for room, module in rooms.items() for name in module.__all__}
    assert public - set(re.findall(r"^   (cello1\S+)$", text, re.MULTILINE)) == set()


def test_quickstart_shows_true_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are what these solvers score on the puzzles of the demo."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    answers = pytest.importorskip("cello1_docs").solved_by()
    text = (DOCS / "quickstart.md").read_text("utf-8")
    for name, solved in answers.items():
        found = cello1.evaluate([s.puzzle for s in solved], {s.puzzle.id: s.text for s in solved})
        levels = (found.overall.cell_accuracy, found.overall.batch_accuracy)
        cells, batches = (f"{i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in levels)
        unique = f"{found.overall.uniqueness.estimate:.3f}"
        row = " +".join(map(re.escape, (name, cells, batches, unique)))
        assert re.search(f"^{row}$", text, re.MULTILINE), f"{name}: {cells}, {batches}, {unique}"


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` does: the notebooks run, and each warning is an error."""
    for needed in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "ipykernel"):
        pytest.importorskip(needed)
    command = [sys.executable, "-m", "sphinx", "-E", "-q", "-W", "--keep-going", "-n", "-b", "html"]
    built = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True, check=False, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    gallery = (tmp_path / "html" / "gallery.html").read_text("utf-8")
    assert gallery.count('<table class="docutils puzzle">') == 5
    assert "given twice" in gallery
    for name in ("annotate", "benchmark"):
        page = (tmp_path / "html" / "notebooks" / f"{name}.html").read_text("utf-8")
        assert page.count("cell_output") > 5
