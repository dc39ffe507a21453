"""The address of a server and its credentials, which are kept out of everything written."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import getproxies

import httpx2
import openai

from cello1.errors import InputError, UseError
from cello1.solvers.endpoint.reply import guard

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_LOGGERS = ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy", "openai")
# Placeholders such as 'none' or 'EMPTY' are words; removing them would damage answers.
_SHORTEST_SECRET = 8


class Address:
    """The address of a server, with the credentials of its URL kept apart.

    Parameters
    ----------
    url
        The address up to ``/v1``; a user, a password and a query are sent but never shown.
        By default OPENAI_BASE_URL of the environment, else OpenAI.

    Attributes
    ----------
    plain
        The address without user, password and query.
    """

    def __init__(self, url: str | None) -> None:
        given = url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        # Wrong URLs are never quoted: they may hold a password.
        try:
            parts = urlsplit(given.strip())
            sound = parts.scheme in ("http", "https") and parts.hostname
            port = parts.port
        except ValueError:
            sound, parts, port = None, urlsplit(""), None
        if not sound or port == 0:
            raise UseError(
                "the base URL is not an address such as http://localhost:8000/v1 or "
                "http://[::1]:8000/v1 (ports go to 65535; a '/', '?', '#' or '@' in a password "
                "is written %2F, %3F, %23 or %40)"
            )
        if "@" not in parts.netloc and "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise UseError(
                "the base URL has an '@' after its host; a '/', '?' or '#' in a user or password "
                "is written %2F, %3F or %23, an '@' elsewhere %40"
            )
        user, _, host = parts.netloc.rpartition("@")
        self.plain = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._query = dict(parse_qsl(parts.query))
        self._user = unquote(user)

    def client(self, timeout: float) -> openai.AsyncOpenAI:
        """Open a client without retries of its own and with bounded response bodies.

        Raises
        ------
        InputError
            When there is no usable key in the environment.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key and self.plain == OPENAI_URL:
            raise InputError(
                f"OpenAI requires a key: set the environment variable {KEY_VARIABLE}, or name "
                "another server by its base URL"
            )
        # Such a key would appear, escaped, in the error of the HTTP library.
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
        headers = {"Accept-Encoding": "identity"}
        if self._user:
            headers["Authorization"] = f"Basic {self._basic()}"
        try:
            for proxy in getproxies().values():
                _ = urlsplit(proxy).port  # invalid ones are otherwise noticed only when used
            http = openai.DefaultAsyncHttpx2Client(
                timeout=timeout, event_hooks={"response": [guard]}
            )
        except Exception as error:  # invalid proxies raise many kinds
            raise InputError(_wrong_proxy(error)) from None
        try:
            return openai.AsyncOpenAI(
                api_key=key or "none",
                base_url=self.plain,
                max_retries=0,
                timeout=timeout,
                default_headers=headers,
                default_query=self._query,
                http_client=http,
            )
        except (httpx2.InvalidURL, ValueError):
            raise UseError("the base URL is not a usable address") from None

    def clean(self, text: str) -> str:
        """Remove every secret from a text."""
        password = self._user.partition(":")[2]
        key = os.environ.get(KEY_VARIABLE, "").strip()
        proxies = (_password(value) for value in getproxies().values())
        for secret in (key, self._basic(), password, *self._query.values(), *proxies):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _basic(self) -> str:
        return base64.b64encode(self._user.encode()).decode()

    @contextmanager
    def clean_logs(self) -> Iterator[None]:
        """Remove every secret from the logs of the HTTP libraries: URLs, and returned headers."""

        def cleaned(record: logging.LogRecord) -> bool:
            record.msg, record.args = self.clean(record.getMessage()), None
            return True

        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(cleaned)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(cleaned)


def _password(url: str) -> str:
    """Return the password in an address, or nothing."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def _wrong_proxy(error: Exception) -> str:
    """Name the variable of an unusable proxy, whose address may hold a password."""
    names = [
        name
        for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
        if os.environ.get(name) or os.environ.get(name.lower())
    ]
    if isinstance(error, ImportError):
        why = "SOCKS needs the package socksio (pip install socksio)"
    else:
        why = "expected an address such as http://proxy.host:3128"
    return f"the proxy in {' or '.join(names) or 'the environment'} cannot be used: {why}"
