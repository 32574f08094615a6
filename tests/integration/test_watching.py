"""A fleet watched as people watch it: on a real terminal, in a real browser, through a pipe."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
from fix_servers import Server
from processes import Command, Fleet, eventually, fleet_between
from pymongo.database import Database

from warp.testing.browser import Browser
from warp.testing.terminal import Terminal

HOSTILE = "<img src=x onerror=document.title=String(1)>'\"&"


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    name = mongo_database.name
    with fleet_between(tmp_path, mongo.url, name, pg_database, redis_server.url) as fleet:
        fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
        fleet.insert("orders", 0, 500)
        fleet.source[HOSTILE].insert_one({"_id": 1, "n": 1})
        yield fleet


def port_of(coordinator: Command) -> int:
    eventually(lambda: "metrics_served" in coordinator.said(), "the page to be served")
    found = re.search(r'"metrics_served".*"port":(\d+)', coordinator.said())
    assert found is not None
    return int(found[1])


def test_a_takeover_is_seen_on_a_terminal_and_on_the_page(fleet: Fleet) -> None:
    """And a schema is paused, resumed, a worker drained, by keys alone."""
    coordinator = fleet.coordinator()
    workers = [fleet.worker(), fleet.worker()]
    fleet.until_running()
    eventually(lambda: len(fleet.ledger.workers()) == 2, "both workers to be there")
    name = fleet.database_name
    command = [sys.executable, "-m", "commands.cli", "top", "--config", str(fleet.config)]
    environment = {**os.environ, "TERM": "tmux-256color"}
    with Terminal([*command, "--every", "0.3"], environment=environment) as terminal:
        terminal.until("stream:", "● streaming", "caught up", "MiB", "2 workers")
        screen = terminal.screen()
        assert len(screen.splitlines()) <= 24
        before = fleet.owner()
        (victim,) = [worker for worker in workers if worker.owns(before)]
        victim.kill9()
        eventually(lambda: fleet.owner() not in ("", before), "another owner")
        terminal.until("takeover", "was gone", "1 worker,")

        the_page(fleet, port_of(coordinator), before)

        terminal.press("p")
        terminal.until(f"pause schema {name}?")
        terminal.press("y")
        terminal.until("‖ paused")
        eventually(lambda: marker_of(fleet)[0] == "paused", "the schema to be paused")
        terminal.press("r")
        terminal.until(f"resume schema {name}?")
        terminal.press("y")
        terminal.until("● streaming")
        terminal.press("Tab")
        terminal.until("━workers")
        terminal.press("d")
        terminal.until("drain worker")
        terminal.press("y")
        terminal.until("drains")
        (left,) = fleet.ledger.workers()
        assert left.slots == 0

        terminal.resize(160, 50)
        terminal.until("fence", "verified", str(marker_of(fleet)[1]))
        terminal.press("q")
        eventually(terminal.ended, "the screen to be left")
    assert coordinator.process.poll() is None


@pytest.mark.parametrize("exported", [{}, {"COLUMNS": "80", "LINES": "24"}])
def test_the_screen_follows_its_terminal_though_nobody_told_that_it_changed(
    exported: dict[str, str],
) -> None:
    """Nor what size a shell had exported when it changed."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent / "unit"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TERM": "tmux-256color", "PYTHONPATH": path, **exported}
    command = [sys.executable, str(here / "deaf_top.py")]
    with Terminal(command, environment=environment) as terminal:
        assert "verified" not in terminal.until("stream:", "q quit")
        terminal.resize(160, 50)
        terminal.until("verified")


def marker_of(fleet: Fleet) -> tuple[str, int]:
    query = "select phase, fence from cartridge_warp_metadata.sync_markers where kind = 'stream'"
    ((phase, fence),) = fleet.asked(query)
    return phase, fence


def the_page(fleet: Fleet, port: int, gone: str) -> None:
    base = f"http://127.0.0.1:{port}/"
    with Browser() as browser:
        browser.open(base)
        browser.until("document.querySelector('#units tbody tr') !== null")
        browser.until("document.querySelector('#news li b') !== null")
        shown = browser.evaluate("document.body.innerText")
        assert f"stream:{fleet.database_name}" in shown
        assert f"{gone} (fence" in shown
        assert HOSTILE in shown
        assert fleet.owner() in shown
        assert browser.evaluate("document.images.length") == 0
        assert browser.evaluate("document.title") == "cartridge-warp"
        # What the page may not do is refused by the browser itself.
        browser.evaluate("document.body.append(document.createElement('img'))")
        browser.evaluate("document.images[0].src = 'http://127.0.0.1:1/x.png'")
        browser.until("performance.now() > 0")
        asked = {url for url in browser.requests if not url.startswith((base, "data:", "about:"))}
        assert asked <= {"http://127.0.0.1:1/x.png"}
        complaints = [said for said in browser.complaints if "x.png" not in said]
        assert complaints == []


def test_through_a_pipe_it_is_text_look_after_look(fleet: Fleet) -> None:
    before = run_top(fleet, "--looks", "1")
    assert "nothing has run yet" in before
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    said = run_top(fleet, "--looks", "2", "--every", "0.3")
    assert said.count(f"stream:{fleet.database_name}") == 2
    assert "rows/s" in said
    assert "\x1b" not in said
    told = [json.loads(line) for line in run_top(fleet, "--looks", "2", "--json").splitlines()]
    assert [look["caught_up"] for look in told] == [True, True]
    assert told[0]["workers"][0]["memory"] > 1 << 20


def run_top(fleet: Fleet, *arguments: str) -> str:
    if not fleet.config.exists():
        fleet.start("commands.cli", "config", "show")  # it writes the configuration
    done = programs.run("commands.cli", "top", "--config", str(fleet.config), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
