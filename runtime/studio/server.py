"""The studio behind HTTP, for one person on this machine: Python's own server, on loopback only.

Who may ask: the page that this server gave out. Every request names the server as its host (so that no other site's
name, pointed at this machine, reaches it), holds the token of the printed address, and comes from the page's origin.
"""

from __future__ import annotations

import json
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dualsmooth.runtime.datasets.single_images import read_picture
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line
from dualsmooth.runtime.smoothing.view import eight_bits
from dualsmooth.runtime.studio.html import page_html
from dualsmooth.runtime.studio.studio import Check, Studio, in_base64

HOST = "127.0.0.1"
TOKEN = "X-Studio-Token"
MAX_BODY = 16 << 20
"""Bytes of a request: a picture as a file, or two of them and a certificate."""
MAX_RUNS = 4
"""Requests that sample at a time."""
SLOW = 30.0
"""Seconds that a client may take to send or take something."""
DRAIN = 0.2
"""Seconds that a client which is refused may pause while it sends."""
PATIENCE = 5.0
"""Seconds that the end waits for what is still sampled: a replay is not stopped."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):
    """A request that is not answered: its status, and one line that says why."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class Gone(Exception):
    """Nobody waits for the answer."""


class StudioServer(ThreadingHTTPServer):
    """Serves one studio at `address` until it is shut down. Raises `InputError` where the port is not free."""

    daemon_threads = True

    def __init__(self, studio: Studio, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"--port {port}; expected 0 (any free one) to 65535")
        self.studio, self.token = studio, secrets.token_urlsafe(24)
        self.page = page_html(studio).encode()
        self.closing = threading.Event()
        self._runs = threading.Semaphore(MAX_RUNS)
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise InputError(f"port {port} of {HOST} cannot be had ({reason}); choose another with --port") from error
        self.hosts = tuple(f"{name}:{self.server_address[1]}" for name in (HOST, "localhost"))

    def server_bind(self) -> None:
        """Without asking anybody for the name of this machine."""
        TCPServer.server_bind(self)

    @property
    def address(self) -> str:
        return f"http://{self.hosts[0]}/?token={self.token}"

    @contextmanager
    def run_slot(self) -> Iterator[None]:
        """Room for a request that samples. Raises `Refused` where there is none."""
        if not self._runs.acquire(blocking=False):
            raise Refused(503, f"{MAX_RUNS} requests are being sampled already; stop one of them, or wait")
        try:
            yield
        finally:
            self._runs.release()

    def server_close(self) -> None:
        """Take no more requests, stop those that sample, and wait until they have ended."""
        self.closing.set()
        super().server_close()
        until = time.monotonic() + PATIENCE
        for _ in range(MAX_RUNS):
            self._runs.acquire(timeout=max(0.0, until - time.monotonic()))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What is left of a connection whose client is gone: no news."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: StudioServer
    timeout = SLOW
    server_version, sys_version = "dualsmooth", ""

    def do_GET(self) -> None:
        """The page, which holds all of its code and style."""
        self._answered(self._page)

    def do_POST(self) -> None:
        """What the page asks for."""
        self._answered(self._asked)

    def log_message(self, *_: Any) -> None:
        """Nothing: addresses hold the token."""

    def _answered(self, answer: Callable[[], None]) -> None:
        self._begun = False
        try:
            answer()
        except Refused as refused:
            self._fail(refused.status, str(refused))
        except InputError as error:
            self._fail(400, str(error))
        except DualSmoothError as error:
            self._fail(500, str(error))
        except Gone:
            if self.server.closing.is_set():
                self._fail(503, "the studio was closed; no certificate is issued")
        except OSError:
            raise  # the client is gone
        except Exception as error:
            print(f"dualsmooth: the studio failed ({type(error).__name__}: {one_line(error)})", file=sys.stderr)
            self._fail(500, f"the studio failed ({one_line(error)}); no certificate is issued")

    def _page(self) -> None:
        where = urlsplit(self.path)
        self._require(parse_qs(where.query).get("token", [""])[0])
        if where.path != "/":
            raise Refused(404, f"there is no {where.path[:60]} here; open /")
        self._send(200, "text/html; charset=utf-8", self.server.page)

    def _asked(self) -> None:
        try:
            self._require(self.headers.get(TOKEN, ""))
            work = WORK.get(self.path)
            if work is None:
                raise Refused(404, f"there is no {self.path[:60]} here; expected one of {', '.join(WORK)}")
            length = self._length()
        except Refused:
            self._drain()
            raise
        found = self.rfile.read(length)
        if len(found) < length:
            raise Gone
        work(self, found)

    def _require(self, token: str) -> None:
        """Raises `Refused` unless the request is the page's own."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts:
            raise Refused(403, f"asked for as host {host[:60]!r}; expected {self.server.hosts[0]}: open that address")
        if origin not in (None, f"http://{host}"):
            raise Refused(403, f"asked from {origin[:60]!r}; expected the page of this server")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "the token is missing or not this studio's; open the address that the terminal shows")

    def _length(self) -> int:
        """Of the request's body. Raises `Refused`."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise Refused(411, "the request does not say its length; expected Content-Length")
        if len(length) > 12 or int(length) > MAX_BODY:
            raise Refused(413, f"the request has {length[:12]} bytes; expected at most {MAX_BODY}: send less")
        return int(length)

    def _drain(self) -> None:
        """Take what a client is still sending, so that it hears why it is refused; not for long."""
        left = MAX_BODY
        with suppress(OSError):
            while left > 0 and select.select([self.connection], [], [], DRAIN)[0]:
                taken = len(self.rfile.read1(1 << 20))
                left = left - taken if taken else 0

    def certify(self, body: bytes) -> None:
        """Lines of JSON, as they come: `Studio.certify`."""
        with self.server.run_slot():
            self.server.studio.certify(self.server.studio.asked(body), self._tell, self._check)

    def picture(self, body: bytes) -> None:
        """The pixels of a picture's file, as `dualsmooth certify` reads it."""
        smoother = self.server.studio.smoother
        found = read_picture(body, smoother.bundle.input_shape, smoother.bundle.preprocessing)
        self._reply(200, {"pixels": in_base64(eight_bits(smoother.check_image(found)))})

    def sampled(self, name: str, body: bytes) -> None:
        """One answer of the studio's that takes sampling."""
        with self.server.run_slot():
            work: Callable[[Any, Check], dict[str, Any]] = getattr(self.server.studio, name)
            found = work(self.server.studio.asked(body), self._check)
        self._reply(200, found)

    def _check(self) -> None:
        """Raises `Gone` where the client has hung up, or the studio closes."""
        if self.server.closing.is_set() or _hung_up(self.connection):
            raise Gone

    def _tell(self, event: dict[str, Any]) -> None:
        if not self._begun:
            self._head(200, "application/x-ndjson")
        self.wfile.write(json.dumps(event, allow_nan=False).encode() + b"\n")

    def _fail(self, status: int, line: str) -> None:
        """Why there is no answer; as the last line where it has begun."""
        if self._begun:
            self._tell({"event": "error", "error": line})
        else:
            self._reply(status, {"error": line})

    def _reply(self, status: int, found: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(found, allow_nan=False).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self._head(status, kind, len(content))
        self.wfile.write(content)

    def _head(self, status: int, kind: str, length: int | None = None) -> None:
        """Without a length the end of the connection is the end of the answer."""
        self._begun = True
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS}.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


WORK: dict[str, Callable[[Handler, bytes], None]] = {
    "/certify": Handler.certify,
    "/picture": Handler.picture,
    "/replay": lambda handler, body: handler.sampled("replay", body),
    "/direction": lambda handler, body: handler.sampled("direction", body),
    "/move": lambda handler, body: handler.sampled("move", body),
}
"""What may be asked for, by path."""


def _hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed: it has sent all that it will, and that has been read."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
