"""The HTTP port under guests who say nothing, a byte at a time, or read nothing of an answer."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from warp import listening
from warp.listening import MOST_AT_ALL, MOST_GUESTS, Listener
from warp.metrics import MetricsServer
from warp.own_process import wait_until

MANY = 300
LONG = b"x" * (16 << 20)  # more than the buffers of a connection take


def ask(port: int, path: str) -> tuple[int, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.status, len(answer.read())


@contextmanager
def guests(port: int, says: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """So many connections, of which each has said that."""
    with ExitStack() as open_:
        made = []
        for _ in range(count):
            guest = open_.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            guest.sendall(says)
            made.append(guest)
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MetricsServer]:
    with MetricsServer(0, tmp_path, pages={"/long": lambda: LONG.decode()}) as serving:
        yield serving


def threads() -> int:
    return threading.active_count()


def open_files() -> int:
    return psutil.Process().num_fds()


@pytest.mark.parametrize(
    "says",
    [b"", b"G", b"GET /metrics HTTP/1.1\r\nHost: me\r\nA:", b"GET /long HTTP/1.1\r\n\r\n"],
    ids=["nothing", "one byte", "half a request", "a request, and reads no answer"],
)
def test_hundreds_of_slow_guests_keep_no_probe_and_no_scrape_waiting(
    server: MetricsServer, says: bytes
) -> None:
    before_threads, before_files = threads(), open_files()
    with guests(server.port, says):
        for _ in range(3):
            assert ask(server.port, "/healthz")[0] == 200
            assert ask(server.port, "/metrics")[0] == 200
        assert threads() - before_threads <= MOST_AT_ALL
        # Half of each connection that is still open is this test's own.
        assert open_files() - before_files <= MANY + MOST_AT_ALL
    assert wait_until(lambda: threads() <= before_threads, 10)


def test_without_a_bound_each_guest_costs_a_thread(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: the server as it comes with Python."""
    monkeypatch.setattr(listening, "MOST_GUESTS", MANY * 2)
    monkeypatch.setattr(listening, "MOST_AT_ALL", MANY * 2)
    before = threads()
    with guests(server.port, b"G"):
        assert wait_until(lambda: threads() - before > MOST_AT_ALL, 10)


def test_who_takes_too_long_to_ask_is_shown_out(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "ASKED_WITHIN", 0.3)
    with guests(server.port, b"GET /healthz HTTP/1.1\r\nA:", count=1) as [guest]:
        alive = True
        while alive:  # a byte at a time, for as long as somebody listens
            try:
                guest.sendall(b"a")
                guest.settimeout(0.05)
                alive = guest.recv(1) != b""
            except TimeoutError:
                continue
            except ConnectionError:
                alive = False


def test_who_asks_longest_goes_first_and_who_stays_on_a_page_goes_last() -> None:
    seen: list[str] = []

    class Answers:
        sites: ClassVar[dict[str, Callable[..., None]]] = {}

        def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
            raise AssertionError("nobody asks")

    listener = Listener("127.0.0.1", 0, Answers())
    with ExitStack() as open_:
        pairs = [socket.socketpair() for _ in range(MOST_GUESTS)]
        for ours, theirs in pairs:
            open_.enter_context(ours)
            open_.enter_context(theirs)
        doing = [listening.Doing.STAYING, listening.Doing.TAKING, *[listening.Doing.ASKING] * 62]
        for number, ((_, theirs), does) in enumerate(zip(pairs, doing, strict=True)):
            listener._guests[theirs] = listening.Guest(float(number), does)
        for _ in range(MOST_GUESTS):
            listener._show_out(*min(listener._guests.items(), key=listening._rank))
            for number, (ours, _) in enumerate(pairs):
                ours.setblocking(False)
                try:
                    if ours.recv(1) == b"" and str(number) not in seen:
                        seen.append(str(number))
                except BlockingIOError:
                    pass
        listener._guests.clear()
        listener.server_close()
    assert seen == [*map(str, range(2, MOST_GUESTS)), "1", "0"]
