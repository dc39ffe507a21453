"""Progress on standard error, if it is a terminal; silent otherwise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cello1.runs import Watch
from cello1.terminal.text import clean


@contextmanager
def telling() -> Iterator[None]:
    """Write the log of the package to standard error, such as what leaves this machine."""
    logger = logging.getLogger("cello1")
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def watching() -> Iterator[Watch]:
    """Yield a function of (task, fraction done) that shows one bar per task."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
    )
    with bar:
        tasks = {}

        def watch(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(clean(what), total=1.0)
            bar.update(tasks[what], completed=share)

        yield watch
