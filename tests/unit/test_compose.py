"""The Compose file starts our programs as they want to be started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.cli import command as coordinator_command
from warp.config import Settings, load
from workers.cli import command as worker_command

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {"coordinator": coordinator_command, "worker": worker_command}


def settings_of(name: str) -> Settings:
    service = COMPOSE["services"][name]
    program, *arguments = service["command"]
    assert program == f"warp-{name}"
    [mount] = service["volumes"]
    file, place, _ = mount.split(":")
    assert service["environment"]["CARTRIDGE_WARP_CONFIG"] == place
    environment = service["environment"] | {"CARTRIDGE_WARP_CONFIG": str(DOCKER / file)}
    return load(None, environment, OURS[name].make_context(program, arguments).params)


@pytest.mark.parametrize("name", OURS)
def test_our_programs_take_what_it_gives_them(name: str) -> None:
    settings = settings_of(name)
    assert settings.prometheus.enabled
    assert settings.prometheus.port == 8080
    assert settings.coordination.redis_url == "redis://redis:6379/0"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nothing_but_temporary_files(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert all(mount.endswith(":ro") for mount in service["volumes"])


def test_a_worker_may_be_scaled() -> None:
    """A published port or a name would be taken by the first one."""
    assert "ports" not in COMPOSE["services"]["worker"]
    assert "container_name" not in COMPOSE["services"]["worker"]


def test_no_port_is_open_to_the_network() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
