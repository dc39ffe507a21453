"""The command line: `cello1 VERB`. Thin: it reads options, calls one function, shows its result.

Exit status: 0 done, 1 the data or the world failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cello1.cli.annotate import annotate
from cello1.cli.atlas import atlas
from cello1.cli.audit import audit
from cello1.cli.base import base
from cello1.cli.behaviour import behaviour
from cello1.cli.build import build
from cello1.cli.cross import cross
from cello1.cli.demo import demo
from cello1.cli.distill import distill
from cello1.cli.doctor import doctor
from cello1.cli.eval import evaluate
from cello1.cli.merge import merge
from cello1.cli.options import command, complain, example
from cello1.cli.play import play
from cello1.cli.rate import rate
from cello1.cli.report import report
from cello1.cli.rl import rl
from cello1.cli.sft import sft
from cello1.cli.simulate import simulate
from cello1.cli.solve import solve
from cello1.errors import InputError, UseError

# Every verb with an example that works as typed, in the order of the help.
VERBS: tuple[tuple[Callable[..., None], str], ...] = (
    (demo, "cello1 demo my_cells.h5ad --out demo"),
    (doctor, "cello1 doctor my_cells.h5ad"),
    (build, "cello1 build lung.h5ad blood.h5ad --out puzzles --split donor"),
    (audit, "cello1 audit puzzles"),
    (solve, "cello1 solve puzzles --solver centroids --out runs/centroids"),
    (evaluate, "cello1 eval runs/centroids runs/markers"),
    (report, "cello1 report runs/centroids runs/markers -o report.html"),
    (play, "cello1 play puzzles --out runs/me --beside runs/centroids"),
    (annotate, "cello1 annotate cells.h5ad -o labelled.h5ad --groupby leiden"),
    (atlas, 'cello1 atlas show "plasma cell"'),
    (behaviour, "cello1 behaviour runs/sft runs/rl"),
    (rate, "cello1 rate runs/sft runs/rl --out rating"),
    (simulate, "cello1 simulate lung.parquet --out simulated"),
    (cross, "cello1 cross puzzles/train.parquet --out practice.parquet"),
    (base, "cello1 base recipes/mini-cpu.yaml --out runs/base"),
    (distill, "cello1 distill puzzles --teacher centroids --out traces"),
    (sft, "cello1 sft recipes/cell-o1-7b.yaml traces=t.parquet --out runs/sft"),
    (rl, "cello1 rl recipes/mini-cpu.yaml model=runs/mini --out runs/rl"),
    (merge, "cello1 merge runs/sft --out models/tuned"),
)


def _version(wanted: bool) -> None:
    if wanted:
        from cello1 import __version__

        typer.echo(f"cello1 {__version__}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Cell type annotation as a puzzle that is solved for the whole batch at once."""


def make_app() -> typer.Typer:
    """Make the command line of the verbs and of the settings as they are now."""
    made = typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )
    made.callback()(_start)
    for verb, line in VERBS:
        made.command(line.split()[1], epilog=example(line))(command(verb))
    return made


app = make_app()


def main() -> None:
    """Run the command line; every error a user can cause ends in one line."""
    try:
        app()
    except UseError as error:
        complain(str(error))
        sys.exit(2)
    except InputError as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted; rerun the same command to resume")
        sys.exit(130)
