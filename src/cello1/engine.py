"""Run work item by item on a Ray cluster, with the same results as on one machine.

Ray does the scheduling and repeats the tasks of a lost worker; the caller stores finished items, so
that a killed driver can be resumed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from cello1.errors import InputError, first_line

T = TypeVar("T")
Engine = Literal["local", "ray"]
_STARTS = 3
Row = dict[str, Any]


@contextmanager
def connected(address: str | None = None) -> Iterator[int]:
    """Connect to a cluster, or start one on this machine; yields its number of CPUs.

    Parameters
    ----------
    address
        Address of a cluster (``auto`` finds the one of this machine), or None for this machine.

    Raises
    ------
    InputError
        When Ray is not installed, or there is no cluster at the address.
    """
    if find_spec("ray") is None:
        raise InputError("the engine ray needs Ray: pip install 'cello1[ray]'")
    _refuse_unreachable(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    ours = not ray.is_initialized()
    # Output of workers is silenced; errors and notes are returned with their results.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if ours and address is None:
        _start_here(quiet)
    elif ours:
        try:
            ray.init(address=address, **quiet)
        except Exception as error:  # of many kinds
            raise _no_cluster(address, first_line(error)) from error
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        context.enable_progress_bars = before
        if ours:
            ray.shutdown()


def _start_here(quiet: dict[str, Any]) -> None:
    """Start a cluster on this machine; Ray's limit of 30 seconds is too short on a busy one."""
    import ray

    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                num_cpus=os.cpu_count() or 1,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
            return
        except Exception as error:  # of many kinds
            ray.shutdown()
            if not left:
                raise InputError(
                    f"Ray cannot be started on this machine ({first_line(error)}); is it very "
                    "busy? Run it again, or use the engine local"
                ) from error


def _refuse_unreachable(address: str | None) -> None:
    """Check the address first, since Ray would retry for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str | None, reason: str) -> InputError:
    return InputError(
        f"no Ray cluster at {address} ({reason}); start one with "
        "`ray start --head`, or leave --address out"
    )


def each_task(
    work: Callable[[T], Row], items: Sequence[T], address: str | None = None
) -> Iterator[tuple[int, Row]]:
    """Run a function on every item, each as a task; yield (position, result) as they finish.

    Parameters
    ----------
    work
        A function of one item; every machine must be able to reach the files it reads and writes.
    items
        The items.
    address
        As for :func:`connected`.
    """
    if not items:
        return
    with connected(address):
        import ray

        def one(row: Row) -> Row:
            return {"position": row["item"], **work(items[row["item"]])}

        data = ray.data.from_items(list(range(len(items))), override_num_blocks=len(items))
        for row in data.map(one, num_cpus=1).iter_rows():
            yield int(row.pop("position")), row


def each_batch(
    make: Callable[[], Callable[[list[T]], list[Any]]],
    items: Sequence[T],
    size: int,
    address: str | None = None,
    *,
    gpus: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Run a function on batches of items in long-lived actors; yield (position, result).

    Parameters
    ----------
    make
        Makes the function, once in every actor: it may load a model.
    items
        Divided into batches in their order.
    size
        Number of items in a batch.
    address
        As for :func:`connected`.
    gpus
        Give each actor a GPU besides its CPU, if the cluster has any.

    Raises
    ------
    InputError
        When `make` raises it in an actor.
    """
    batches = [range(start, min(start + size, len(items))) for start in range(0, len(items), size)]
    if not batches:
        return
    with connected(address) as cpus:
        import ray

        class Actor:
            def __init__(self) -> None:
                self.work: Callable[[list[T]], list[Any]] | None = None
                self.error = ""
                try:
                    self.work = make()
                except InputError as error:
                    self.error = str(error)

            def __call__(self, row: Row) -> Row:
                if self.work is None:
                    return {"item": row["item"], "results": [], "error": self.error}
                asked = [items[i] for i in batches[row["item"]]]
                return {"item": row["item"], "results": self.work(asked), "error": ""}

        cards = int(ray.cluster_resources().get("GPU", 0)) if gpus else 0
        # One CPU stays free for reading; an actor occupies its own until the end.
        most = min(len(batches), cards or cpus - 1)
        actors = ray.data.ActorPoolStrategy(size=max(1, most))
        data = ray.data.from_items(list(range(len(batches))), override_num_blocks=len(batches))
        held = {"num_cpus": 1, "num_gpus": 1 if cards else None}
        for row in data.map(Actor, compute=actors, **held).iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            yield from zip(batches[row["item"]], row["results"], strict=True)
