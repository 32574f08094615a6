"""What `doctor` tells, and what it makes of answers; the real servers are in the integration
tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_shop import Shop
from rich.console import Console

from commands import doctor
from commands.doctor import Found
from warp import native
from warp.config import Settings, load
from warp.destinations.postgresql import look as postgresql
from warp.diagnosis import encryption
from warp.errors import ConfigError, DestinationRefused, SourceRefused, SourceUnavailable
from warp.leases import look as redis
from warp.model import Diagnosis, Verdict
from warp.sources.mongodb import look as mongodb
from warp.testing.memory import MemorySource

ROOT = Path(__file__).parents[2]
FINE = Diagnosis("log-kept", Verdict.OK, "log", "a log", "a log")
LATE = Diagnosis("log-short", Verdict.WARNING, "log", "a day", "an [hour]", "SET keep = 'a day'")
GONE = Diagnosis("right", Verdict.FAILED, "table t", "the right", "none", "GRANT it ON t TO us")


def settings(*schemas: str) -> Settings:
    flags = {
        "source": "mongodb://localhost/shop",
        "destination": "postgresql://localhost/warehouse",
        "schema": schemas or ("shop",),
    }
    return load(None, {}, flags)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().out


@pytest.mark.parametrize(
    ("hosts", "encrypted", "verdict"),
    [
        (["db.internal"], False, Verdict.WARNING),
        (["127.0.0.1", "10.0.0.7"], False, Verdict.WARNING),
        (["db.internal"], True, Verdict.OK),
        (["localhost", "127.0.0.1", "::1", "/run/postgresql", "", None], False, Verdict.OK),
    ],
)
def test_a_connection_in_clear_to_another_machine_is_told(
    hosts: list[str | None], encrypted: bool, verdict: Verdict
) -> None:
    told = encryption("x-encryption", hosts, encrypted, "ask for TLS")
    assert told.verdict is verdict
    assert ("in clear" in told.found) == (verdict is Verdict.WARNING)
    assert "127.0.0.1" not in told.found


def test_warnings_alone_are_no_failure(printed: Callable[[], str]) -> None:
    shop = Shop()
    shop.database.found = [FINE, LATE]
    assert doctor.run(settings(), as_json=True, assembly=shop) == 0
    told = json.loads(printed())
    assert (told["ok"], told["failed"], told["warnings"]) == (True, 0, 1)
    assert [(f["where"], f["code"]) for f in told["findings"]] == [
        ("source", "log-kept"),
        ("source", "log-short"),
        ("ledger", "redis-url"),
        ("program", "native"),
    ]


def test_a_failure_exits_with_1_and_names_the_statement(printed: Callable[[], str]) -> None:
    shop = Shop()
    shop.database.found, shop.warehouse.found = [LATE], [GONE]
    assert doctor.run(settings(), as_json=False, assembly=shop) == 1
    assert printed().splitlines() == [
        "warning  source       log-short  log: expected a day, found an [hour]",
        "                      mend: SET keep = 'a day'",
        "failed   destination  right  table t: expected the right, found none",
        "                      mend: GRANT it ON t TO us",
        "ok       ledger       redis-url  server: none: one of our own is started",
        "ok       program      native  decoders: compiled",
        "4 findings: 1 failed, 1 warnings",
    ]


def test_what_several_schemas_share_is_told_once(printed: Callable[[], str]) -> None:
    shop = Shop()

    def made(source: MemorySource, schema: str) -> None:
        more = [GONE] if schema == "other" else []
        source.diagnose = lambda: [LATE, *more]  # type: ignore[method-assign]

    shop.source_made = made
    doctor.run(settings("shop", "other"), as_json=True, assembly=shop)
    found = json.loads(printed())["findings"]
    assert [(f["where"], f["code"]) for f in found][:2] == [
        ("source", "log-short"),
        ("source (other)", "right"),
    ]


def test_a_server_that_is_away_is_asked_once_and_the_others_all_the_same(
    printed: Callable[[], str],
) -> None:
    shop, asked = Shop(), []

    def made(source: MemorySource, schema: str) -> None:
        asked.append(schema)
        raise SourceUnavailable("no primary found")

    shop.source_made = made
    assert doctor.run(settings("shop", "other"), as_json=True, assembly=shop) == 1
    assert asked == ["shop"]
    first, *rest = json.loads(printed())["findings"]
    assert (first["code"], first["verdict"]) == ("WARP-210", "failed")
    assert (first["found"], first["mend"]) == ("no primary found", SourceUnavailable.advice)
    assert [f["where"] for f in rest] == ["ledger", "program"]


def test_a_mistake_in_the_configuration_is_not_taken_for_a_finding() -> None:
    shop = Shop()

    def made(source: MemorySource, schema: str) -> None:
        raise ConfigError("expected a namespace, found none")

    shop.source_made = made
    with pytest.raises(ConfigError):
        doctor.run(settings(), as_json=True, assembly=shop)


def test_a_terminal_shows_statements_whole_however_narrow_it_is() -> None:
    statement = "GRANT " + "SELECT, INSERT, UPDATE, DELETE " * 5 + "ON t TO us"
    long = Diagnosis("right", Verdict.FAILED, "table [t]", "rights", "none", statement)
    text = StringIO()
    doctor.show([Found("source", LATE), Found("ledger", long)], Console(file=text, width=60))
    assert statement in text.getvalue()
    assert "an [hour]" in re.sub(r"\s+", " ", text.getvalue())  # not taken for markup
    assert text.getvalue().endswith("2 findings: 1 failed, 1 warnings\n")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_check_refuses_exactly_what_diagnose_calls_failed(verdict: Verdict) -> None:
    shop = Shop()
    one = Diagnosis("x", verdict, "a place", "this", "that", "DO it")
    shop.database.found = shop.warehouse.found = [FINE, one]
    for connector, error in (
        (shop.source("shop"), SourceRefused),
        (shop.destination("shop"), DestinationRefused),
    ):
        if verdict is not Verdict.FAILED:
            connector.check()
            continue
        with pytest.raises(error, match="a place: expected this, found that; DO it"):
            connector.check()


# -- what is made of answers that no server here gives


def verdicts(found: Any) -> dict[str, Verdict]:
    return {one.code: one.verdict for one in found}


def test_a_server_that_is_too_old_fails() -> None:
    facts = SimpleNamespace(
        version=120_018, encoding="UTF8", standby=True, read_only=False, database="w", user="u",
        connections_left=99, role_limit=-1, survives=True, cut_by=[],
    )  # fmt: skip
    told = verdicts(postgresql.of_server(facts))
    assert told["postgresql-version"] is told["postgresql-primary"] is Verdict.FAILED
    assert mongodb.version({"maxWireVersion": 9}, "4.4.29").verdict is Verdict.FAILED
    hello = {"server": "redis", "version": "6.0.16", "role": "master"}
    assert verdicts(redis.of_server(hello, cluster=False))["redis-version"] is Verdict.FAILED


def test_a_mongos_and_a_cluster_pass() -> None:
    assert mongodb.topology({"msg": "isdbgrid"}).verdict is Verdict.OK
    hello = {"server": "redis", "version": "7.4.1", "role": "replica", "mode": "cluster"}
    assert set(verdicts(redis.of_server(hello, cluster=True)).values()) == {Verdict.OK}
    told = verdicts(redis.of_server({**hello, "role": "master"}, cluster=False))
    assert told["redis-cluster"] is Verdict.WARNING  # the URL must say so


@pytest.mark.parametrize(
    ("hours", "filled", "verdict"),
    [(30, 1.0, Verdict.OK), (2, 0.3, Verdict.OK), (2, 0.95, Verdict.WARNING),
     (2, None, Verdict.WARNING)],
)  # fmt: skip
def test_an_oplog_is_short_once_it_has_begun_to_forget(
    hours: float, filled: float | None, verdict: Verdict
) -> None:
    told = mongodb.oplog((0.0, hours * 3600), filled, None, megabytes=1000)
    assert told.verdict is verdict
    if verdict is Verdict.WARNING:
        assert "size: Double(10000), minRetentionHours: Double(24)" in told.mend


def test_a_name_that_needs_quotes_has_them_in_the_statement() -> None:
    facts = SimpleNamespace(user='o"dd %', database="w", may_create=False)
    told = postgresql.of_schema('my "schema"', (False, "boss"), facts)
    assert told.mend == 'GRANT USAGE, CREATE ON SCHEMA "my ""schema""" TO "o""dd %"'
    user = {"user": 'o"dd', "db": "admin"}
    assert mongodb.grant(user, "shop") == (
        r'db.getSiblingDB("admin").grantRolesToUser("o\"dd", [{"role": "read", "db": "shop"}])'
    )


def test_the_rights_it_names_are_those_of_the_page() -> None:
    page = (ROOT / "docs/operations/redis.md").read_text()
    blocks = dict(re.findall(r"^```(acl\S*)\n(.*?)\n```$", page, re.M | re.S))
    assert redis.COMMANDS in blocks["acl"]
    assert blocks["acl-errands"] == redis.ERRANDS


def test_plain_python_decoders_are_a_warning_that_says_why(printed: Callable[[], str]) -> None:
    with native.switched(False):
        assert doctor.run(settings(), as_json=True, assembly=Shop()) == 0
    found = json.loads(printed())["findings"][-1]
    assert (found["where"], found["code"], found["verdict"]) == ("program", "native", "warning")
    assert found["found"].startswith("plain Python")
