"""The HTTP port under guests who say nothing, a byte at a time, or read nothing of an answer."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from warp import listening
from warp.listening import MOST_AT_ALL, MOST_GUESTS, Listener, Site
from warp.metrics import MetricsServer
from warp.own_process import wait_until

MANY = 300
LONG = b"x" * (8 << 20)  # more than the buffers of a connection take


def ask(port: int, path: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return int(answer.status)


@contextmanager
def guests(port: int, says: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """So many connections, of which each has said that."""
    with ExitStack() as open_:
        made = []
        for _ in range(count):
            guest = open_.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with suppress(ConnectionError):  # shown out before it had spoken
                guest.sendall(says)
            made.append(guest)
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MetricsServer]:
    with MetricsServer(0, tmp_path) as serving:
        yield serving


class Answers:
    """A long answer that costs nothing to make, and short ones."""

    sites: Mapping[str, Site] = MappingProxyType({})

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        return 200, "text/plain", LONG if path == "/long" else b"well"


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener("127.0.0.1", 0, Answers())
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
    thread.start()
    yield listener
    listener.shutdown()
    thread.join()
    listener.server_close()


def open_files() -> int:
    return psutil.Process().num_fds()


@pytest.mark.parametrize("says", [b"", b"G", b"GET /metrics HTTP/1.1\r\nHost: me\r\nA:"])
def test_hundreds_who_do_not_ask_to_the_end_keep_no_probe_and_no_scrape_waiting(
    server: MetricsServer, says: bytes
) -> None:
    threads, files = threading.active_count(), open_files()
    with guests(server.port, says):
        for _ in range(3):
            assert ask(server.port, "/healthz") == 200
            assert ask(server.port, "/metrics") == 200
        assert threading.active_count() - threads <= MOST_AT_ALL
        # One end of each connection is this test's own.
        assert open_files() - files <= MANY + MOST_AT_ALL
    assert wait_until(lambda: threading.active_count() <= threads, 10)


def test_hundreds_who_do_not_read_their_answer_keep_no_probe_waiting(listener: Listener) -> None:
    threads = threading.active_count()
    with guests(listener.server_port, b"GET /long HTTP/1.1\r\n\r\n"):
        for _ in range(3):
            assert ask(listener.server_port, "/healthz") == 200
        assert threading.active_count() - threads <= MOST_AT_ALL
    assert wait_until(lambda: threading.active_count() <= threads, 10)


def test_without_a_bound_each_guest_costs_a_thread(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: the server as it comes with Python."""
    monkeypatch.setattr(listening, "MOST_GUESTS", MANY * 2)
    monkeypatch.setattr(listening, "MOST_AT_ALL", MANY * 2)
    before = threading.active_count()
    with guests(server.port, b"G"):
        assert wait_until(lambda: threading.active_count() - before > MOST_AT_ALL, 10)


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
