"""`quarantine` and `errors` over a warehouse in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from config_fakes import fake_connectors  # noqa: F401  a fixture

from commands import errors, quarantine
from commands.cli import cli
from warp import stored
from warp.assembly import nothing
from warp.config import Settings, load
from warp.errors import ConfigError
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    Aside,
    Choice,
    Column,
    Kind,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    SetAside,
    TableId,
    TableSelection,
    WorkUnit,
)
from warp.testing.memory import MemoryDestination, MemoryDestinationOptions, MemoryWarehouse

CONFIG = str(Path(__file__).parents[2] / "examples" / "config.yaml")
PRODUCTS = TableId("shop", "products")
HOSTILE = TableId('sh"op', "x'; drop table y; --\x1b[31m")
KINDS = stored.kinds_of([Column("id", Kind.INT64)])

pytestmark = pytest.mark.usefixtures("fake_connectors")

Read = Callable[[], Any]


@dataclass
class InMemory:
    """An assembly that only knows a warehouse."""

    warehouse: MemoryWarehouse = field(default_factory=MemoryWarehouse)

    def knows(self, schema: str) -> bool:
        return True

    def sharing(self) -> tuple[str, ...]:
        return ()

    def follows(self, schema: str) -> str:
        return ""

    def selection(self, schema: str) -> TableSelection:
        return nothing

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        raise AssertionError("no source is asked for")

    def destination(self, schema: str) -> DestinationConnector:
        return MemoryDestination(MemoryDestinationOptions(warehouse=self.warehouse), nothing)

    def bookkeeping(self) -> DestinationConnector:
        return self.destination("")


def aside(id: int, table: TableId = PRODUCTS, schema: str = "products", **more: Any) -> SetAside:
    reason = more.pop("reason", "value too long")
    kinds = more.pop("kinds", KINDS)
    row = QuarantinedRow(
        table,
        f'{{"id": {id}}}',
        Operation.CREATE,
        f'{{"id": {id}}}',
        reason,
        "SQLSTATE 22001",
        Position("p1"),
        version=5,
        kinds=kinds,
    )
    return SetAside(id, schema, f"stream:{schema}", row, **more)


@pytest.fixture
def assembly() -> InMemory:
    assembly = InMemory(MemoryWarehouse(prepared=True))
    assembly.warehouse.aside = [
        aside(1, at=1.0),
        aside(2, state=Aside.REPLAYED, at=2.0),
        aside(3, kinds={}, at=3.0),
        aside(4, HOSTILE, "elsewhere", reason="\x1b]0;owned\x07 no form", at=4.0),
        aside(5, at=5.0),
    ]
    return assembly


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("CONFIG", "SOURCE", "DESTINATION", "SCHEMA", "MODE", "REDIS_URL"):
        monkeypatch.delenv(f"CARTRIDGE_WARP_{name}", raising=False)
    return load(CONFIG)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    return lambda: json.loads(capsys.readouterr().out)


def states(assembly: InMemory) -> dict[int, Aside]:
    return {row.id: row.state for row in assembly.warehouse.aside}


# ---------------------------------------------------------------- looking


def test_a_list_holds_what_a_person_has_to_decide(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    choice = Choice(states=(Aside.WAITING, Aside.REPLAYING))
    quarantine.list_rows(settings, choice, limit=3, as_json=True, assembly=assembly)
    shown = read()
    assert [row["id"] for row in shown["rows"]] == [1, 3, 4]
    assert shown["more"]
    assert shown["rows"][0] == {
        "id": 1,
        "state": "waiting",
        "schema": "products",
        "table": "shop.products",
        "key": '{"id": 1}',
        "column": "",
        "operation": "create",
        "version": 5,
        "code": "SQLSTATE 22001",
        "reason": "value too long",
        "unit": "stream:products",
        "position": "p1",
        "at": "1970-01-01T00:00:01.000+00:00",
        "tries": 0,
        "tried_at": None,
        "last_error": "",
    }


def test_a_list_for_people_tells_a_terminal_nothing_to_obey(
    settings: Settings, assembly: InMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    quarantine.list_rows(settings, Choice(), limit=10, as_json=False, assembly=assembly)
    printed = capsys.readouterr().out
    assert "drop table y" in printed
    assert r"\x1b]0;owned\x07 no form" in printed
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 6


def test_a_row_is_shown_whole(settings: Settings, assembly: InMemory, read: Read) -> None:
    quarantine.show_row(settings, 1, as_json=True, assembly=assembly)
    shown = read()
    assert (shown["row"], shown["kinds"], shown["partial"]) == ('{"id": 1}', {"id": "int64"}, False)
    with pytest.raises(ConfigError, match="found 77"):
        quarantine.show_row(settings, 77, as_json=True, assembly=assembly)


def test_before_the_first_start_there_is_nothing_and_nothing_is_created(
    settings: Settings, read: Read
) -> None:
    assembly = InMemory()
    quarantine.list_rows(settings, Choice(), limit=9, as_json=True, assembly=assembly)
    assert read() == {"rows": [], "more": False}
    errors.run(settings, Choice(), limit=9, as_json=True, assembly=assembly)
    assert read() == {"errors": [], "more": False}
    assert not assembly.warehouse.prepared


def test_the_error_log_is_told_with_its_findings(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    metadata = assembly.bookkeeping().metadata()
    for n in range(3):
        metadata.log_error(
            code="WARP-510",
            error_class="SourceRefused",
            message=f"no right {n}",
            unit="stream:products",
            action="unit stopped until a person acts",
        )
    errors.run(settings, Choice(code="WARP-510"), limit=2, as_json=True, assembly=assembly)
    shown = read()
    assert [line["message"] for line in shown["errors"]] == ["no right 2", "no right 1"]
    assert shown["more"]
    line = shown["errors"][0]
    assert (line["schema"], line["table"], line["cells"]) == ("products", None, None)
    assert line["last_at"] >= line["at"] > "2000"


# ---------------------------------------------------------------- deciding


def test_a_replay_without_apply_tells_what_it_would_do_and_does_nothing(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    before = states(assembly)
    quarantine.replay_rows(settings, Choice(), apply=False, as_json=True, assembly=assembly)
    told = read()
    assert (told["applied"], told["replay"]) == (False, 2)
    assert told["tables"] == [{"schema": "products", "table": "shop.products", "rows": 2}]
    assert {row["id"] for row in told["left_out"]} == {3, 4}
    assert states(assembly) == before
    assert assembly.warehouse.markers == {}
    assert assembly.warehouse.errands == {}


def test_a_replay_marks_rows_and_the_marker_of_their_unit(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    quarantine.replay_rows(settings, Choice(), apply=True, as_json=True, assembly=assembly)
    told = read()
    assert (told["applied"], told["replay"]) == (True, 2)
    assert states(assembly) == {
        1: Aside.REPLAYING,
        2: Aside.REPLAYED,
        3: Aside.WAITING,
        4: Aside.WAITING,
        5: Aside.REPLAYING,
    }
    unit = WorkUnit.of_replay("products", PRODUCTS)
    assert assembly.warehouse.markers[unit.id].phase is Phase.PLANNED


def test_rows_that_cannot_be_replayed_are_named_with_their_reason(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    choice = Choice(ids=(2, 3, 4))
    quarantine.replay_rows(settings, choice, apply=True, as_json=True, assembly=assembly)
    why = {row["id"]: row["why"] for row in read()["left_out"]}
    assert why[2] == "it is replayed already"
    assert "did not keep the kinds" in why[3]
    assert "'elsewhere' is not configured" in why[4]
    assert assembly.warehouse.markers == {}


def test_an_id_that_is_not_there_stops_the_command_before_it_does_anything(
    settings: Settings, assembly: InMemory
) -> None:
    before = states(assembly)
    for decide in (quarantine.replay_rows, quarantine.discard_rows):
        with pytest.raises(ConfigError, match="found 78, 99"):
            decide(settings, Choice(ids=(1, 99, 78)), apply=True, as_json=True, assembly=assembly)
    assert states(assembly) == before


def test_a_discard_is_a_dry_run_first_and_then_gives_up_what_was_chosen(
    settings: Settings, assembly: InMemory, read: Read
) -> None:
    before = states(assembly)
    choice = Choice(reason="no form")
    quarantine.discard_rows(settings, choice, apply=False, as_json=True, assembly=assembly)
    assert read()["discard"] == 1
    assert states(assembly) == before
    quarantine.discard_rows(settings, choice, apply=True, as_json=True, assembly=assembly)
    assert read()["tables"] == [{"schema": "elsewhere", "table": str(HOSTILE), "rows": 1}]
    assert states(assembly) == before | {4: Aside.DISCARDED}
    ids = Choice(ids=(4,))
    quarantine.discard_rows(settings, ids, apply=True, as_json=True, assembly=assembly)
    assert read()["left_out"] == [{"id": 4, "why": "it is discarded already"}]


def test_more_rows_than_a_page_are_all_decided_about(
    settings: Settings, assembly: InMemory, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PAGE", 2)
    assembly.warehouse.aside = [aside(id, at=1.0) for id in range(1, 8)]
    quarantine.replay_rows(settings, Choice(), apply=True, as_json=True, assembly=assembly)
    assert read()["replay"] == 7
    assert set(states(assembly).values()) == {Aside.REPLAYING}


# ---------------------------------------------------------------- the command line


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", CONFIG])


@pytest.mark.parametrize("command", ["replay", "discard"])
@pytest.mark.parametrize("arguments", [(), ("7", "--all")])
def test_ids_or_all_are_asked_for_and_not_both(command: str, arguments: tuple[str, ...]) -> None:
    result = run("quarantine", command, *arguments)
    assert result.exit_code == 2
    assert "--all" in result.stderr


@pytest.mark.parametrize("command", [("quarantine", "list"), ("errors",)])
def test_a_duration_that_cannot_be_read_is_wrong_usage(command: tuple[str, ...]) -> None:
    result = run(*command, "--older-than", "soon")
    assert result.exit_code == 2
    assert "duration" in result.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_filters_reach_the_choice(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Choice] = []

    def look(settings: Settings, choice: Choice, **more: Any) -> int:
        chosen.append(choice)
        return 0

    monkeypatch.setattr(quarantine, "list_rows", look)
    schema = ("--schema", "products")
    filters = ("--table", "t", "--reason", "r", "--older-than", "1d", "--newer-than", "2h")
    arguments = ("quarantine", "list", *filters, "--state", "discarded")
    result = run(*schema, *arguments) if place == "before" else run(*arguments, *schema)
    assert result.exit_code == 0, result.output
    assert chosen == [
        Choice(
            schemas=("products",),
            table="t",
            reason="r",
            states=(Aside.DISCARDED,),
            older_than=86400.0,
            newer_than=7200.0,
        )
    ]
