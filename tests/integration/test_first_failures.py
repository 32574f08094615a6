"""What a person meets first when something is wrong: one line, with a code, and soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
from fix_servers import Server
from processes import Fleet, fleet_between
from pymongo.database import Database

from warp.own_process import LOCALHOST, free_port
from warp.testing.servers import RedisServer

SOON = 20.0  # seconds from start to exit; six on a machine that does nothing else
MODULES = ("coordinator.cli", "workers.cli", "commands.cli")


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
        fleet.insert("orders", 0, 10)
        yield fleet


def ended(fleet: Fleet, module: str) -> tuple[int, str]:
    """Exit code and the one line that a command ends with; anything else fails."""
    began = time.monotonic()
    command = fleet.start(module)
    code = command.process.wait(timeout=60)
    took = time.monotonic() - began
    # Warnings may come first, as JSON lines; the line for people is the last one.
    lines = [line for line in command.said().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, command.said()
    assert took < SOON, f"{took:.1f} s"
    return code, lines[0]


@pytest.mark.parametrize("module", MODULES)
def test_no_redis_there(fleet: Fleet, module: str) -> None:
    address = f"{LOCALHOST}:{free_port()}"
    fleet.settings["coordination"]["redis_url"] = f"redis://{address}/0"
    code, line = ended(fleet, module)
    assert code == 1
    assert line.startswith("WARP-230")
    assert address in line


@pytest.mark.parametrize("module", MODULES)
def test_a_wrong_redis_password(
    fleet: Fleet, module: str, start_server: Callable[[Any], Any]
) -> None:
    own = start_server(RedisServer(password="right-secret"))
    url = own.url.replace("right-secret", "wrong-secret")
    fleet.settings["coordination"]["redis_url"] = url
    code, line = ended(fleet, module)
    assert code == 1
    assert line.startswith("WARP-230")
    assert "password" in line.lower()
    assert "secret" not in line


@pytest.mark.parametrize("module", MODULES)
def test_a_port_that_is_taken(fleet: Fleet, module: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": port}
        code, line = ended(fleet, module)
    assert code == 1
    assert line.startswith("WARP-600")
    assert str(port) in line


@pytest.mark.parametrize("module", MODULES)
def test_a_mistake_in_the_configuration(fleet: Fleet, module: str) -> None:
    fleet.settings["shcemas"] = []
    code, line = ended(fleet, module)
    assert code == 2
    assert line.startswith("WARP-100")
    assert "schemas" in line


@pytest.mark.parametrize("module", MODULES)
def test_a_file_that_is_not_there(module: str, tmp_path: Path) -> None:
    run = programs.run(module, "--config", str(tmp_path / "none.yaml"))
    assert run.returncode == 2
    assert run.stderr.startswith("WARP-100")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["coordinator.cli", "workers.cli"])
def test_no_configuration_at_all(module: str) -> None:
    run = programs.run(module)
    assert run.returncode == 2
    assert run.stderr.startswith("WARP-100")
    assert "--source" in run.stderr or "--config" in run.stderr


@pytest.mark.parametrize("module", ["coordinator.cli", "workers.cli"])
def test_no_redis_url(fleet: Fleet, module: str) -> None:
    del fleet.settings["coordination"]["redis_url"]
    code, line = ended(fleet, module)
    assert code == 2
    assert "--redis" in line


@pytest.mark.parametrize("module", ["coordinator.cli", "commands.cli"])
@pytest.mark.parametrize("end", ["source", "destination"])
def test_no_server_at_one_end(fleet: Fleet, module: str, end: str) -> None:
    address = f"{LOCALHOST}:{free_port()}"
    scheme = {"source": "mongodb", "destination": "postgresql"}[end]
    fleet.settings[end]["connection_string"] = f"{scheme}://user:hidden-secret@{address}/db"
    code, line = ended(fleet, module)
    assert code == 1
    assert line.startswith({"source": "WARP-210", "destination": "WARP-220"}[end])
    assert address in line
    assert "hidden-secret" not in line


@pytest.mark.parametrize("module", ["workers.cli", "coordinator.cli"])
def test_a_warehouse_that_lets_nobody_in(fleet: Fleet, module: str) -> None:
    # A database that is not there is refused like a login that is wrong.
    fleet.settings["destination"]["connection_string"] = fleet.pg_url + "_not_there"
    code, line = ended(fleet, module)
    assert code == 1
    assert line.startswith("WARP-520")
