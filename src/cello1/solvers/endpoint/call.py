"""Calls to the server: each puzzle ends in a response or a failure with a short reason."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import openai
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from cello1.errors import InputError
from cello1.solvers.base import Failure, Response
from cello1.solvers.endpoint.client import Address
from cello1.solvers.endpoint.limits import Budget, Pace, wait_before_retry
from cello1.solvers.endpoint.reply import (
    CallFailedError,
    Complaint,
    Completion,
    RefusedError,
    TryAgainError,
    classified,
    complaint,
    read_completion,
    unreachable,
)
from cello1.solvers.endpoint.request import Asked, RequestForm, prompt_tokens

_LONGEST_PAUSE = 600.0
_REASON_CHARACTERS = 200


@dataclass
class Connection:
    """An open connection to a server.

    Attributes
    ----------
    client, address
        The server.
    form
        The form of requests.
    pace, budget
        Limits on their rate and their cost.
    retries, timeout
        As in :class:`cello1.solvers.endpoint.solver.EndpointSolver`.
    closed
        Why no more requests should be made, or None.
    """

    client: openai.AsyncOpenAI
    address: Address
    form: RequestForm
    pace: Pace
    budget: Budget
    retries: int
    timeout: float
    closed: str | None = None

    async def ask(self, puzzle: Asked) -> Response | Failure:
        """Ask about one puzzle, with retries.

        Raises
        ------
        InputError
            When no request can succeed.
        """
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=wait_before_retry,
            retry=retry_if_exception_type(TryAgainError),
            reraise=True,
        )
        try:
            response: Response = await attempts(self._call, puzzle)
        except CallFailedError as error:
            tried = attempts.statistics["attempt_number"]
            return Failure(self._reason(error) + (f" (tried {tried} times)" if tried > 1 else ""))
        return replace(response, text=self.address.clean(response.text))

    async def _call(self, puzzle: Asked) -> Response:
        while True:
            if not self.budget.covers():
                # Failed attempts may have been charged.
                raise CallFailedError("the budget does not cover another attempt")
            request = self.form.request(puzzle)
            await self.pace.wait()
            start = time.perf_counter()
            try:
                # The limit of the HTTP library restarts with every byte received.
                async with asyncio.timeout(self.timeout):
                    reply = await self.client.chat.completions.with_raw_response.create(**request)
                completion = read_completion(reply.headers.get("content-type", ""), reply.content)
            except openai.APIStatusError as error:
                said = complaint(error)
            except RefusedError as error:
                said = error.complaint
            except InputError:
                raise
            except (openai.APIError, OSError, ValueError, ExceptionGroup) as error:
                raise unreachable(error) from None
            else:
                self._pay(puzzle, completion)
                return completion.response(time.perf_counter() - start)
            # What is learned applies to all requests: this does not count as an attempt.
            if not self.form.learn(said, request):
                raise self._error_for(said)

    def _error_for(self, said: Complaint) -> Exception:
        verdict = classified(said)
        if isinstance(verdict, InputError):
            return InputError(self._reason(verdict))
        if isinstance(verdict, TryAgainError) and verdict.wait is not None:
            if verdict.wait > _LONGEST_PAUSE:
                self.closed = f"the server asks to wait {verdict.wait:.0f} s; resume later"
                return CallFailedError(f"{verdict}; {self.closed}")
            self.pace.pause(verdict.wait)
        return verdict

    def _pay(self, puzzle: Asked, completion: Completion) -> None:
        asked, written = completion.prompt_tokens, completion.completion_tokens
        # Servers that do not count tokens are assumed to have written the maximum.
        self.budget.spent += self.budget.cost(
            prompt_tokens(puzzle) if asked is None else asked,
            self.form.max_new_tokens if written is None else written,
        )

    def _reason(self, error: Exception) -> str:
        # Cleaned first: truncation could leave half of a secret.
        text = " ".join(self.address.clean(str(error)).split())
        cut = len(text) > _REASON_CHARACTERS
        text = text[: _REASON_CHARACTERS - 3] + "..." if cut else text
        advice = getattr(error, "advice", "")
        return f"{text}; {advice}" if advice else text
