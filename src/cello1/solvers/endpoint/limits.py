"""How fast a server may be asked, how soon again, and for how much money."""

from __future__ import annotations

import asyncio
import random
import time

from tenacity import RetryCallState
from tenacity.wait import wait_random_exponential

from cello1.solvers.endpoint.reply import TryAgainError

_BACK_OFF = wait_random_exponential(multiplier=0.5, max=60)


class Pace:
    """Lets requests start one by one, evenly spaced, and none while the server wants a pause.

    Parameters
    ----------
    per_minute
        Requests started per minute; None for as many as there are.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when the next request may start."""
        async with self._turn:
            # A pause may be asked for while we sleep: look again.
            while (left := self._next - time.monotonic()) > 0:
                await asyncio.sleep(left)
            self._next = time.monotonic() + self._interval

    def pause(self, seconds: float) -> None:
        """Start nothing for so long: a limit that one request met holds for all of them."""
        self._next = max(self._next, time.monotonic() + seconds)


def wait_before_retry(state: RetryCallState) -> float:
    """Wait as long as the server asks and a little more, else at random, longer every time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, TryAgainError) and error.wait is not None:
        return error.wait * (1 + random.random() / 4)
    return _BACK_OFF(state)


class Budget:
    """Money (USD): what is spent, what the running calls may still take, and where to stop.

    Parameters
    ----------
    price_in, price_out
        Per million tokens of prompt and completion; what is not known costs nothing.
    limit
        What may be spent; None for no limit.
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
        """Return what so many tokens cost."""
        paid = prompt_tokens * self._price_in + completion_tokens * self._price_out
        return paid / 1_000_000

    async def reserve(self, amount: float) -> bool:
        """Set money aside for one call; False when there is not enough left.

        Calls seldom cost what was set aside for them, so running ones are waited for first.
        """
        while self.limit is not None and self.spent + sum(self._reserved) + amount > self.limit:
            if not self._reserved:
                return False
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        self._reserved.append(amount)
        return True

    def covers(self) -> bool:
        """Return whether what is set aside for the running calls is still there."""
        return self.limit is None or self.spent + sum(self._reserved) <= self.limit * (1 + 1e-9)

    def give_back(self, amount: float) -> None:
        """End a call: what it really cost is in `spent` by now."""
        self._reserved.remove(amount)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
