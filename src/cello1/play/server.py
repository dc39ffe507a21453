"""The page of `cello1 play`, over HTTP on this machine.

Other web pages in the same browser can send requests here, so answers need a token that only our
page knows, and requests that name another host (DNS rebinding) are refused.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cello1.pages.templating import pack, page_of
from cello1.terminal.text import clean

if TYPE_CHECKING:
    from cello1.play.game import Game

_MOST_BYTES, _MOST_DIGITS = 100_000, 9
_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(game: Game, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted.

    Raises
    ------
    OSError
        When the address cannot be listened on.
    """
    with PlayServer(game, host, port) as server:
        ready(server.url)
        server.serve_forever()


class PlayServer(ThreadingHTTPServer):
    """The server; every connection has a thread, since browsers keep idle ones open."""

    daemon_threads = True

    def __init__(self, game: Game, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.game, self.token = game, secrets.token_urlsafe(24)
        shown = host if host not in ("", "0.0.0.0") else "127.0.0.1"
        self.url = f"http://{shown}:{self.server_port}/"
        # Beyond this machine the server is reached by names unknown here.
        self.hosts = {f"{name}:{self.server_port}" for name in _LOCAL} if host in _LOCAL else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error in one line; a closed browser is not an error."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            what = f"{type(error).__name__}: {error}"
            print(f"error: a request failed ({clean(what)[:200]})", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    server_version = "cello1"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if self.path != "/":
            self._send(404, b"nothing here\n", "text/plain; charset=utf-8")
            return
        game = self.server.game
        data = {
            "token": self.server.token,
            "puzzles": game.questions(),
            "standing": game.standing(),
        }
        self._send(200, page_of("play", data=pack(data)).encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > _MOST_DIGITS or int(length) > _MOST_BYTES:
            self._tell(413, {"error": f"expected at most {_MOST_BYTES:,} bytes"})
            return
        body = self.rfile.read(int(length))
        token = self.headers.get("x-token", "").encode("utf-8", "replace")
        ours = secrets.compare_digest(token, self.server.token.encode())
        if self.path != "/answer" or not ours:
            self._tell(403, {"error": "the page is of an earlier start; load it again"})
            return
        try:
            status, said = 200, self.server.game.answer(json.loads(body))
        except RecursionError:
            status, said = 400, {"error": "the answer is nested too deeply to be read"}
        except ValueError as error:  # InputError is one
            status, said = 400, {"error": str(error)}
        except OSError as error:
            status, said = 500, {"error": f"the answer could not be kept: {error.strerror}"}
        self._tell(status, said)

    def _is_ours(self) -> bool:
        hosts = self.server.hosts
        if hosts is None or self.headers.get("host", "") in hosts:
            return True
        self._send(403, b"this page answers to its own address only\n", "text/plain; charset=utf-8")
        return False

    def _tell(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.send_header("cache-control", "no-store")
        self.send_header("x-content-type-options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: the terminal is for the person who plays."""
