"""The HTTP port: what it answers is asked for elsewhere; here is what it bears.

Whoever can reach the port can open connections and say nothing, a byte at a time, or read nothing
of an answer.  None of that may keep a probe or a scrape waiting, nor cost memory, threads or file
descriptors without bound: a guest too many takes the place of the one who has been asking longest.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final, Protocol

from warp.errors import StartFailed

MOST_GUESTS: Final = 64  # connections at once; beyond it the longest guest is shown out
MOST_AT_ALL: Final = 2 * MOST_GUESTS  # with those on their way out; beyond it none is let in
ASKED_WITHIN: Final = 10.0  # seconds, from the first byte of a request to its last
TAKEN_WITHIN: Final = 10.0  # seconds, for an answer to be taken; a page that stays sets its own

Site = Callable[[BaseHTTPRequestHandler], None]


class Answers(Protocol):
    """Who knows the answers."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Paths that answer for themselves, headers included, and may take their time."""
        ...

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body for any other path."""
        ...


class Doing(IntEnum):
    """Who is shown out first where there are too many."""

    ASKING = 0
    TAKING = 1
    STAYING = 2
    LEAVING = 3


@dataclass(slots=True)
class Guest:
    since: float
    doing: Doing = Doing.ASKING


class Listener(ThreadingHTTPServer):
    """Takes connections, each in a thread of its own, and no more of them than it can bear."""

    daemon_threads = True
    request_queue_size = 128  # waiting to be taken; with the usual 5 a burst costs a probe a second

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        """Raises StartFailed where the port is not free."""
        self.answers = answers
        self._guests: dict[socket.socket, Guest] = {}
        self._at_the_door = threading.Lock()
        try:
            super().__init__((host, port), _Request)
        except OSError as error:
            raise StartFailed(
                f"expected port {port} to be free, found: {error.strerror}; free it, or set "
                "monitoring.prometheus.port (0 picks a free one)",
                place="monitoring.prometheus.port",
            ) from None

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._at_the_door:
            let_in = len(self._guests) < MOST_AT_ALL
            if len(self._guests) >= MOST_GUESTS:
                self._show_out(*min(self._guests.items(), key=_rank))
            if let_in:
                self._guests[request] = Guest(time.monotonic())
        if let_in:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called between connections, ten times a second."""
        late = time.monotonic() - ASKED_WITHIN
        with self._at_the_door:
            for request, guest in self._guests.items():
                if guest.doing is Doing.ASKING and guest.since < late:
                    self._show_out(request, guest)

    def shutdown_request(self, request: Any) -> None:
        with self._at_the_door:
            self._guests.pop(request, None)
        super().shutdown_request(request)

    def has_asked(self, request: socket.socket, doing: Doing) -> None:
        with self._at_the_door:
            guest = self._guests.get(request)
            if guest is not None and guest.doing is not Doing.LEAVING:
                guest.doing = doing

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A prober that hangs up early is no news; anything else is a bug to see.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @staticmethod
    def _show_out(request: socket.socket, guest: Guest) -> None:
        """Its thread's read or write ends, and with it the thread."""
        guest.doing = Doing.LEAVING
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


def _rank(entry: tuple[socket.socket, Guest]) -> tuple[Doing, float]:
    return entry[1].doing, entry[1].since


class _Request(BaseHTTPRequestHandler):
    server: Listener
    timeout: ClassVar[float] = TAKEN_WITHIN  # of one read, and of a whole answer

    def do_GET(self) -> None:
        answers = self.server.answers
        site = answers.sites.get(self.path.partition("?")[0])
        self.server.has_asked(self.connection, Doing.TAKING if site is None else Doing.STAYING)
        if site is not None:
            site(self)
            return
        status, content_type, body = answers.answer(self.path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no news."""
