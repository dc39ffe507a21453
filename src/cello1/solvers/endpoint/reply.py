"""What a server sends back: a response, a reason to try again, or a reason to give up.

Nothing a server sends is taken on trust: bodies are bounded while they are read, JSON is
validated, and whatever is not a whole completion becomes an error with one short reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, NonNegativeInt, ValidationError

from cello1.errors import InputError
from cello1.puzzles.answer import TAGS
from cello1.solvers.base import Response

BODY_BYTES = 4 << 20
_BROKEN_OFF = ("error", "abort", "cancelled")
_TAG = re.compile("|".join(TAGS))


class CallFailedError(Exception):
    """A call that failed; the message is the reason, at full length and not yet cleaned."""


class TryAgainError(CallFailedError):
    """A call that may go well later.

    Attributes
    ----------
    wait
        Seconds the server asks to wait, if it says.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


async def bound_body(response: httpx2.Response) -> None:
    """Make reading a body stop beyond 4 MiB; a hook that runs before anything is read."""
    # We ask for plain bodies: a compressed one could grow a thousandfold after the count.
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise CallFailedError("the answer is compressed, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > BODY_BYTES:
                raise CallFailedError(f"the answer is larger than {BODY_BYTES >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    # Servers call the thoughts by either name; what is no text is of no use to us.
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt | None = None
    completion_tokens: NonNegativeInt | None = None


class Completion(BaseModel):
    """The parts of a chat completion that we read; the others may be anything."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None

    def response(self, seconds: float) -> Response:
        """Return the first choice as a response in the exact format, as far as it has one.

        Raises
        ------
        CallFailedError
            When the provider or the model refused, or (TryAgainError) there is no text.
        """
        if not self.choices:
            said = f": {server_message(self.error)}" if self.error else ""
            raise TryAgainError(f"the answer holds no choices{said}")
        choice = self.choices[0]
        message, cut = choice.message, choice.finish_reason == "length"
        if choice.finish_reason == "content_filter":
            raise CallFailedError("the provider's content filter stopped the answer")
        if choice.finish_reason in _BROKEN_OFF:
            raise TryAgainError(f"the server broke off the answer ({choice.finish_reason})")
        if message.refusal:
            raise CallFailedError(f"the model refused: {message.refusal}")
        thoughts = (message.reasoning_content, message.reasoning)
        reasoning = next((t for t in thoughts if t and isinstance(t, str)), None)
        # Whoever thinks until the limit has thoughts or nothing: cut off, and kept as such.
        if message.content is None and not reasoning and not cut:
            raise TryAgainError("the answer holds no text")
        return Response(
            assembled(message.content or "", reasoning),
            seconds=seconds,
            prompt_tokens=self.usage.prompt_tokens if self.usage else None,
            completion_tokens=self.usage.completion_tokens if self.usage else None,
            finish_reason="length" if cut else "stop",
        )


def assembled(content: str, reasoning: str | None) -> str:
    """Put thoughts that came in a field of their own in front, as a think block.

    Tags inside the thoughts become blanks, so that they cannot pose as the blocks. The content
    stays as the model wrote it: an answer block it did not write is never made up.
    """
    if not reasoning or "<think>" in content:
        return content
    return f"<think>{_TAG.sub(' ', reasoning)}</think>\n{content.strip()}"


def read_completion(content_type: str, body: bytes) -> Completion:
    """Read a body that came with status 200.

    Raises
    ------
    TryAgainError
        When it is no JSON, torn, or no completion: proxies and restarts make such, and they pass.
    """
    if "json" not in content_type.lower():
        raise TryAgainError(f"the server sent {content_type or 'nothing'} instead of JSON")
    try:
        return Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = f"{where} {first['msg']}".strip()
        raise TryAgainError(f"the server's JSON cannot be used: {said}") from None


def judged(error: openai.APIError | TimeoutError) -> InputError | CallFailedError:
    """Say of what kind an error is: InputError stops the run, TryAgainError may pass."""
    if isinstance(error, openai.APIStatusError):
        reason = f"HTTP {error.status_code}: {server_message(error.body)}"
        if error.status_code == 401:
            return InputError(f"the server does not accept OPENAI_API_KEY ({reason})")
        if error.status_code == 402 or error.code == "insufficient_quota":
            return InputError(f"the account has no credit left ({reason})")
        if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
            return TryAgainError(reason, retry_after(error.response.headers))
        return CallFailedError(reason)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return TryAgainError("no complete answer in time")
    cause = error.__cause__
    said = f"{type(cause).__name__} {cause}" if cause else str(error)
    return TryAgainError(f"the connection failed: {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait: a number or an HTTP date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def server_message(body: object) -> str:
    """Return the message in the body of an error, whatever its shape."""
    for _ in range(3):
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body.get("error") or dict(body)
    return str(body or "no message")
