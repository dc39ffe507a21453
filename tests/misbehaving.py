"""A server of the OpenAI kind on loopback that can misbehave in every way we have heard of.

A behaviour is a function of the request's handler and its JSON. `right` answers as a model
would; what it says follows from the prompt, so that a mixed-up answer is noticed.
"""

import base64
import gzip
import hashlib
import json
import socket
import struct
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cello1.puzzles.prompt import EVIDENCE_HEADING, messages, read_user_message

PROMPT_TOKENS, COMPLETION_TOKENS = 100, 50


def text_for(prompt):
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    question = prompt.partition(f"\n\n{EVIDENCE_HEADING}")[0]
    answer = " | ".join(read_user_message(question).candidates)
    return f"<think>{digest}</think>\n<answer>{answer}</answer>"


def expected(puzzle):
    return text_for(messages(puzzle)[1].content)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.requests.append((self.path, dict(self.headers), body))
            server.starts.append(time.monotonic())
            server.running += 1
            server.peak = max(server.peak, server.running)
            behave = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        time.sleep(server.delay)
        with server.lock:
            # Before the answer is out: the client may ask anew at once.
            server.running -= 1
        try:
            behave(self, body)
        except OSError:
            self.close_connection = True  # the client hung up, as it should

    def send(self, status, content, kind="application/json", **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        length = headers.pop("content_length", len(content))
        named = {"content-type": kind, "content-length": length, **headers}
        for name, value in named.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """`script` is consumed one behaviour per request; the last one stays."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.requests, self.starts, self.running, self.peak = [], [], 0, 0
        self.script, self.delay = [right], 0.0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def bodies(self):
        return [body for _, _, body in self.requests]

    def handle_error(self, *_):
        pass

    def stop(self):
        self.shutdown()
        self.server_close()


def completion(message, finish_reason="stop", **more):
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


def said(body):
    prompt = body["messages"][-1]["content"]
    return text_for(prompt[prompt.index("Context: ") :])


def right(handler, body):
    handler.send(200, completion({"role": "assistant", "content": said(body)}))


def says(message, finish_reason="stop", **more):
    return lambda handler, body: handler.send(200, completion(message, finish_reason, **more))


def error(status, message="no", *, code=None, param=None, **headers):
    content = {"error": {"message": message, "code": code, "param": param}}
    return lambda handler, body: handler.send(status, content, **headers)


def retry_at(seconds):
    def behave(handler, body):
        date = formatdate(time.time() + seconds, usegmt=True)
        handler.send(429, {"error": {"message": "slow down"}}, retry_after=date)

    return behave


def slow_drip(handler, body):
    handler.send(200, b"{", content_length=100_000)
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.02)


def truncated_json(handler, body):
    content = json.dumps(completion({"content": said(body)})).encode()
    handler.send(200, content[: len(content) // 2])


def cut_connection(handler, body):
    """Promise a whole answer and hang up halfway."""
    content = json.dumps(completion({"content": said(body)})).encode()
    handler.send(200, content[:-10], content_length=len(content))
    handler.close_connection = True


def reset(handler, body):
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True


def wrong_type(handler, body):
    handler.send(200, b"<html><body>Bad gateway</body></html>", kind="text/html")


def no_choices(handler, body):
    handler.send(200, {"choices": [], "error": {"message": "upstream is down"}})


def lone_surrogate(handler, body):
    handler.send(200, b'{"choices": [{"message": {"content": "\\ud800"}}]}')


def huge(status):
    """Ten megabytes, in chunks, so that no header warns of them."""

    def behave(handler, body):
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for _ in range(160):
            handler.wfile.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return behave


def compressed(handler, body):
    handler.send(200, b"\x0b\x02\x80{}\x03", content_encoding="br")


def torn_gzip(handler, body):
    content = gzip.compress(json.dumps(completion({"content": said(body)})).encode())
    handler.send(200, content[: len(content) // 2], content_encoding="gzip")


def bomb(handler, body):
    """A kilobyte that grows to a hundred megabytes."""
    handler.send(200, gzip.compress(b" " * (100 << 20)), content_encoding="gzip")


def unless(objection, fails):
    """Refuse requests for which `fails(body)`; answer the others."""

    def behave(handler, body):
        (error(400, objection) if fails(body) else right)(handler, body)

    return behave


def echo(status):
    """Send the key back wherever one can be put: headers, message, content type, text."""

    def behave(handler, body):
        key = handler.headers["authorization"]
        if key.startswith("Basic "):
            key += " " + base64.b64decode(key.split()[1]).decode()
        answer = completion({"content": f"{key} {said(body)}"}) if status == 200 else None
        content = answer or {"error": {"message": f"{'x' * 170} {key}"}}
        kind = f"text/{key}" if status == 203 else "application/json"
        handler.send(status, content, kind=kind, x_echo=key)

    return behave
