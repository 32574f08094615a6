"""Nobody waits for a name server longer than for a server, whichever driver asks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from warp import host_lookup
from warp.assembly import Plugged
from warp.config import load
from warp.errors import DestinationUnavailable, LedgerUnavailable, SourceUnavailable, WarpError
from warp.host_lookup import Lookups
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import RedisLeaseStore
from warp.metrics import Meters
from warp.model import WorkUnit
from warp.own_process import wait_until
from workers.worker import Pace, Worker

NOWHERE = "warehouse.invalid"
SERVERS = (
    f"postgresql://u:p@{NOWHERE}:5432/shop",
    f"mysql://u:p@{NOWHERE}:3306/shop",
    f"mongodb://{NOWHERE}:27017",
)


class NameServer:
    """Says where everybody is but one, and of that one nothing until it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()
        self.answer: list[Any] | OSError = socket.gaierror(socket.EAI_NONAME, "no such host")
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *rest: Any, **more: Any) -> Any:
        if host != NOWHERE:
            return self._real(host, *rest, **more)
        self.asked += 1
        self.answers.wait()
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    silent = NameServer()
    yield silent
    silent.answers.set()  # or its threads would never end


def asked(lookups: Lookups) -> list[Any]:
    return lookups(NOWHERE, 5432, type=socket.SOCK_STREAM)


# -- the lookup


def test_an_answer_is_the_c_library_s() -> None:
    question: tuple[Any, ...] = ("localhost", "5432", 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    assert Lookups(socket.getaddrinfo, limit=10.0)(*question) == socket.getaddrinfo(*question)


def test_an_address_is_no_question_for_anybody() -> None:
    threads: list[threading.Thread] = []

    def look_up(*words: Any) -> list[Any]:
        threads.append(threading.current_thread())
        return []

    lookups = Lookups(look_up, limit=10.0)
    for host in ("127.0.0.1", "::1", None, b"ab"):
        lookups(host, 1)
    assert threads == [threading.current_thread()] * 4


def test_a_name_that_nobody_answers_for_is_given_up_and_not_asked_for_again(
    name_server: NameServer,
) -> None:
    lookups = Lookups(name_server, limit=0.02)
    for _ in range(3):
        with pytest.raises(socket.gaierror, match=r"no name server has answered within 0\.02 s"):
            asked(lookups)
    assert name_server.asked == 1


def test_all_who_ask_at_once_share_one_answer(name_server: NameServer) -> None:
    lookups = Lookups(name_server, limit=10.0)
    told: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: told.append(asked(lookups))) for _ in range(5)]
    for thread in threads:
        thread.start()
    name_server.answer = ["here"]
    name_server.answers.set()
    for thread in threads:
        thread.join()
    assert told == [["here"]] * 5
    assert asked(lookups) == ["here"]
    assert name_server.asked > 1  # an answer is not kept: names move


def test_an_answer_that_comes_too_late_is_for_the_next_who_asks(name_server: NameServer) -> None:
    lookups = Lookups(name_server, limit=0.02)
    with pytest.raises(socket.gaierror):
        asked(lookups)
    name_server.answer = ["late"]
    name_server.answers.set()
    assert wait_until(lambda: asked_or_none(lookups) == ["late"], 10)
    assert name_server.asked == 1


def test_but_not_when_it_is_old(name_server: NameServer) -> None:
    lookups = Lookups(name_server, limit=0.02, stale=0.0)
    with pytest.raises(socket.gaierror):
        asked(lookups)
    name_server.answer = ["late"]
    name_server.answers.set()
    assert wait_until(lambda: asked_or_none(lookups) == ["late"], 10)
    assert name_server.asked > 1


def asked_or_none(lookups: Lookups) -> list[Any] | None:
    try:
        return asked(lookups)
    except socket.gaierror:
        return None


def test_what_the_c_library_refuses_is_refused(name_server: NameServer) -> None:
    name_server.answers.set()
    with pytest.raises(socket.gaierror, match="no such host"):
        asked(Lookups(name_server, limit=10.0))


# -- every driver


def settings_between(directory: Path, source: str, destination: str) -> Any:
    path = directory / "config.yaml"
    more = {"server_selection_timeout": "200ms"} if source.startswith("mongodb") else {}
    tree = {
        "source": {"connection_string": source, "database": "shop", **more},
        "destination": {"connection_string": destination},
        "schemas": [{"name": "shop"}],
    }
    path.write_text(yaml.safe_dump(tree))
    return load(path, {}, {})


def asks(what: str, url: str, directory: Path) -> tuple[Callable[[], object], type[WarpError]]:
    if what == "ledger":
        return RedisLeaseStore(url, "t").incarnation, LedgerUnavailable
    warehouse, shop = SERVERS[0], SERVERS[2]

    def ask() -> None:
        if what == "source":  # asked already for what the schema's name means
            Plugged(settings_between(directory, url, warehouse)).source("shop")
            return
        with closing(Plugged(settings_between(directory, shop, url)).bookkeeping()) as books:
            books.check()

    return ask, SourceUnavailable if what == "source" else DestinationUnavailable


ENDS = [
    *(("source", url) for url in SERVERS),
    *(("destination", url) for url in SERVERS[:2]),
    ("ledger", f"redis://{NOWHERE}:6379/0"),
]


@pytest.mark.parametrize(("what", "url"), ENDS)
def test_a_server_whose_name_nobody_knows_is_told_of(
    what: str,
    url: str,
    tmp_path: Path,
    name_server: NameServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Lookups(name_server, limit=0.05))
    check, refused = asks(what, url, tmp_path)
    with pytest.raises(refused):
        check()
    assert name_server.asked


@pytest.mark.parametrize(("what", "url"), [e for e in ENDS if "mongodb" not in e[1]])
def test_the_drivers_as_they_come_would_wait_for_the_name_server(
    what: str,
    url: str,
    tmp_path: Path,
    name_server: NameServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin.  MongoDB's driver asks in threads of its own."""
    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    check, refused = asks(what, url, tmp_path)
    ended: list[WarpError] = []

    def act() -> None:
        try:
            check()
        except refused as error:
            ended.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    assert wait_until(lambda: name_server.asked > 0, 10)
    thread.join(0.3)  # six times as long as above
    assert not ended
    name_server.answers.set()
    thread.join(10)
    assert ended


# -- a worker that is told to end


def said_at_the_end(directory: Path, name_server: NameServer) -> list[str]:
    """What a worker logs that is asked to stop while it looks for its servers."""
    assembly = Plugged(settings_between(directory, SERVERS[0], SERVERS[0]))
    ledger = MemoryLeaseStore()
    ledger.ensure([WorkUnit.stream("shop")])
    worker = Worker(ledger, assembly, Meters(), slots=1, pace=Pace(drain_limit=1.0))
    with capture_logs() as said:
        running = threading.Thread(target=worker.run)
        running.start()
        assert wait_until(lambda: name_server.asked > 0, 10)
        worker.drain()
        running.join(30)
        events = [line["event"] for line in said]
        name_server.answers.set()
        assert wait_until(lambda: not len(worker.holds), 10)
    return events


def test_a_worker_that_looks_for_its_servers_gives_its_units_back(
    tmp_path: Path, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Lookups(name_server, limit=0.2))
    said = said_at_the_end(tmp_path, name_server)
    assert "unit_released" in said
    assert "unit_not_handed_back" not in said


def test_without_a_limit_it_keeps_them_until_it_is_killed(
    tmp_path: Path, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    assert "unit_not_handed_back" in said_at_the_end(tmp_path, name_server)


def test_every_process_of_ours_has_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from warp import startup

    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # given back afterwards
    assert startup.exit_code(lambda: isinstance(socket.getaddrinfo, Lookups)) is True
    once = socket.getaddrinfo
    host_lookup.bound()
    assert socket.getaddrinfo is once
