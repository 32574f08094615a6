"""A worker that falls asleep inside a transaction, and wakes when another has its unit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from fleet import Fleet, Worker

# The server would end a transaction that sleeps for 10 s, and on a busy machine it may: what these
# tests are about is the zombie that the server lets live.
PATIENT: Final = {"idle_in_transaction_session_timeout": "10m"}
PATIENT_MARIADB: Final = {"idle_transaction_timeout": "10m"}

# For `fleet.broken`: whatever the marker says, a batch is written.
WITHOUT_COMPARE_AND_SET: Final = """
import warp.sql
whole = warp.sql.load
guard = "and fence = %(fence)s and batch = %(batch)s - 1"
def load(dialect, name):
    text = whole(dialect, name)
    if name == "advance_marker":
        assert guard in text, text
        return text.replace(guard, "")
    return text
warp.sql.load = load
"""


def successor_of(fleet: Fleet, victim: Worker, struck: float) -> float:
    """Seconds from the strike to the first commit of somebody else."""

    def commits() -> list[float]:
        return [at for at, who, _, _ in fleet.advances() if at > struck and not victim.is_(who)]

    fleet.wait_for("another worker to carry the stream on", lambda: bool(commits()))
    return commits()[0] - struck


@contextmanager
def zombie(fleet: Fleet, environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """A worker that fell asleep inside a transaction of the stream, before its first statement.

    Its own look at its lease is behind it, so only the destination can stop it.
    """
    fleet.put(0, "first")
    fleet.coordinator()
    # Somebody else reads the snapshot, so that only rows of the stream are left to fall asleep on.
    reader = fleet.worker(environment)
    fleet.wait_for("the snapshot to be complete", lambda: fleet.settled("orders"))
    reader.finish()
    fault = {"CARTRIDGE_WARP_FAULT": "before_marker_of_rows:stop"}
    sleeper = fleet.worker({**fault, **(environment or {})})
    asleep = 0

    def write_until_it_sleeps() -> bool:
        nonlocal asleep
        asleep += 1
        fleet.put(asleep, "more")
        return sleeper.stopped()

    fleet.wait_for("the worker to fall asleep", write_until_it_sleeps)
    heir = fleet.worker(environment)
    struck = time.time()
    fleet.put(-1, "for the heir")
    successor_of(fleet, sleeper, struck)
    sleeper.wake()
    yield sleeper
    heir.finish()


def it_writes_nothing(fleet: Fleet, sleeper: Worker) -> None:
    fleet.wait_for(
        "the destination to refuse the zombie",
        lambda: any(e["status"] == "lost" for e in sleeper.said("unit_released")),
    )
    fleet.catch_up(["orders"])
    assert fleet.differences(["orders"]) == []
    assert fleet.faults() == []


def the_audit_finds_it(fleet: Fleet) -> None:
    fleet.wait_for("the audit to find a fault", lambda: bool(fleet.faults()))
    said = " ".join(fleet.faults())
    assert "a write by somebody who had not adopted the unit last" in said
    assert "a change applied by two transactions" in said
