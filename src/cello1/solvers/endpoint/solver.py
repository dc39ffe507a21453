"""Language models behind an OpenAI-compatible server: OpenAI, vLLM, `transformers serve`, ...

Thousands of puzzles, a few concurrent requests. Temporary errors are retried with growing delays; a
call that fails for good is a failure, which is asked again by the next run and never counts as a
prediction. The API key is read from the environment and removed from everything that is written.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cello1.puzzles.prompt import PROMPT_VERSION
from cello1.recipes import EndpointSettings
from cello1.recipes.read import resolve
from cello1.recipes.section import takes
from cello1.solvers.base import OnDone, Response
from cello1.solvers.endpoint.cache import Cache
from cello1.solvers.endpoint.call import Connection
from cello1.solvers.endpoint.client import Address
from cello1.solvers.endpoint.limits import Budget, Pace
from cello1.solvers.endpoint.request import Asked, Learned, RequestForm, chat, prompt_tokens


class EndpointSolver:
    """Answers by asking a server.

    Parameters
    ----------
    model
        The name of the model on the server.
    settings, **changes
        How it is asked: :class:`cello1.recipes.EndpointSettings`, or its fields by keyword. By
        default the address is OPENAI_BASE_URL of the environment, else OpenAI. `max_cost` is based
        on the tokens that answers report; charges for answers that never arrived are unknown.
    sample
        Index of one of several answers to the same prompt; each has a seed of its own.
    learned
        What is known about the server, shared by the samples of a vote.

    Attributes
    ----------
    cached
        Number of puzzles answered from the cache.
    refused
        Parts of the request that the server does not accept; see
        :class:`cello1.solvers.endpoint.request.Learned`.
    told
        The same in words, with the options to set.
    stopped
        Why puzzles were left unanswered, or None.

    Raises
    ------
    UseError
        When a setting is not valid.
    """

    @takes(EndpointSettings)
    def __init__(
        self,
        model: str,
        settings: EndpointSettings | None = None,
        *,
        sample: int = 0,
        learned: Learned | None = None,
        **changes: Any,
    ) -> None:
        asked = resolve(EndpointSettings, settings, changes)
        temperature = asked.sampling_temperature
        self.in_flight, self.per_minute = asked.in_flight, asked.per_minute
        self.retries, self.timeout = asked.retries, asked.timeout
        self.name = f"openai:{model}"
        self._address = Address(asked.base_url)
        learned = Learned() if learned is None else learned
        self._form = RequestForm(
            model, asked.max_new_tokens, temperature, asked.seed, sample, learned
        )
        self.settings: dict[str, Any] = {
            "solver": self.name,
            "base_url": self._address.plain,
            "temperature": temperature,
            "max_new_tokens": asked.max_new_tokens,
            "seed": asked.seed,
            "sample": sample,
            "prompt": PROMPT_VERSION,
        }
        self.cached = 0
        self.stopped: str | None = None
        self._budget = Budget(asked.price_in, asked.price_out, asked.max_cost)
        self._cache = None if asked.cache is None else Cache(asked.cache)

    @property
    def spent(self) -> float:
        """USD spent so far; 0 without prices."""
        return self._budget.spent

    @property
    def refused(self) -> set[str]:
        """What the server does not accept."""
        return self._form.learned.refused

    @property
    def told(self) -> list[str]:
        """Where requests differ from the settings, because the server does not accept those."""
        return self._form.learned.told()

    def estimate(self, puzzles: Sequence[Asked]) -> dict[str, Any]:
        """Return what asking would take; nothing is sent.

        Returns
        -------
        dict
            ``prompts`` to be sent, ``cached`` ones that cost nothing, ``prompt_tokens``
            (estimated as characters / 4; gene symbols can take up to twice that),
            ``max_completion_tokens``, and ``max_cost`` of both in USD (None without prices).
        """
        asked = [puzzle for puzzle in puzzles if not self._known(puzzle)]
        prompt = sum(map(prompt_tokens, asked))
        completion = len(asked) * self._form.max_new_tokens
        return {
            "prompts": len(asked),
            "cached": len(puzzles) - len(asked),
            "prompt_tokens": prompt,
            "max_completion_tokens": completion,
            "max_cost": self._budget.cost(prompt, completion) if self._budget.priced else None,
        }

    def dry_run(self, puzzles: Sequence[Asked]) -> Iterator[list[dict[str, str]]]:
        """Yield the messages that would be sent, puzzle by puzzle; nothing is sent."""
        return (chat(puzzle) for puzzle in puzzles if not self._known(puzzle))

    def solve(self, puzzles: Sequence[Asked], on_done: OnDone) -> None:
        """Answer from the cache, then ask for the rest.

        Raises
        ------
        InputError
            When the server does not accept the key, or the account is empty.
        """
        self.stopped = None
        owed = []
        for puzzle in puzzles:
            known = self._cache.get(self._key(puzzle)) if self._cache else None
            if known is None:
                owed.append(puzzle)
            else:
                self.cached += 1
                on_done(puzzle.id, known)
        if owed:
            try:
                with self._address.clean_logs():
                    _run(self._ask_for_all(owed, on_done))
            finally:
                if self._cache:
                    self._cache.close()

    async def _ask_for_all(self, owed: Sequence[Asked], on_done: OnDone) -> None:
        async with self._address.client(self.timeout) as client:
            pace = Pace(self.per_minute)
            connection = Connection(
                client, self._address, self._form, pace, self._budget, self.retries, self.timeout
            )
            queue = iter(owed)
            try:
                # As many tasks as calls in flight, all drawing from one queue.
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.in_flight, len(owed))):
                        group.create_task(self._draw(queue, connection, on_done))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            self.stopped = connection.closed

    async def _draw(self, queue: Iterator[Asked], connection: Connection, on_done: OnDone) -> None:
        for puzzle in queue:
            # Twice the estimate of the prompt, which can be too low by half.
            most = self._budget.cost(2 * prompt_tokens(puzzle), self._form.max_new_tokens)
            if connection.closed or not await self._budget.reserve(most):
                connection.closed = connection.closed or (
                    f"{self.spent:.4f} USD of {self._budget.limit} are spent and the next answer "
                    f"may cost {most:.4f}"
                )
                return
            try:
                result = await connection.ask(puzzle)
            finally:
                self._budget.give_back(most)
            on_done(puzzle.id, result)
            if self._cache and isinstance(result, Response):
                self._cache.put(self._key(puzzle), result)

    def _known(self, puzzle: Asked) -> bool:
        return self._cache is not None and self._key(puzzle) in self._cache

    def _key(self, puzzle: Asked) -> str:
        """Hash everything an answer depends on."""
        settings = {k: v for k, v in self.settings.items() if k != "prompt"}
        content = json.dumps([settings, chat(puzzle)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    # A notebook runs an event loop of its own; ours runs beside it.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
