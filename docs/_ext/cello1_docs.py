"""Directives of this documentation: the verbs and their options, and puzzles that were solved.

`verb` lets Typer write the help of a command as Markdown, `verbs` lists all, `settings` makes a
table of a section of recipes. `solved-puzzle` does what the demo does and shows one of the answers,
so that nothing on the page is made up.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from html import escape
from io import StringIO
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective
from typer.cli import get_docs_for_click

import cello1
from cello1 import Puzzle, Score, read_puzzles, score

_GENES = 10


class VerbDirective(SphinxDirective):
    """Usage, arguments and options of ``cello1 VERB``, as the command line itself knows them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the help of the verb into the page."""
        from cello1.cli import app

        group: Any = typer.main.get_command(app)
        name = self.arguments[0]
        if name not in group.commands:
            raise self.error(f"cello1 has no verb {name!r}")
        text = get_docs_for_click(
            obj=group.commands[name],
            ctx=typer.Context(group, info_name="cello1"),
            name=name,
            call_prefix="cello1",
        )
        # The page has a title and an introduction of its own.
        _, usage, rest = text.partition("**Usage**")
        return self.parse_text_to_nodes(usage + rest)


class SettingsDirective(SphinxDirective):
    """The settings of a section of :mod:`cello1.recipes` as a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the table."""
        from cello1 import recipes

        section = getattr(recipes, self.arguments[0], None)
        if section is None:
            raise self.error(f"cello1.recipes has no section {self.arguments[0]!r}")
        return self.parse_text_to_nodes(settings_table(section))


def settings_table(section: type[BaseModel]) -> str:
    """Write the settings of a section as a Markdown table: name, values, default, what it does."""
    from cello1.cli.options import shown
    from cello1.recipes.section import default_of, fields_of

    rows = ["| setting | values | default | what it is |", "|---|---|---|---|"]
    for name, field in fields_of(section).items():
        default = default_of(field)
        told = "" if default in (None, (), {}) else f"`{shown(default)}`"
        values = re.sub(r"\|", r"\\|", f"{_values(field.annotation)}{_bounds(field)}")
        rows.append(f"| `{name}` | {values} | {told} | {escape(field.description or '')} |")
    return "\n".join(rows)


def _values(kind: Any) -> str:
    """Write the values of a type in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _values(inside[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, UnionType):
        return " or ".join(_values(k) for k in inside if k is not NoneType)
    if origin is tuple:
        several = f"any number of {_values(inside[0])}"
        return several if Ellipsis in inside else f"{len(inside)} x {_values(inside[0])}"
    if origin is dict:
        return "names with values"
    names = {int: "whole number", float: "number", str: "text", bool: "true, false", Path: "path"}
    return names.get(kind, f"settings ({getattr(kind, '__name__', kind)})")


def _bounds(field: Any) -> str:
    """Write the bounds of a number."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {bound:g}"
        for name, sign in signs.items()
        for mark in field.metadata
        if (bound := getattr(mark, name, None)) is not None
    ]
    return f" {escape(', '.join(found))}" if found else ""


class VerbsDirective(SphinxDirective):
    """All verbs of the command line, each with what it does and a link to its page."""

    def run(self) -> list[nodes.Node]:
        """Write the list."""
        from cello1.cli import app

        group: Any = typer.main.get_command(app)
        lines = [f"- [{name}]({name}.md): {c.help}" for name, c in sorted(group.commands.items())]
        return self.parse_text_to_nodes("\n".join(lines))


@dataclass(frozen=True)
class Solved:
    """One answer of one solver."""

    solver: str
    puzzle: Puzzle
    text: str
    score: Score


@cache
def solved_by() -> Mapping[str, list[Solved]]:
    """Do what the demo does, with its classical solvers; solver -> its answers, in order."""
    from cello1.cells.build import build
    from cello1.demo import DATASET, built_in, choose_settings
    from cello1.recipes import SolveSettings
    from cello1.solvers.choose import choose_solver
    from cello1.solvers.run import read_solved, solve

    found = {}
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        folder = Path(name)
        file = built_in(folder / f"{DATASET}.h5ad")
        build([file], folder, choose_settings(file, "donor_id", "cell_type", 0))
        train, test = folder / "train.parquet", folder / "test.parquet"
        for solver, alone in (("centroids", False), ("centroids", True), ("markers", False)):
            settings = SolveSettings(solver=solver, alone=alone)
            chosen = choose_solver(settings, read_puzzles(train), [])
            run = solve(test, chosen, folder / chosen.name)
            puzzles, records = read_solved(run)
            texts = {i: str(record["text"]) for i, record in records.items()}
            found[chosen.name] = [
                Solved(chosen.name, p, texts[p.id], score(p, texts[p.id])) for p in puzzles
            ]
    return found


def choose(what: str) -> Solved:
    """Choose the answer that a section of the gallery is about; the first that fits."""
    runs = solved_by()
    joint = runs["centroids (jointly)"]
    right = next(s for s in joint if s.score.exact)
    match what:
        case "right":
            return right
        case "alone":
            return next(s for s in runs["centroids (alone)"] if s.puzzle.id == right.puzzle.id)
        case "markers":
            return next(s for s in runs["markers (jointly)"] if s.puzzle.id == right.puzzle.id)
        case "swapped":
            return next(s for s in joint if s.score.right.count(False) == 2)
        case "worst":
            return min(joint, key=lambda s: s.score.cell_accuracy)
    raise ValueError(f"no such answer: {what}")


class SolvedPuzzleDirective(SphinxDirective):
    """A puzzle with the right answer, what a solver answered, and why it says it did."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write a table of the cells and the reasoning."""
        try:
            found = choose(self.arguments[0])
        except (ValueError, StopIteration) as error:
            raise self.error(f"no answer to show for {self.arguments[0]!r}: {error}") from error
        return [nodes.raw("", render(found), format="html")]


def render(found: Solved) -> str:
    """Write a solved puzzle as HTML; all text is escaped."""
    from cello1.puzzles.answer import Answer, parse_response

    puzzle, response = found.puzzle, parse_response(found.text)
    assert isinstance(response, Answer)
    assert puzzle.answer is not None
    rows = []
    for i, (genes, gold, label, right) in enumerate(
        zip(puzzle.cells, puzzle.answer, response.labels, found.score.right, strict=True), start=1
    ):
        verdict = "right" if right else "wrong"
        if not right and label == gold:
            verdict = "given twice"
        shown = escape(", ".join(genes[:_GENES]))
        rows.append(
            f'<tr class="{"right" if right else "wrong"}"><td>{i}</td><td>{shown}, ...</td>'
            f"<td>{escape(gold)}</td><td>{escape(label)}</td><td>{verdict}</td></tr>"
        )
    n, hits = len(puzzle.cells), sum(found.score.right)
    whole = "the batch counts" if found.score.exact else "the batch does not count"
    said = escape(f"{hits} of {n} cells right; {whole}. {found.score.reason}")
    return (
        f"<p><em>Context:</em> {escape(puzzle.context)}<br><em>Result:</em> {said}</p>"
        '<div class="table-wrapper"><table class="docutils puzzle"><thead><tr><th>cell</th>'
        f"<th>its first {_GENES} genes</th><th>label in the data</th><th>answer</th><th></th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<details><summary>The whole response</summary><pre>{escape(found.text)}</pre></details>"
    )


def link_errors(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Find the errors that docstrings name without their module."""
    name = node["reftarget"]
    if node.get("refdomain") != "py" or name not in ("InputError", "UseError", "PuzzleError"):
        return None
    domain, target = env.domains.python_domain, f"cello1.errors.{name}"
    return domain.resolve_xref(env, node["refdoc"], app.builder, "exc", target, node, contnode)


def list_settings(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Add the fields of settings to their docstring, with their own descriptions."""
    if what == "class" and issubclass(found, BaseModel):
        fields = found.model_fields.items()
        lines += ["", *(f":param {field}: {info.description}" for field, info in fields), ""]


def collect_settings(app: Sphinx) -> None:
    """Show settings as ``**changes``, as the source does: the page of the section has the rest."""
    with mock(app.config.autodoc_mock_imports):
        public = [getattr(cello1, name) for name in cello1.__all__]
        rooms = [room for room in public if isinstance(room, ModuleType)]
        public += [getattr(room, name) for room in rooms for name in getattr(room, "__all__", ())]
        for found in public:
            if "__signature__" in getattr(found, "__dict__", {}):
                del found.__signature__


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("verb", VerbDirective)
    app.add_directive("verbs", VerbsDirective)
    app.add_directive("settings", SettingsDirective)
    app.add_directive("solved-puzzle", SolvedPuzzleDirective)
    app.connect("missing-reference", link_errors)
    app.connect("autodoc-process-docstring", list_settings)
    app.connect("builder-inited", collect_settings, priority=100)
    return {"version": "1", "parallel_read_safe": True}
