"""Worker processes that run jobs in parallel and never outlive their parent.

It imports little: a worker imports this module first, and from then on ends with its parent.
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
from multiprocessing import current_process, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

from cello1.errors import UseError

# A job without progress for this long is given up: libraries can hang on damaged files.
STALLED_SECONDS = 300.0
_SECONDS_BETWEEN_WORDS = 0.1


@contextmanager
def ending_when_still(what: object) -> Iterator[Callable[[], None]]:
    """End this process, with a message and status 1, when a file makes no progress for too long.

    A library that loops in a damaged file holds the interpreter lock, so that neither Python code
    nor Ctrl-C is handled. The timer is a thread that does not need the lock, and a waiting shell
    prints the message. Only for commands: an interactive session must not be ended.

    Parameters
    ----------
    what
        The file, for the message.

    Yields
    ------
    callable
        To be called regularly while there is progress.
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
    """End a worker that reruns the script it was started from, instead of its job.

    A new process imports the main script; without `if __name__ == "__main__":` it calls `build`
    again. The parent reports the error.
    """
    if getattr(current_process(), "_inheriting", False):
        os._exit(1)


@dataclass
class _Worker:
    """A process, its current job (or None), and the time of its last message."""

    process: BaseProcess
    pipe: Connection
    started: bool = False
    job: Any = None
    moved: float = field(default_factory=time.monotonic)


class Pool:
    """Workers with one job at a time each; if one dies or stalls, only its job fails.

    A worker sends the share done as a number, and the result when it is done.

    Parameters
    ----------
    jobs
        The jobs; each is sent to a worker.
    workers
        Number of processes.
    work
        The function that does a job, as ``module:function``: called with the job and a function
        that takes the share done. Only the worker imports it.
    """

    def __init__(self, jobs: Sequence[Any], workers: int, work: str) -> None:
        self.context, self.waiting, self.work = get_context("spawn"), deque(jobs), work
        self.workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    def run(self, watch: Callable[[Any, float], None]) -> Iterator[tuple[Any, Any]]:
        """Yield each job with its result, or with the reason of its failure as text."""
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
        # Ctrl-C is handled by this process, which ends its workers; else each would print an error.
        # Python's tracker of resources starts with the first worker, and unblocks the signal.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the end of the worker closes the pipe
        return _Worker(process, ours)

    def _hear(
        self, worker: _Worker, watch: Callable[[Any, float], None]
    ) -> Iterator[tuple[Any, Any]]:
        """Receive a worker's message, and send it the next job when it is free."""
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
    """Run jobs until there are no more: the main loop of a worker process."""
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
    """Make this process end with its parent, even if that is killed by SIGKILL."""
    with suppress(OSError, AttributeError):  # Linux: works even while a library hangs
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    above = parent_process()
    if above is None or os.getppid() != parent:
        os._exit(1)

    def follow() -> None:
        above.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
