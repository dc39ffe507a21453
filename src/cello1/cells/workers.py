"""Processes that do jobs side by side and end with the one that started them, however it ends.

Light on purpose: a worker imports this first, and from then on it cannot outlive its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

from cello1.errors import UseError

# A job of which nothing is heard for so long is given up: libraries can hang on damaged files.
STALLED_SECONDS = 300.0
_SECONDS_BETWEEN_WORDS = 0.1


@contextmanager
def ending_when_still(what: object) -> Iterator[Callable[[], None]]:
    """End this process, with one line and status 1, when nothing is heard of a file for so long.

    A library that loops in a damaged file holds the interpreter, so that neither Python nor Ctrl-C
    would ever get a turn. The time is kept by a thread that needs no interpreter, and the line is
    said by a shell that waits for it. For commands alone: a session of somebody's must not end.

    Parameters
    ----------
    what
        The file, for the message.

    Yields
    ------
    callable
        To be called now and then, as long as there is progress.
    """
    if os.name == "nt" or (shell := shutil.which("sh")) is None:
        yield lambda: None
        return
    name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(what))
    line = (
        f"error: {name}: nothing came of it for {STALLED_SECONDS:.0f} seconds, so it was given up; "
        "the file is damaged or its disk does not answer: copy it again"
    )
    say = [shell, "-c", 'read -r _ && printf "%s\\n" "$1" >&2', "sh", line]
    teller = subprocess.Popen(say, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert teller.stdin is not None
    pipe, last = teller.stdin, 0.0

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > min(1.0, STALLED_SECONDS / 10):
            last = time.monotonic()
            faulthandler.dump_traceback_later(STALLED_SECONDS, exit=True, file=pipe)

    try:
        beat()
        yield beat
    finally:
        faulthandler.cancel_dump_traceback_later()
        pipe.close()
        teller.wait()


def leave_unguarded_script() -> None:
    """End a worker that runs the script it was started from once more, instead of its job.

    A new process imports the main script; without `if __name__ == "__main__":` it comes by the
    call of `build` again. The one who started it says what is wrong.
    """
    if getattr(current_process(), "_inheriting", False):
        os._exit(1)


@dataclass
class _Worker:
    """A process, the job it has (or None), and when it last showed a sign of life."""

    process: BaseProcess
    pipe: Connection
    started: bool = False
    job: Any = None
    moved: float = field(default_factory=time.monotonic)


class Pool:
    """Workers that do one job at a time each; one that dies or stands still costs its job only.

    They say a number for the share done, and what they made when they are done.

    Parameters
    ----------
    jobs
        What is to be done; each is sent to a worker.
    workers
        How many processes.
    work
        Who does it, as ``module:function``: called with a job and a function that takes the share
        done. It is imported by the worker only.
    """

    def __init__(self, jobs: Sequence[Any], workers: int, work: str) -> None:
        self.context, self.waiting, self.work = get_context("spawn"), deque(jobs), work
        self.workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> Self:
        """Give the pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    def run(self, watch: Callable[[Any, float], None]) -> Iterator[tuple[Any, Any]]:
        """Yield each job with what was made of it, or, as text, why nothing was."""
        while self.waiting or any(worker.job for worker in self.workers):
            ready = wait([worker.pipe for worker in self.workers], timeout=0.2)
            for worker in list(self.workers):
                if worker.pipe in ready:
                    yield from self._hear(worker, watch)
                elif worker.job and time.monotonic() - worker.moved > STALLED_SECONDS:
                    yield from self._give_up(
                        worker,
                        f"nothing came of it for {STALLED_SECONDS:.0f} seconds, so it was given "
                        "up; the file is damaged or its disk does not answer: copy it again",
                    )

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, os.getpid(), self.work), daemon=True
        )
        # Ctrl-C is for this process, which ends its workers: they would all speak at once.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that its end is heard of
        return _Worker(process, ours)

    def _hear(
        self, worker: _Worker, watch: Callable[[Any, float], None]
    ) -> Iterator[tuple[Any, Any]]:
        """Take what a worker has to say, and give it more to do when it is free."""
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            if not worker.started:
                raise UseError(
                    f"a worker process could not start (status {worker.process.exitcode}): in a "
                    'script, put the call under `if __name__ == "__main__":`, or use workers=1'
                ) from None
            yield from self._give_up(
                worker, "a worker process died (out of memory?); use fewer --workers, run again"
            )
            return
        worker.started, worker.moved = True, time.monotonic()
        if isinstance(said, float) and worker.job:
            watch(worker.job, said)
            return
        if worker.job:
            watch(worker.job, 1.0)
            yield worker.job, said
        worker.job = self.waiting.popleft() if self.waiting else None
        if worker.job:
            worker.pipe.send(worker.job)

    def _give_up(self, worker: _Worker, why: str) -> Iterator[tuple[Any, str]]:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        if worker.job:
            yield worker.job, why
        if self.waiting:
            self.workers.append(self._start())


def _serve(pipe: Connection, parent: int, work: str) -> None:
    """Do jobs until there are no more; the life of a worker process."""
    _die_with(parent)
    module, _, name = work.partition(":")
    do = getattr(import_module(module), name)
    pipe.send(None)
    said = time.monotonic()

    def watch(share: float) -> None:
        nonlocal said
        if time.monotonic() - said > _SECONDS_BETWEEN_WORDS:
            said = time.monotonic()
            pipe.send(float(share))

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(do(job, watch))


def _die_with(parent: int) -> None:
    """See to it that this process ends when its parent does, even by SIGKILL."""
    with suppress(OSError, AttributeError):  # Linux: works also within a library that hangs
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    above = parent_process()
    if above is None or os.getppid() != parent:
        os._exit(1)

    def follow() -> None:
        above.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
