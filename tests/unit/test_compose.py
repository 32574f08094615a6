"""The Compose file starts our programs as they want to be started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.cli import command as coordinator_command
from warp.config import Settings, load
from warp.testing.prometheus import promtool
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


def test_its_password_is_no_name() -> None:
    """Or our logs, which mask it wherever it stands, would speak of the database `***`."""
    there = COMPOSE["services"]["postgres"]["environment"]
    for name in OURS:
        secrets = settings_of(name).secrets
        assert there["POSTGRES_PASSWORD"] in secrets
        assert not {there["POSTGRES_USER"], there["POSTGRES_DB"], *COMPOSE["services"]} & {*secrets}


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


def mounts(name: str) -> dict[str, Path]:
    """What a service sees of this repository, by the place where it sees it."""
    found = {}
    for mount in COMPOSE["services"][name].get("volumes", []):
        here, place, *_ = mount.split(":")
        if here.startswith("."):
            found[place] = (DOCKER / here).resolve()
    return found


def test_what_is_mounted_is_there() -> None:
    seen = [path for name in COMPOSE["services"] for path in mounts(name).values()]
    assert len(seen) > 5
    assert [path for path in seen if not path.exists()] == []


def test_a_service_waits_only_for_those_that_tell_when_they_are_well() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        waited = service.get("depends_on", {})
        for name in waited:
            assert isinstance(waited, list) or "healthcheck" in services[name]


def test_grafana_finds_the_dashboards_and_the_prometheus() -> None:
    seen = mounts("grafana")
    provisioning = seen["/etc/grafana/provisioning"]
    [provider] = yaml.safe_load((provisioning / "dashboards/cartridge-warp.yaml").read_text())[
        "providers"
    ]
    assert len(list(seen[provider["options"]["path"]].glob("*.json"))) == 5
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert port in COMPOSE["services"][host]["ports"][0].split(":")


def test_prometheus_reads_its_rules_and_finds_every_container_of_the_fleet() -> None:
    seen = mounts("prometheus")
    file = seen["/etc/prometheus"] / "prometheus.yml"
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", str(file))
    told = yaml.safe_load(file.read_text())
    for rules in told["rule_files"]:
        folder, _, name = rules.rpartition("/")
        assert (seen[folder] / name).exists()
    scraped = {
        (name, found["port"])
        for job in told["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    assert scraped == {(name, settings_of(name).prometheus.port) for name in OURS}
