"""What a server says of its clock and transactions, and how values are spelled for it."""

from __future__ import annotations

from typing import Any

import pytest

from warp.capture import mysql, postgresql, timestamp
from warp.capture.clocks import SECOND
from warp.capture.side import Clock
from warp.errors import SourceRefused
from warp.model import Capture, Kind, TableId, TableSettings

ORDERS = TableId("shop", "orders")
SETTINGS = TableSettings(ORDERS, ORDERS, "shop", capture=Capture.TIMESTAMP)
NOW = 1_790_000_000 * SECOND


def said_by_mysql(trx: int | None, statement: int | None, back: int = 0) -> Clock:
    return mysql.clock(lambda _: [(NOW, trx, statement, "7", back)])


def test_mysql_tells_the_older_of_transaction_and_statement() -> None:
    assert said_by_mysql(30, 40).oldest == NOW - 41 * SECOND
    assert said_by_mysql(50, 40).oldest == NOW - 51 * SECOND


def test_what_mysql_tells_is_up_to_a_second_old() -> None:
    assert said_by_mysql(None, None).oldest == NOW - SECOND


def test_a_wall_clock_that_was_set_back_makes_mysqls_transactions_an_hour_older() -> None:
    # Began at 02:50, seen at 02:10 of the second time.
    assert said_by_mysql(-40 * 60, None, back=3600).oldest == NOW - 3601 * SECOND


def test_mysql_that_may_not_be_asked_is_told_with_the_grant_that_helps() -> None:
    def ask(statement: str) -> list[tuple[Any, ...]]:
        if "innodb_trx" in statement:
            raise SourceRefused("you need the PROCESS privilege")
        return [(NOW,)]

    clock = mysql.clock(ask)
    assert "GRANT PROCESS" in clock.untold
    assert timestamp._then(clock, SETTINGS, None) == NOW - 60 * SECOND


def test_a_standby_and_hidden_sessions_are_told_as_such() -> None:
    standby = postgresql.clock(lambda _: [(NOW, None, None, None, False, True, "me")])
    hidden = postgresql.clock(lambda _: [(NOW, None, None, None, True, False, 'm"e')])
    assert "standby" in standby.untold
    assert 'GRANT pg_read_all_stats TO "m""e"' in hidden.untold


def test_a_prepared_transaction_holds_the_place_where_it_is() -> None:
    clock = postgresql.clock(lambda _: [(NOW, None, None, "two-phase", False, False, "me")])
    assert timestamp._then(clock, SETTINGS, NOW - 99 * SECOND) == NOW - 99 * SECOND
    assert timestamp._then(clock, SETTINGS, None) is None


def test_an_overlap_that_was_configured_is_kept_whatever_the_server_tells() -> None:
    settings = TableSettings(ORDERS, ORDERS, "shop", overlap=7.0)
    for clock in (Clock(NOW), Clock(NOW, untold="why")):
        assert timestamp._then(clock, settings, None) == NOW - 7 * SECOND


@pytest.mark.parametrize(
    ("kind", "text", "spelled"),
    [
        (Kind.INT64, "9223372036854775807", "9223372036854775807"),
        (Kind.DECIMAL, "1.50", "1.50"),
        (Kind.FLOAT64, "1e-07", "1e-07"),
        (Kind.BOOL, "true", "1"),
        (Kind.BYTES, "\\x00ff", "x'00ff'"),
        (Kind.TEXT, "it's \\", "_utf8mb4 x'69742773205c'"),
        (
            Kind.TIMESTAMP,
            "2026-01-02 03:04:05+00",
            "_utf8mb4 x'323032362d30312d30322030333a30343a3035'",
        ),
    ],
)
def test_mysql_reads_a_value_as_its_column_has_it(kind: Kind, text: str, spelled: str) -> None:
    assert mysql.MysqlDialect(lambda _: {}).literal(kind, text) == spelled


def test_what_is_no_number_never_becomes_part_of_a_statement() -> None:
    with pytest.raises(ValueError, match="a number was expected"):
        mysql.MysqlDialect(lambda _: {}).literal(Kind.INT64, "1; drop table orders")
