"""Processes forked from a nursery are started, told of, signalled and outlived as any other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from warp.own_process import wait_until
from workers.nursery import LOST, PARENT, Nursery, _Line

LIMIT = 30.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Nursery]:
    path = os.pathsep.join(p for p in sys.path if p)
    with Nursery.of_its_own(["nursed"], {**os.environ, "PYTHONPATH": path}) as nursery:
        yield nursery


def born(nursery: Nursery, *arguments: str, **environment: str) -> int:
    return nursery.start("nursed", arguments, {**os.environ, **environment}).wait(LIMIT)


def test_a_process_has_its_arguments_its_environment_and_a_session(
    shared: Nursery, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    assert born(shared, "tell", str(answer), "a b", PARENT, WORD="said") == 0
    assert json.loads(answer.read_text()) == {
        "parent": shared.pid,
        "session": True,
        "said": ["a b", str(shared.pid)],
        "word": "said",
    }


def test_how_a_process_ended_is_told(shared: Nursery) -> None:
    assert born(shared, "exit", "3") == 3
    assert born(shared, "raise") == 1


def test_a_signal_reaches_the_process_and_not_the_nursery(shared: Nursery) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = shared.start("nursed", ["wait", PARENT], os.environ)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.kill(shared.pid, signal.SIGTERM)  # as when all processes of a service are ended at once
        process.send_signal(number)
        assert process.wait(LIMIT) == -number
    assert born(shared, "exit", "0") == 0


def test_a_killed_nursery_is_replaced_and_its_children_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    with Nursery() as nursery:
        first = nursery.pid
        child = nursery.start("nursed", ["wait", PARENT], os.environ)
        seen = psutil.Process(child.pid)
        os.kill(first, signal.SIGKILL)
        assert child.wait(LIMIT) == LOST
        assert wait_until(lambda: not seen.is_running(), LIMIT)
        assert born(nursery, "exit", "5") == 5
        assert nursery.pid != first


def test_a_nursery_ends_when_nobody_asks_any_more() -> None:
    nursery = Nursery()
    process = psutil.Process(nursery.pid)
    nursery.close()
    assert not process.is_running()


def test_a_process_whose_end_is_told_in_one_breath_with_its_start_has_ended() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"started": 7}\n{"ended": 7, "code": 3}\n')
        born = _Line(ours, 1).ask_for({"module": "nursed"})
        assert (born.pid, born.poll()) == (7, 3)
