"""What a server sends back: a response, a reason to try again, or a reason to give up.

Nothing a server sends is taken on trust: bodies are bounded while they are read and unpacked.
Servers differ in how they wrap an answer, so the wrapping is read generously; the answer itself
stays as the model wrote it. Whatever holds no answer becomes an error with one short reason.
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
# Tokens of chat templates that a server forgot to leave out: <|im_end|>, </s>, ...
_CONTROL = r"<\|\w{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?s>|<(?:eos|bos|pad|end_of_turn)>"
_AT_START = re.compile(
    rf"^\s*(?:(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)\s*(?:assistant|model)\b"
    rf"|{_CONTROL})\s*"
)
_AT_END = re.compile(rf"\s*(?:{_CONTROL})\s*$")
# What services call a status where they send none.
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
    """A call that failed; the message is the reason, at full length and not yet cleaned.

    Attributes
    ----------
    advice
        What the user can do about it, or nothing.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


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


class RefusedError(Exception):
    """A body that says what the server objects to, under whatever status it came."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.message)
        self.complaint = complaint


@dataclass(frozen=True)
class Complaint:
    """What a server objects to.

    Attributes
    ----------
    status
        The HTTP status, or the one that the body names.
    message
        Its words.
    code, param
        Its structured fields; empty when there are none.
    wait
        Seconds it asks to wait, if it says.
    sent_as
        The HTTP status it came with, when that was another one.
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
    """Look at an answer before it is read: refuse to be sent elsewhere, bound and unpack the body.

    Raises
    ------
    InputError
        When the server sends us on to another place: prompts go nowhere they were not meant for.
    CallFailedError
        When the body is packed in a way that cannot be read here.
    """
    if response.has_redirect_location:
        _refuse_to_leave(response)
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", *_PACKINGS):
        raise CallFailedError(f"the answer is compressed with {packing}, which was not asked for")
    # Unpacked here, within the bound: a compressed body could grow a thousandfold after the count.
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
                # Some proxies pack without saying so, and some say so without packing.
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
            raise TryAgainError("the answer cannot be unpacked: it ends too early")

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unpacked(unpacker: Any, part: bytes, most: int) -> bytes:
    try:
        return bytes(unpacker.decompress(part, most))
    except zlib.error as error:
        raise TryAgainError(f"the answer cannot be unpacked: {error}") from None


@dataclass(frozen=True)
class Completion:
    """The parts of a chat completion that we read; the others may be anything.

    Attributes
    ----------
    content, thoughts
        What the model said, and what it thought where that came in a field of its own.
    finish_reason
        As the server calls it, in lower case.
    refusal
        The model's own words when it refused.
    prompt_tokens, completion_tokens
        As counted by the server; None where it did not.
    """

    content: str
    thoughts: str
    finish_reason: str
    refusal: str
    prompt_tokens: int | None
    completion_tokens: int | None

    def response(self, seconds: float) -> Response:
        """Return it as a response in the exact format, as far as it has one.

        Raises
        ------
        CallFailedError
            When the provider or the model refused, or (TryAgainError) there is no text.
        """
        cut = self.finish_reason in _CUT
        if self.finish_reason in _FILTERED:
            raise CallFailedError("the provider's content filter stopped the answer")
        if self.finish_reason in _BROKEN_OFF:
            raise TryAgainError(f"the server broke off the answer ({self.finish_reason})")
        if self.refusal:
            raise CallFailedError(f"the model refused: {self.refusal}")
        # Whoever thinks until the limit has thoughts or nothing: cut off, and kept as such.
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
    """Read a body that came with status 200.

    Raises
    ------
    RefusedError
        When it is an error all the same.
    TryAgainError
        When it is no JSON, torn, or no completion: proxies and restarts make such, and they pass.
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
        # None written, yet there is a text: such a server does not count.
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
    """Put together the parts of an answer that was streamed though nobody asked for that."""
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
        raise TryAgainError("the server broke off the answer (its stream has no end)")
    return {"choices": [{"message": said, "finish_reason": finish}], "usage": usage}


def _texts(value: Any, depth: int = 0) -> tuple[str, str]:
    """Return what a content says and what it thinks; it may be text, or parts of several kinds."""
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
        # A block of its own was cut right behind the tag: the two are lines of their own.
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
    """Return a number of tokens, in whatever form it came; None when it is none."""
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
    """Read an error that came with a status of its own."""
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
    """Read the error that a body holds; None when there is none."""
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
    """Name the option to set, where one would help."""
    words = f"{said.code} {said.message}".lower()
    if "context" in words or "too long" in words or "input length" in words:
        return "list fewer genes per cell (build --top-genes), or serve a longer context"
    if said.status == 404:
        return "is it the --solver openai:NAME that this server knows, and --base-url up to /v1?"
    return ""


def unreachable(error: Exception) -> CallFailedError:
    """Say that no answer came at all."""
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
    """Return the message in the body of an error, whatever its shape."""
    for _ in range(_DEEPEST):
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, Mapping):
            names = ("message", "detail", "error", "msg", "error_message", "title")
            body = next((body[name] for name in names if body.get(name)), dict(body))
    try:
        return str(body or "no message")
    except (RecursionError, ValueError):  # nested too deep, or a number of thousands of digits
        return "a message that cannot be read"
