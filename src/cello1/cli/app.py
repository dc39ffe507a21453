"""The command line: `cello1 VERB`. Thin: it reads options, calls one function, shows its result.

Exit status: 0 done, 1 the data or the world failed, 2 wrong use, 130 interrupted, 143 stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
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
from cello1.cli.export import export
from cello1.cli.knowledge import knowledge
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

_ISSUES = "https://github.com/cello1/cello1/issues"
_INTERRUPTED = "interrupted; rerun the same command to resume"
# What may be missing, and the extra that brings it.
_ROOT = Path(__file__).resolve().parents[2]
_EXTRAS = {
    "api": ("openai", "httpx2", "tenacity"),
    "local": ("torch", "transformers"),
    "train": ("trl", "peft", "accelerate", "datasets"),
    "serve": ("vllm",),
    "cluster": ("ray", "verl"),
    "census": ("cellxgene_census", "tiledbsoma"),
    "gguf": ("gguf",),
    "leiden": ("igraph", "leidenalg"),
}
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
    (annotate, "cello1 annotate cells.h5ad -o labelled.h5ad"),
    (atlas, 'cello1 atlas show "plasma cell"'),
    (behaviour, "cello1 behaviour runs/sft runs/rl"),
    (rate, "cello1 rate runs/sft runs/rl --out rating"),
    (simulate, "cello1 simulate lung.parquet --out simulated"),
    (cross, "cello1 cross puzzles/train.parquet --out practice.parquet"),
    (base, "cello1 base recipes/mini-cpu.yaml --out runs/base"),
    (knowledge, "cello1 knowledge --out runs/knowledge"),
    (distill, "cello1 distill puzzles --teacher centroids --out traces"),
    (sft, "cello1 sft recipes/cell-o1-7b.yaml traces=t.parquet --out runs/sft"),
    (rl, "cello1 rl recipes/mini-cpu.yaml model=runs/mini --out runs/rl"),
    (merge, "cello1 merge runs/sft --out models/tuned"),
    (export, "cello1 export lm-eval puzzles --out task"),
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
    """Cell type annotation as a puzzle that is solved for the whole batch at once.

    `--debug`, anywhere, shows the traceback of an error.
    """


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
    """Run the command line; whatever happens ends in one line.

    `--debug`, anywhere on the line, adds the traceback.
    """
    debug = "--debug" in sys.argv[1:]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        with _stoppable():
            app()
    except SystemExit as stop:
        if stop.code == 130:  # Typer made this of Ctrl-C
            complain(_INTERRUPTED)
        raise
    except BaseException as error:
        if debug:
            traceback.print_exc()
        message, status = _last_words(error)
        complain(message)
        sys.exit(status)


class _Stopped(BaseException):
    """SIGTERM came; nothing that goes wrong on the way out may hide it."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM an exception, so that files are closed and half-written ones removed."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Stopped

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        # A signal that comes while a finaliser runs raises in there, where Python drops it: it is
        # sent again in a moment, since in here it would be dropped, too.
        if not isinstance(dropped.exc_value, KeyboardInterrupt | _Stopped):
            usual(dropped)
            return
        kind = signal.SIGINT
        if isinstance(dropped.exc_value, _Stopped):
            kind = signal.SIGTERM
            signal.signal(kind, stop)
        main_thread = threading.main_thread().ident
        again = threading.Timer(0.01, signal.pthread_kill, [main_thread, kind])
        again.daemon = True
        again.start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, usual = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = usual


def _last_words(error: BaseException) -> tuple[str, int]:
    """Return what to say about an error, and the exit status."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, UseError):
        return str(error), 2
    if isinstance(error, InputError):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, 130
    if isinstance(error, _Stopped):
        return "stopped; rerun the same command to resume", 143
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 1
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        extra = next((e for e, packages in _EXTRAS.items() if package in packages), None)
        if extra == "local" and any("/training/" in f.filename for f in _own_frames(error)):
            extra = "train"  # torch alone would not do
        if extra:
            return (
                f"this needs {package}, which is not installed; install it with: "
                f"pip install 'cello1[{extra}]'"
            ), 1
    place = _place(error)
    if isinstance(error, MemoryError):
        said = " ".join(str(error).split())
        return (
            f"not enough memory{f' ({said})' if said else ''} in {place}; free some, or give it "
            "less at once (fewer --workers, smaller files)"
        ), 1
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return f"{error}: it leads nowhere", 1
    if isinstance(error, RecursionError):
        return f"something it read is nested too deep (RecursionError in {place})", 1
    said = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__} in {place}{f': {said}' if said else ''}; this is a "
        f"fault of cello1: please report what the same command prints with --debug at {_ISSUES}"
    ), 1


def _place(error: BaseException) -> str:
    """Return the last place in our own code that an error came through."""
    own = _own_frames(error)
    if not own:
        return "cello1"
    return f"{Path(own[-1].filename).relative_to(_ROOT)}:{own[-1].lineno}"


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if frame.filename.startswith(f"{_ROOT}/")]
