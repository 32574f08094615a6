"""The command line: flags in either place, exit codes, and nothing but data on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fleet_scene
import pytest
import structlog
import yaml
from click.testing import CliRunner, Result
from config_fakes import fake_connectors  # noqa: F401  a fixture

from commands import status, validate, verify
from commands.cli import cli
from dashboards import plain
from warp.config import RunMode, Settings, load
from warp.errors import DestinationRefused, SourceUnavailable
from warp.fleet.view import FleetView, WorkerView
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    SetAside,
    TableId,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.testing.memory import (
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "examples" / "config.yaml")
BROKEN = str(ROOT / "tests" / "cases" / "config" / "broken" / "bad_cron.yaml")
PASSWORD = "hunter2-geheim"

pytestmark = pytest.mark.usefixtures("fake_connectors")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CONFIG", "SOURCE", "DESTINATION", "SCHEMA", "MODE", "REDIS_URL"):
        monkeypatch.delenv(f"CARTRIDGE_WARP_{name}", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command without a subcommand was asked to run."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("commands.single")

    def run(settings: Settings, **options: Any) -> int:
        calls.append({"settings": settings, **options})
        return 0

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "commands.single", module)
    return calls


def test_the_plan_s_single_mode_command_line_runs_as_it_is_written(
    started: list[dict[str, Any]],
) -> None:
    result = run(
        *("--mode", "single"),
        *("--source", "mongodb://localhost:27017/ecommerce"),
        *("--destination", "postgresql://localhost:5432/warehouse"),
        *("--schema", "products"),
        *("--config", CONFIG),
    )

    assert result.exit_code == 0, result.output
    (call,) = started
    assert call["settings"].mode is RunMode.SINGLE
    assert [s.name for s in call["settings"].schemas] == ["products"]
    assert (call["once"], call["processes"], call["slots"]) == (False, 1, 8)


def test_the_plan_s_multi_mode_command_line_runs_as_it_is_written(
    started: list[dict[str, Any]],
) -> None:
    result = run("--mode", "multi", "--config", str(ROOT / "examples/multi-schema-config.json"))

    assert result.exit_code == 0, result.output
    assert [s.name for s in started[0]["settings"].schemas] == ["products", "orders"]


def test_processes_slots_and_once_reach_the_run(started: list[dict[str, Any]]) -> None:
    result = run("--config", CONFIG, "--once", "--processes", "2", "--slots", "3", "--port", "0")

    assert result.exit_code == 0, result.output
    assert (started[0]["once"], started[0]["processes"], started[0]["slots"]) == (True, 2, 3)
    assert started[0]["settings"].prometheus.port == 0


@pytest.mark.parametrize("command", [(), ("validate",), ("status",), ("config", "show")])
def test_a_broken_configuration_is_one_line_on_stderr_and_exit_code_2(
    command: tuple[str, ...],
) -> None:
    result = run("--config", BROKEN, *command)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("WARP-100 schemas[1].schedule: expected a cron expression")
    assert result.stderr.count("\n") == 1


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("--no-such-flag").exit_code == 2
    assert run("no-such-command").exit_code == 2
    assert run("--config", CONFIG, "--slots", "0").exit_code == 2


def test_nothing_given_prints_help_to_stderr() -> None:
    result = run()

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: cartridge-warp" in result.stderr.replace("cli", "cartridge-warp")


def test_help_names_every_command_and_the_version_is_told() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for command in ("config", "demo", "pause", "resume", "resync", "revive", "status", "validate"):
        assert f"\n  {command} " in result.stdout
    assert "cartridge-warp, version" in run("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", CONFIG, "--schema", "orders", "config", "show", "--json"),
        ("config", "show", "--json", "--config", CONFIG, "--schema", "orders"),
        ("--schema", "products", "config", "show", "--config", CONFIG, "--schema=orders", "--json"),
    ],
)
def test_flags_stand_before_or_after_a_command_and_the_nearer_win(
    arguments: tuple[str, ...],
) -> None:
    shown = {v["path"]: v for v in json.loads(run(*arguments).stdout)["values"]}

    assert shown["mode"]["value"] == "single"
    assert shown["schemas[1].name"] == {
        "path": "schemas[1].name",
        "value": "orders",
        "origin": "config.yaml:15",
    }
    assert "schemas[0].name" not in shown


def test_config_show_says_who_gave_each_value_and_is_yaml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARTRIDGE_WARP_COORDINATION__SLOTS", "3")
    source = f"mongodb://reader:{PASSWORD}@db/shop"

    result = run("config", "show", "--config", CONFIG, "--source", source)

    assert result.exit_code == 0
    lines = dict(line.split("  # ") for line in result.stdout.splitlines())
    told = {value.split(":")[0]: origin for value, origin in lines.items()}
    assert told["source.database"] == "--source"
    assert told["coordination.slots"] == "CARTRIDGE_WARP_COORDINATION__SLOTS"
    assert told["destination.type"] == "config.yaml:8"
    assert told["write_batch_size"] == "default"
    values = yaml.safe_load(result.stdout)
    assert values["source.connection_string"] == "mongodb://reader:***@db/shop"
    assert values["schemas[1].schedule"] == "*/15 * * * *"
    assert PASSWORD not in result.output


# Validate and status, over connectors in memory


class InMemory:
    """An assembly whose parts may be out of order."""

    def __init__(self, source: Exception | None = None, destination: Exception | None = None):
        self._problems = {"source": source, "destination": destination}
        self._warehouse = MemoryDestinationOptions()
        self.warehouse: MemoryWarehouse = self._warehouse.warehouse

    def knows(self, schema: str) -> bool:
        return True

    def sharing(self) -> tuple[str, ...]:
        return ()

    def follows(self, schema: str) -> str:
        return ""

    def selection(self, schema: str) -> TableSelection:
        settings = load(CONFIG)
        return settings.resolve(schema, [])

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        source = MemorySource(MemorySourceOptions(), self.selection(schema))
        self._trouble(source, "source")
        return source

    def destination(self, schema: str) -> DestinationConnector:
        return MemoryDestination(self._warehouse, self.selection(schema))

    def bookkeeping(self) -> DestinationConnector:
        def nothing(table: TableId) -> None: ...

        destination = MemoryDestination(self._warehouse, nothing)
        self._trouble(destination, "destination")
        return destination

    def _trouble(self, connector: Any, end: str) -> None:
        def check() -> None:
            if problem := self._problems[end]:
                raise problem

        connector.check = check


Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out


def test_validate_reports_every_check_and_succeeds(printed: Printed) -> None:
    assert validate.run(load(CONFIG), as_json=True, assembly=InMemory()) == 0

    report = json.loads(printed())
    assert report["ok"]
    assert [c["what"] for c in report["checks"]] == [
        "configuration",
        "source, schema products",
        "source, schema orders",
        "destination",
        "ledger",
    ]


def test_validate_goes_on_after_a_failure_and_fails(printed: Printed) -> None:
    assembly = InMemory(
        source=SourceUnavailable("expected a primary, found none"),
        destination=DestinationRefused("expected the right to create schemas; grant it"),
    )

    assert validate.run(load(CONFIG), as_json=True, assembly=assembly) == 1

    checks = {c["what"]: c for c in json.loads(printed())["checks"]}
    assert checks["source, schema orders"]["found"] == "WARP-210 expected a primary, found none"
    assert checks["destination"]["found"].startswith("WARP-520")
    assert checks["ledger"]["ok"]


def test_validate_for_people_names_what_failed(printed: Printed) -> None:
    assembly = InMemory(source=SourceUnavailable("no [primary] found"))

    assert validate.run(load(CONFIG), as_json=False, assembly=assembly) == 1

    text = printed()
    assert "failed  source, schema products" in text
    assert "WARP-210 no [primary] found" in text  # not taken for markup


def test_a_status_of_nothing_yet_is_not_caught_up(printed: Printed) -> None:
    assert status.run(load(CONFIG), as_json=True, assembly=InMemory()) == 0

    shown = json.loads(printed())
    assert (shown["units"], shown["workers"], shown["caught_up"]) == ([], [], False)
    assert status.run(load(CONFIG), as_json=False, assembly=InMemory()) == 0
    assert printed() == "nothing has run yet\n"


def test_a_status_tells_the_rows_in_quarantine(printed: Printed) -> None:
    assembly = InMemory()
    table = TableId("shop", "products")
    metadata = assembly.bookkeeping().metadata()
    metadata.prepare()
    metadata.register(WorkUnit.of_table("products", table), position=None, phase=Phase.STREAMING)
    metadata.register(WorkUnit.stream("products"), position=Position("0"), phase=Phase.STREAMING)
    row = QuarantinedRow(table, "{}", Operation.CREATE, "{}", "too long", "22001")
    assembly.warehouse.aside.append(SetAside(1, "products", "stream:products", row))

    assert status.run(load(CONFIG), as_json=True, assembly=assembly) == 0
    (shown,) = json.loads(printed())["tables"]
    assert (shown["table"], shown["quarantined"], shown["deferred"]) == (str(table), 1, 0)
    assert status.run(load(CONFIG), as_json=False, assembly=assembly) == 0
    assert f"rows in quarantine: 1 of {table}" in printed()


def test_a_status_tells_the_rows_that_wait_for_others(printed: Printed) -> None:
    assembly = InMemory()
    table = TableId("shop", "products")
    metadata = assembly.bookkeeping().metadata()
    metadata.prepare()
    metadata.register(WorkUnit.of_table("products", table), position=None, phase=Phase.STREAMING)
    metadata.register(WorkUnit.stream("products"), position=Position("0"), phase=Phase.STREAMING)
    assembly.warehouse.deferred[table] = 3

    assert status.run(load(CONFIG), as_json=True, assembly=assembly) == 0
    (shown,) = json.loads(printed())["tables"]
    assert (shown["deferred"], shown["quarantined"]) == (3, 0)
    assert status.run(load(CONFIG), as_json=False, assembly=assembly) == 0
    assert f"rows that wait for others: 3 of {table}" in printed()


def test_a_status_for_people_has_a_line_per_unit(capsys: pytest.CaptureFixture[str]) -> None:
    unit = fleet_scene.unit(
        "stream:[web]",
        phase=Phase.FAILED,
        state="dead",
        fence=7,
        rows=1234567,
        lag_seconds=2.25,
        position="8265" * 50,
    )
    fleet = FleetView(units=(unit,), workers=(WorkerView("host:1:ab", 8, 1, 3.0),))

    plain.console().print(plain.of_fleet(fleet))

    text = capsys.readouterr().out
    assert "stream:[web]" in text
    assert "1,234,567" in text
    assert "not caught up" in text
    assert "8265" * 50 not in text


def test_a_status_tells_which_slot_of_its_schedule_a_table_was_polled_for_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = fleet_scene.unit("stream:web")
    poll = fleet_scene.unit("poll:shop:shop.orders", phase=Phase.IDLE, slot=1_800_000_000.0)
    plain.console().print(plain.of_fleet(FleetView(units=(stream, poll))))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "poll:" in line]
    assert "2027-01-15 08:00 UTC" in line


def test_a_rate_of_comparing_is_for_this_process_and_wins_over_the_configuration() -> None:
    refused = run("verify", "--config", CONFIG, "--rate", "500")
    assert refused.exit_code == 2
    assert "--here" in refused.output
    configured = TableSettings(TableId("shop", "orders"), TableId("shop", "orders"), "shop")
    slowed = verify._AtRate(lambda table: replace(configured, verify_rate=9.0), 500.0)
    assert slowed(configured.table) == replace(configured, verify_rate=500.0)
