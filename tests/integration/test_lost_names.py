"""Processes of ours that are told to end while they ask for a host that no name server knows."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_servers import Server
from processes import Command, Fleet, eventually, fleet_between

from warp.model import WorkUnit

NOWHERE = "warehouse.invalid"


@pytest.fixture
def fleet(tmp_path: Path, mongo: Server, redis_server: Server) -> Iterator[Fleet]:
    url = f"postgresql://u:p@{NOWHERE}/w"
    with fleet_between(tmp_path, mongo.url, "shop", url, redis_server.url) as fleet:
        fleet.ledger.ensure([WorkUnit.stream("shop")])
        yield fleet


def askers(command: Command) -> set[int]:
    """The processes that have asked for the warehouse."""
    said = command.said().splitlines()
    return {int(line.split()[-1]) for line in said if line.startswith("asked by ")}


def test_a_worker_whose_warehouse_has_no_address_ends_in_order(fleet: Fleet) -> None:
    worker = fleet.start("name_server_gone", NOWHERE, "workers.cli", "--processes", "1")
    eventually(lambda: askers(worker) - {worker.process.pid}, "a unit that waits for an address")
    assert worker.stop(signal.SIGTERM) == 0
    said = worker.said()
    assert "unit_released" in said
    assert "unit_not_handed_back" not in said
    assert "process_killed" not in said
    assert fleet.owner() == ""


@pytest.mark.parametrize("module", ["workers.cli", "coordinator.cli"])
def test_a_process_told_to_end_at_its_start_listens(fleet: Fleet, module: str) -> None:
    """As the first process of a container it would be killed by its successor otherwise: no signal
    ends that unless it listens."""
    command = fleet.start("name_server_gone", NOWHERE, module)
    eventually(lambda: askers(command), "the first look at both ends")
    code = command.stop(signal.SIGTERM)
    assert code in (0, 1)  # the coordinator says that its warehouse is away
    assert len(askers(command)) == 1
