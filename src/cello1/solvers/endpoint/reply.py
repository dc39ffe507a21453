"""Replies of a server: a response, a reason to retry, or a reason to give up.

Replies are not trusted: bodies are bounded while they are read and decompressed. Servers differ in
how they wrap an answer, so the wrapping is read leniently; the answer itself stays as the model
wrote it. Replies without an answer become errors with a short reason.
"""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from pydantic_core import from_json

from cello1.errors import InputError
from cello1.puzzles.answer import assembled
from cello1.solvers.base import Response

BODY_BYTES = 4 << 20
_DEEPEST = 6
_MOST_TOKENS = 10**9
_GZIP = b"\x1f\x8b"
_PACKINGS = ("gzip", "x-gzip", "deflate")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_details")
_INNER = ("text", "content", "thinking", "reasoning", "summary", "value")
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "token_limit")
_FILTERED = ("content_filter", "safety", "recitation", "blocklist", "prohibited_content")
_BROKEN_OFF = ("error", "abort", "aborted", "cancelled", "canceled", "timeout")
# Tokens of chat templates that a server failed to remove: <|im_end|>, </s>, ...
_CONTROL = r"<\|\w{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?s>|<(?:eos|bos|pad|end_of_turn)>"
_AT_START = re.compile(
    rf"^\s*(?:(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)\s*(?:assistant|model)\b"
    rf"|{_CONTROL})\s*"
)
_AT_END = re.compile(rf"\s*(?:{_CONTROL})\s*$")
# Statuses by name, for services that send only those.
_STATUS_OF = (
    ("rate_limit", 429),
    ("overloaded", 503),
    ("unavailable", 503),
    ("server_error", 500),
    ("internal", 500),
    ("insufficient_quota", 402),
    ("authentication", 401),
    ("invalid_api_key", 401),
    ("not_found", 404),
    ("invalid_request", 400),
    ("context_length", 400),
    ("unsupported", 400),
)


class CallFailedError(Exception):
    """A failed call; the message is the reason, at full length and not yet cleaned.

    Attributes
    ----------
    advice
        What the user can do about it, or an empty text.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


class TryAgainError(CallFailedError):
    """A failed call that may succeed later.

    Attributes
    ----------
    wait
        Seconds the server asks to wait, if any.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class RefusedError(Exception):
    """A body that holds an error of the server, whatever its HTTP status."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.message)
        self.complaint = complaint


@dataclass(frozen=True)
class Complaint:
    """An error reported by a server.

    Attributes
    ----------
    status
        The HTTP status, or the one that the body names.
    message
        Its message.
    code, param
        Its structured fields, or empty texts.
    wait
        Seconds it asks to wait, if any.
    sent_as
        The HTTP status it came with, if different.
    """

    status: int | None
    message: str
    code: str = ""
    param: str = ""
    wait: float | None = None
    sent_as: int | None = None

    def __str__(self) -> str:
        if self.status is None:
            return f"the answer holds no choices: {self.message}"
        told = f" within HTTP {self.sent_as}" if self.sent_as else ""
        return f"HTTP {self.status}{told}: {self.message}"


async def guard(response: httpx2.Response) -> None:
    """Check a reply before it is read: refuse redirects, bound and decompress the body.

    Raises
    ------
    InputError
        When the server redirects elsewhere: prompts go only where they are meant to go.
    CallFailedError
        When the compression of the body is not supported.
    """
    if response.has_redirect_location:
        _refuse_to_leave(response)
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", *_PACKINGS):
        raise CallFailedError(f"the answer is compressed with {packing}, which was not asked for")
    # Decompressed here, within the bound: a compressed body can grow a thousandfold.
    response.headers.pop("content-encoding", None)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, packing)


def _refuse_to_leave(response: httpx2.Response) -> None:
    try:
        here, there = response.url, response.url.join(response.headers["location"])
    except Exception:
        raise InputError("the server redirects to an address that cannot be read") from None
    same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
    safer = here.host == there.host and (here.scheme, there.scheme) == ("http", "https")
    # Other redirects turn a POST into a GET, and the prompt is lost.
    if not ((same or safer) and response.status_code in (307, 308)):
        where = f"{there.scheme}://{there.netloc.decode('ascii', 'replace').rpartition('@')[2]}"
        raise InputError(
            f"the server redirects to {where}{there.path}; prompts are not sent on: name the "
            "address that answers with --base-url"
        )


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, packing: str) -> None:
        self._stream, self._packing = stream, packing

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, unpacker = 0, None
        first = True
        async for part in self._stream:
            if first and part:
                first = False
                # Some proxies compress without saying so, and some say so without compressing.
                if part.startswith(_GZIP) or (
                    self._packing == "deflate" and part[0] & 0x0F == zlib.DEFLATED
                ):
                    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
            if unpacker is not None:
                part = _unpacked(unpacker, part, BODY_BYTES + 1 - size)
            size += len(part)
            if size > BODY_BYTES:
                raise CallFailedError(f"the answer is larger than {BODY_BYTES >> 20} MiB")
            yield part
        if unpacker is not None and not unpacker.eof:
            raise TryAgainError("the answer cannot be decompressed: it ends too early")

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unpacked(unpacker: Any, part: bytes, most: int) -> bytes:
    try:
        return bytes(unpacker.decompress(part, most))
    except zlib.error as error:
        raise TryAgainError(f"the answer cannot be decompressed: {error}") from None


@dataclass(frozen=True)
class Completion:
    """The parts of a chat completion that are used; the others are ignored.

    Attributes
    ----------
    content, thoughts
        Text of the answer, and of the reasoning if it has a field of its own.
    finish_reason
        As sent by the server, in lower case.
    refusal
        The message of a refusal.
    prompt_tokens, completion_tokens
        As counted by the server, or None.
    """

    content: str
    thoughts: str
    finish_reason: str
    refusal: str
    prompt_tokens: int | None
    completion_tokens: int | None

    def response(self, seconds: float) -> Response:
        """Return it as a response, in the exact format as far as possible.

        Raises
        ------
        CallFailedError
            When the provider or the model refused, or (TryAgainError) there is no text.
        """
        cut = self.finish_reason in _CUT
        if self.finish_reason in _FILTERED:
            raise CallFailedError("the provider's content filter stopped the answer")
        if self.finish_reason in _BROKEN_OFF:
            raise TryAgainError(f"the server aborted the answer ({self.finish_reason})")
        if self.refusal:
            raise CallFailedError(f"the model refused: {self.refusal}")
        # Reasoning up to the limit leaves thoughts or nothing: the response is kept as cut off.
        if not self.content.strip() and not self.thoughts.strip() and not cut:
            raise TryAgainError("the answer holds no text")
        return Response(
            assembled(self.content, self.thoughts),
            seconds=seconds,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            finish_reason="length" if cut else "stop",
        )


def read_completion(content_type: str, body: bytes) -> Completion:
    """Read a body with status 200.

    Raises
    ------
    RefusedError
        When it is an error nevertheless.
    TryAgainError
        When it is not JSON, incomplete, or not a completion: temporary faults of proxies and
        restarts.
    """
    content = _read_json(content_type, body)
    wrapped = (content.get(name) for name in ("data", "result", "response"))
    boxes = [content, *(inner for inner in wrapped if isinstance(inner, Mapping))]
    content = next((box for box in boxes if box.get("choices")), content)
    choices = content.get("choices")
    if isinstance(choices, Mapping):
        choices = [choices]
    if not choices:
        if complaint := complaint_in(content):
            raise RefusedError(complaint)
        raise TryAgainError("the answer holds no choices")
    if not isinstance(choices, Sequence) or not isinstance(choices[0], Mapping):
        raise _unusable(f"choices is {_kind(choices)}")
    choice = choices[0]
    message = choice.get("message", choice.get("delta", choice.get("text")))
    if isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, Mapping):
        raise _unusable(f"choices.0.message is {_kind(message)}")
    said, thought = _texts(message.get("content"))
    named = (_all_text(message.get(name)) for name in _THOUGHTS)
    finish = choice.get("finish_reason")
    if finish is None:
        finish = choice.get("stop_reason")
    refusal = message.get("refusal")
    text = _without_control_tokens(said)
    usage = content.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    written = _count(usage, "completion_tokens", "output_tokens")
    return Completion(
        text,
        next((t for t in named if t.strip()), "") or thought,
        finish.strip().lower() if isinstance(finish, str) else "stop",
        refusal if isinstance(refusal, str) else "",
        _count(usage, "prompt_tokens", "input_tokens") or None,
        # None written although there is a text: such a server does not count.
        None if written == 0 and text else written,
    )


def _read_json(content_type: str, body: bytes) -> Mapping[str, Any]:
    wide = body[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = body.decode("utf-16", "replace").encode() if wide else body
    text = text.removeprefix(b"\xef\xbb\xbf").strip()
    if text.startswith((b"data:", b"event:", b"id:", b": ")):
        return _from_stream(text)
    try:
        content = from_json(text)
    except ValueError as error:
        if "json" not in content_type.lower():
            sent = content_type or "nothing"
            raise TryAgainError(f"the server sent {sent} instead of JSON") from None
        raise _unusable(f"Invalid JSON: {error}") from None
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, Mapping):
        raise _unusable(f"it is {_kind(content)}")
    return content


def _from_stream(text: bytes) -> Mapping[str, Any]:
    """Assemble an answer that was streamed without being asked to."""
    said: dict[str, str] = {}
    finish, usage, ended = None, None, False
    for line in text.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            ended = True
            continue
        try:
            part = from_json(data)
        except ValueError as error:
            raise _unusable(f"Invalid JSON in a stream: {error}") from None
        if not isinstance(part, Mapping):
            continue
        usage = part.get("usage") or usage
        choices = part.get("choices")
        if not choices:
            if part.get("error"):
                return part
            continue
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, Mapping):
            raise _unusable(f"choices in a stream is {_kind(choices)}")
        delta = choice.get("delta", choice.get("message"))
        for name in ("content", *_THOUGHTS):
            if isinstance(delta, Mapping) and delta.get(name):
                said[name] = said.get(name, "") + _all_text(delta[name])
        finish = choice.get("finish_reason") or finish
    if finish is None and not ended:
        raise TryAgainError("the server aborted the answer (its stream has no end)")
    return {"choices": [{"message": said, "finish_reason": finish}], "usage": usage}


def _texts(value: Any, depth: int = 0) -> tuple[str, str]:
    """Return answer and reasoning of a content, which is text or parts of several kinds."""
    if isinstance(value, str):
        return value, ""
    if depth > _DEEPEST:
        return "", ""
    if isinstance(value, Mapping):
        kind = str(value.get("type") or "").lower()
        inner = next((value[name] for name in _INNER if value.get(name)), None)
        said, thought = _texts(inner, depth + 1)
        thinks = "think" in kind or "reason" in kind or (not kind and "thinking" in value)
        return ("", said + thought) if thinks else (said, thought)
    if not isinstance(value, list):
        return "", ""
    parts = [_texts(part, depth + 1) for part in value]
    said = ""
    for part, _ in parts:
        # A block was cut right after the tag: the two are separate lines.
        said += "\n" + part if said.endswith("</think>") and part[:1] == "<" else part
    return said, "".join(thought for _, thought in parts)


def _all_text(value: Any) -> str:
    said, thought = _texts(value)
    return thought + said


def _without_control_tokens(text: str) -> str:
    while (shorter := _AT_END.sub("", text)) != text:
        text = shorter
    while (shorter := _AT_START.sub("", text)) != text:
        text = shorter
    return text


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """Return a number of tokens, in any form; None if it is not one."""
    value = next((usage[name] for name in names if usage.get(name) is not None), None)
    if isinstance(value, str) and len(value) < 16:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < _MOST_TOKENS or not math.isfinite(value):
        return None
    return math.ceil(value)


def _unusable(why: str) -> TryAgainError:
    return TryAgainError(f"the server's JSON cannot be used: {why}")


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def complaint(error: openai.APIStatusError) -> Complaint:
    """Read an error with an HTTP status of its own."""
    found = complaint_in(error.body)
    message = found.message if found else "no message"
    named = (found.code or str(error.code or ""), found.param) if found else ("", "")
    return Complaint(
        error.status_code,
        message,
        code=named[0],
        param=named[1] or str(error.param or ""),
        wait=retry_after(error.response.headers),
    )


def complaint_in(body: object, sent_as: int | None = 200) -> Complaint | None:
    """Read the error in a body; None if there is none."""
    message = server_message(body)
    fields: dict[str, Any] = {}
    inner: Any = body
    for _ in range(_DEEPEST):
        if isinstance(inner, list) and inner:
            inner = inner[0]
        if not isinstance(inner, Mapping):
            break
        fields |= {k: inner[k] for k in ("code", "type", "param", "loc", "status") if inner.get(k)}
        inner = inner.get("error") or inner.get("detail")
    if message == "no message" and not fields:
        return None
    place = fields.get("loc")
    places = place if isinstance(place, list) else []
    where = ".".join(str(part) for part in places if part != "body")
    code = str(fields.get("code") or fields.get("type") or "")[:80]
    named = " ".join(str(fields.get(k) or "")[:80].lower() for k in ("code", "type", "status"))
    number = re.search(r"\b[45]\d\d\b", named)
    status = int(number[0]) if number else None
    if status is None:
        status = next((status for word, status in _STATUS_OF if word in named), None)
    return Complaint(status, message, code, str(fields.get("param") or where)[:80], sent_as=sent_as)


def classified(said: Complaint) -> InputError | CallFailedError:
    """Return the error of a complaint: InputError stops the run, TryAgainError may pass."""
    status = said.status
    if status == 401:
        return InputError(f"the server does not accept OPENAI_API_KEY ({said})")
    if status == 402 or said.code in ("insufficient_quota", "billing_hard_limit_reached"):
        return InputError(f"the account has no credit left ({said})")
    if status is None or status in (408, 409, 425, 429) or status >= 500:
        return TryAgainError(str(said), said.wait)
    return CallFailedError(str(said), _advice(said))


def _advice(said: Complaint) -> str:
    """Name the option to set, if one would help."""
    words = f"{said.code} {said.message}".lower()
    if "context" in words or "too long" in words or "input length" in words:
        return "list fewer genes per cell (build --top-genes), or serve a longer context"
    if said.status == 404:
        return "is it the --solver openai:NAME that this server knows, and --base-url up to /v1?"
    return ""


def unreachable(error: Exception) -> CallFailedError:
    """Return the error for a missing answer."""
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return TryAgainError("no complete answer in time")
    cause = error.__cause__
    said = f"{type(cause).__name__} {cause}" if cause else str(error)
    return TryAgainError(f"the connection failed: {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait: a number or an HTTP date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def server_message(body: object) -> str:
    """Return the message in the body of an error of any form."""
    for _ in range(_DEEPEST):
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, Mapping):
            names = ("message", "detail", "error", "msg", "error_message", "title")
            body = next((body[name] for name in names if body.get(name)), dict(body))
    try:
        return str(body or "no message")
    except (RecursionError, ValueError):  # nested too deep, or a number with thousands of digits
        return "a message that cannot be read"
