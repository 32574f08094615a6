"""The page of the fleet: what it serves, to how many, and what it keeps a browser from doing."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from typing import Any

import prometheus_client  # noqa: F401  imported before any server sets the variable: in memory
import pytest
from fleet_scene import HOSTILE, NOW, fleet

from coordinator.web import site as web
from coordinator.web.looking import Lookout
from coordinator.web.site import Site
from coordinator.web.told import MOST_LINES, told
from warp.errors import LedgerUnavailable
from warp.fleet.picture import Picture
from warp.fleet.view import FleetView, UnitView
from warp.metrics import MetricsServer
from warp.model import Headroom, Phase, UnitKind
from warp.own_process import wait_until


class Scripted:
    def __init__(self) -> None:
        self.looks = 0
        self.trouble: LedgerUnavailable | None = None

    def look(self) -> FleetView:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return fleet(rows=20 * self.looks, now=NOW + 2 * self.looks)


@pytest.fixture
def seen() -> Scripted:
    return Scripted()


@pytest.fixture
def site(seen: Scripted) -> Iterator[Site]:
    made = Site(seen.look, about=lambda: {"coordinator": {"id": "c", "leading": True}}, every=0.05)
    yield made
    made.close()


@pytest.fixture
def server(site: Site) -> Iterator[MetricsServer]:
    with MetricsServer(0, host="127.0.0.1", sites=site.answers()) as server:
        yield server


def got(server: MetricsServer, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    return urllib.request.urlopen(request, timeout=30)


class Events:
    """A browser that listens."""

    def __init__(self, server: MetricsServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._connection.request("GET", "/events")
        self.answer = self._connection.getresponse()

    def next(self) -> tuple[str, Any]:
        name = "message"
        while True:
            line = self.answer.readline().decode()
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                return name, json.loads(line[6:])

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def test_the_page_and_its_parts_forbid_everything_they_do_not_need(server: MetricsServer) -> None:
    for path, sort in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        with got(server, path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert answer.headers["Content-Type"].startswith(sort)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


def test_the_page_stands_beside_metrics_and_health(server: MetricsServer) -> None:
    for path in ("/metrics", "/healthz", "/readyz", "/?a=b"):
        with got(server, path) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_the_page_is_read_only(server: MetricsServer, method: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        got(server, "/", method)
    assert caught.value.code == 501
    caught.value.close()


def test_the_files_ask_for_nothing_from_elsewhere_and_make_no_markup_of_text() -> None:
    for name in ("page.html", "page.js", "page.css"):
        text = (resources.files("coordinator.web") / name).read_text()
        # The name of a namespace, which nobody asks for.
        text = text.replace("http://www.w3.org/2000/svg", "")
        for forbidden in ("http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacent",
                          "document.write", "eval(", "@import", "style=", "onclick"):  # fmt: skip
            assert forbidden not in text, (name, forbidden)


def test_whoever_listens_is_told_the_fleet_with_rates(server: MetricsServer) -> None:
    events = Events(server)
    assert events.answer.headers["Content-Type"].startswith("text/event-stream")
    events.next()
    name, said = events.next()
    assert name == "message"
    assert said["coordinator"] == {"id": "c", "leading": True}
    assert said["rate"] == pytest.approx(110)
    stream = next(line for line in said["lines"] if line["key"] == "stream:shop")
    assert (stream["quarantined"], stream["lag"]) == (3, 0.4)
    assert str(HOSTILE) in [table["table"] for table in said["tables"]]
    assert said["news"][0]["sort"] == "takeover"
    events.close()


def test_a_hostile_name_ends_no_event(server: MetricsServer) -> None:
    events = Events(server)
    for _ in range(3):  # a line break in a name would have cut the JSON
        assert events.next()[1]["lines_in_all"] == 3
    events.close()


def test_nobody_looks_while_nobody_listens(
    server: MetricsServer, site: Site, seen: Scripted
) -> None:
    assert seen.looks == 0
    events = Events(server)
    events.next()
    events.close()
    assert wait_until(lambda: site.lookout.watchers == 0, 30)
    assert wait_until(lambda: not any(t.name == "lookout" for t in threading.enumerate()), 30)
    events = Events(server)  # and again
    assert events.next()[0] == "message"
    events.close()


def test_many_listeners_share_one_look(seen: Scripted) -> None:
    threads = set()

    def look() -> FleetView:
        threads.add(threading.get_ident())
        return seen.look()

    lookout = Lookout(look, every=0.05)
    assert all(lookout.enter(3) for _ in range(3))
    assert not lookout.enter(3)
    first = lookout.after(0, 30)
    assert first is not None
    assert {lookout.after(0, 30) is not None for _ in range(3)} == {True}
    assert len(threads) == 1
    lookout.close()
    assert lookout.after(10**9, 30) is None
    assert not lookout.enter(9)


def test_too_many_listeners_are_refused(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MOST_WATCHERS", 1)
    events = Events(server)
    events.next()
    with pytest.raises(urllib.error.HTTPError) as caught:
        got(server, "/events")
    assert caught.value.code == 503
    caught.value.close()
    events.close()


def test_a_fleet_that_cannot_be_seen_is_told_without_secrets(
    server: MetricsServer, seen: Scripted
) -> None:
    seen.trouble = LedgerUnavailable("no Redis at redis://u:hunter2@h", place="h")
    events = Events(server)
    name, said = events.next()
    assert name == "trouble"
    assert "no Redis" in said["error"]
    assert "hunter2" not in said["error"]
    seen.trouble = None
    assert wait_until(lambda: events.next()[0] == "message", 30)
    events.close()


def test_a_fleet_of_thousands_is_told_by_its_worst() -> None:
    well = [
        UnitView(f"stream:s{n}", UnitKind.STREAM, f"s{n}", (), Phase.STREAMING, "leased", "w")
        for n in range(2 * MOST_LINES)
    ]
    left = Headroom("its log", ratio=0.5, seconds=7200.0)
    bad = UnitView("stream:zz", UnitKind.STREAM, "zz", (), Phase.FAILED, "dead", headroom=left)
    said = told(Picture.of(FleetView(units=(*well, bad))))
    assert len(said["lines"]) == MOST_LINES
    assert said["lines_in_all"] == 2 * MOST_LINES + 1
    assert said["lines"][0]["key"] == "stream:zz"
    assert json.loads(json.dumps(said))["lines"][0]["headroom"] == "2 h"
