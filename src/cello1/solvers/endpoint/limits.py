"""Limits on the rate of requests, on retries, and on cost."""

from __future__ import annotations

import asyncio
import random
import time

from tenacity import RetryCallState
from tenacity.wait import wait_random_exponential

from cello1.solvers.endpoint.reply import TryAgainError

_BACK_OFF = wait_random_exponential(multiplier=0.5, max=60)


class Pace:
    """Spaces the starts of requests evenly, and pauses when the server asks for it.

    Parameters
    ----------
    per_minute
        Maximum number of requests started per minute; None for no limit.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when the next request may start."""
        async with self._turn:
            # A pause may be set while we sleep: check again.
            while (left := self._next - time.monotonic()) > 0:
                await asyncio.sleep(left)
            self._next = time.monotonic() + self._interval

    def pause(self, seconds: float) -> None:
        """Start no request for some seconds: a limit on one request holds for all."""
        self._next = max(self._next, time.monotonic() + seconds)


def wait_before_retry(state: RetryCallState) -> float:
    """Return how long to wait: as the server asks and a little more, else random and growing."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TryAgainError) and error.wait is not None:
        return error.wait * (1 + random.random() / 4)
    return _BACK_OFF(state)


class Budget:
    """Money in USD: spent, reserved for running calls, and the limit.

    Parameters
    ----------
    price_in, price_out
        Per million tokens of prompt and completion; unknown prices count as 0.
    limit
        Maximum to spend; None for no limit.
    """

    def __init__(
        self, price_in: float | None, price_out: float | None, limit: float | None
    ) -> None:
        self.priced = price_in is not None and price_out is not None
        self._price_in, self._price_out = price_in or 0.0, price_out or 0.0
        self.limit, self.spent = limit, 0.0
        self._reserved: list[float] = []
        self._waiting: list[asyncio.Future[None]] = []

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of some tokens."""
        paid = prompt_tokens * self._price_in + completion_tokens * self._price_out
        return paid / 1_000_000

    async def reserve(self, amount: float) -> bool:
        """Reserve money for one call; return False if not enough is left.

        Calls seldom cost as much as was reserved, so running ones are awaited first.
        """
        while self.limit is not None and self.spent + sum(self._reserved) + amount > self.limit:
            if not self._reserved:
                return False
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        self._reserved.append(amount)
        return True

    def covers(self) -> bool:
        """Return whether the budget still covers the running calls."""
        return self.limit is None or self.spent + sum(self._reserved) <= self.limit * (1 + 1e-9)

    def give_back(self, amount: float) -> None:
        """End a call, whose real cost has been added to `spent`."""
        self._reserved.remove(amount)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
