"""Where a server is and what opens it; and how secrets stay out of everything that is written."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import openai

from cello1.errors import InputError, UseError
from cello1.solvers.endpoint.reply import bound_body

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
_LOGGERS = ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy", "openai")
# Placeholders such as 'none' or 'EMPTY' are words; taking them out would damage answers.
_SHORTEST_SECRET = 8


class Address:
    """The address of a server, with what else the URL holds kept apart.

    Parameters
    ----------
    url
        The address up to ``/v1``; a user, a password and a query are passed on and never shown.
        Default: the environment's OPENAI_BASE_URL, else OpenAI itself.

    Attributes
    ----------
    plain
        The address without user, password and query.
    """

    def __init__(self, url: str | None) -> None:
        parts = urlsplit(url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # Not quoted: there may be a password in it.
            raise UseError("the base URL is no address such as http://localhost:8000/v1")
        user, _, host = parts.netloc.rpartition("@")
        self.plain = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._query = dict(parse_qsl(parts.query))
        self._user = unquote(user)

    def client(self, timeout: float) -> openai.AsyncOpenAI:
        """Open a client that retries nothing itself and reads no body beyond its bound.

        Raises
        ------
        InputError
            When there is no usable key in the environment.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key and self.plain == OPENAI_URL:
            raise InputError(
                f"OpenAI asks for a key: set the environment variable {KEY_VARIABLE}, or name "
                "another server by its base URL"
            )
        # Such a key would come back, escaped, in the error of the HTTP library.
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
        headers = {"Accept-Encoding": "identity"}
        if self._user:
            headers["Authorization"] = f"Basic {self._basic()}"
        return openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self.plain,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            default_query=self._query,
            http_client=openai.DefaultAsyncHttpx2Client(
                timeout=timeout, event_hooks={"response": [bound_body]}
            ),
        )

    def clean(self, text: str) -> str:
        """Take every secret out of a text."""
        password = self._user.partition(":")[2]
        key = os.environ.get(KEY_VARIABLE, "").strip()
        for secret in (key, self._basic(), password, *self._query.values()):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _basic(self) -> str:
        return base64.b64encode(self._user.encode()).decode()

    @contextmanager
    def clean_logs(self) -> Iterator[None]:
        """Take every secret out of what the HTTP libraries log: URLs, and headers sent back."""

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
