"""What the MySQL destination decides without a server."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.destinations.mysql import look, names, room
from warp.destinations.mysql.backfill import exact, taken_out
from warp.destinations.mysql.carriers import key_bytes
from warp.destinations.mysql.metadata import ids_within
from warp.destinations.mysql.session import MysqlWriterOptions, Session
from warp.errors import (
    DestinationRefused,
    DestinationUnavailable,
    SourceRefused,
    SourceUnavailable,
    WarpError,
)
from warp.model import Column, Kind, Role, TableId, TableSchema, Verdict
from warp.mysql_family import Server
from warp.sources.mysql import errors

TABLE = TableId("shop", "orders")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.text(max_size=3), st.booleans())
def test_a_field_is_taken_out_of_an_object_and_the_rest_stays(
    value: dict[str, Any], field: str, spaced: bool
) -> None:
    text = json.dumps(value, indent=1 if spaced else None)
    found = taken_out(text, field)
    if field not in value:
        assert found is None
        return
    assert found is not None
    raw, rest = found
    assert json.loads(raw) == value[field]
    left = {name: cell for name, cell in value.items() if name != field}
    assert (json.loads(rest) if rest else {}) == left


@pytest.mark.parametrize(
    ("kind", "raw", "fits", "cell"),
    [
        (Kind.INT64, "7", True, 7),
        (Kind.INT64, "7.5", False, None),
        (Kind.INT64, "9223372036854775808", False, None),
        (Kind.INT64, "true", False, None),
        (Kind.FLOAT64, "9007199254740993", False, None),
        (Kind.FLOAT64, '{"$numberDouble": "NaN"}', False, None),
        (Kind.FLOAT64, "-0.5", True, -0.5),
        (Kind.DECIMAL, "1.10", True, Decimal("1.10")),
        (Kind.DECIMAL, '{"$numberDecimal": "1E-40"}', False, None),
        (Kind.TEXT, '"a"', True, "a"),
        (Kind.TEXT, "1", False, None),
        (Kind.TIMESTAMP, '{"$date": {"$numberLong": "-1"}}', True, -1000),
        (Kind.TIMESTAMP, '{"$date": {"$numberLong": "999999999999999"}}', False, None),
        (Kind.UUID, '{"$binary": {"base64": "AAAA", "subType": "04"}}', False, None),
        (Kind.BYTES, '{"$binary": {"base64": "AAAA", "subType": "00"}}', True, b"\0\0\0"),
        (Kind.JSON, '{"a":  1.10}', True, b'{"a":  1.10}'),
        (Kind.JSON, "null", True, None),
        (Kind.OBJECTID, '{"$oid": "x"}', False, None),
    ],
)
def test_only_a_value_that_fits_exactly_moves_into_a_column(
    kind: Kind, raw: str, fits: bool, cell: Any
) -> None:
    assert exact(Column("c", kind), raw) == (fits, cell)


@given(st.text(max_size=80))
def test_a_fitting_name_is_one_that_the_server_takes_and_stays_so(name: str) -> None:
    fit = names.fitting(name)
    assert 0 < len(fit) <= 64
    assert not fit.endswith(" ")
    assert all("\0" < c <= "\uffff" for c in fit)
    assert names.fitting(fit) == fit


def test_columns_that_differ_in_case_get_names_that_do_not() -> None:
    assert names.unlike("Name", ["name"]).lower() != "name"
    assert names.unlike("other", ["name"]) == "other"


def test_a_key_shares_the_bytes_of_its_index() -> None:
    def schema(*kinds: Kind) -> TableSchema:
        columns = tuple(Column(f"c{n}", kind) for n, kind in enumerate(kinds))
        return TableSchema(TABLE, columns, tuple(c.name for c in columns))

    assert key_bytes(schema(Kind.TEXT)) == 3072
    assert key_bytes(schema(Kind.TEXT, Kind.INT64, Kind.TEXT)) == 1532


def test_fields_beyond_the_row_stay_in_extra() -> None:
    fields = tuple(Column(f"f{n}", Kind.TEXT) for n in range(400))
    extra = Column("_extra", Kind.JSON, role=Role.EXTRA)
    kept = room.fitted(TableSchema(TABLE, (Column("_id", Kind.TEXT), *fields, extra), ("_id",)))
    assert 150 < len(kept.columns) < 197
    assert {"_id", "_extra"} <= set(kept.names())


GOOD = {
    "read_only": "OFF",
    "log_bin": "ON",
    "binlog_format": "ROW",
    "local_infile": "ON",
    "innodb_flush_log_at_trx_commit": "1",
    "sync_binlog": "1",
    "max_allowed_packet": "67108864",
    "max_connections": "151",
    "lower_case_table_names": "0",
}


@pytest.mark.parametrize(
    ("said", "changed", "code", "verdict"),
    [
        ("10.11.19-MariaDB", {}, "", Verdict.OK),
        ("9.7.4", {}, "", Verdict.OK),
        ("8.0.11", {}, "mysql-version", Verdict.FAILED),
        ("10.3.39-MariaDB", {}, "mysql-version", Verdict.FAILED),
        ("9.7.4", {"read_only": "ON"}, "mysql-read-only", Verdict.FAILED),
        ("9.7.4", {"binlog_format": "STATEMENT"}, "mysql-binlog-format", Verdict.FAILED),
        ("9.7.4", {"binlog_format": "STATEMENT", "log_bin": "OFF"}, "", Verdict.OK),
        ("9.7.4", {"local_infile": "OFF"}, "mysql-local-infile", Verdict.WARNING),
        ("9.7.4", {"sync_binlog": "0"}, "mysql-durability", Verdict.WARNING),
        ("9.7.4", {"max_allowed_packet": "1048576"}, "mysql-packet", Verdict.WARNING),
        ("9.7.4", {"max_connections": "10"}, "mysql-connections", Verdict.WARNING),
        ("9.7.4", {"lower_case_table_names": "1"}, "mysql-table-names", Verdict.WARNING),
    ],
)
def test_a_server_that_is_not_as_it_should_be_is_told_so(
    said: str, changed: dict[str, str], code: str, verdict: Verdict
) -> None:
    found = list(look.of_server(Server.of(said), GOOD | changed, 5))
    odd = [one for one in found if one.verdict is not Verdict.OK]
    assert [(one.code, one.verdict) for one in odd] == ([(code, verdict)] if code else [])
    assert all(one.mend for one in odd)


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        (None, True),
        ("shop", True),
        ("sh%", True),
        ("sho_", True),
        (r"sho\_", False),
        ("other", False),
    ],
)
def test_rights_are_those_of_the_patterns_that_name_the_database(
    pattern: str | None, held: bool
) -> None:
    given = [(pattern, right) for right in look.WRITING]
    found = look.of_rights("'w'@'%'", "shop", look.WRITING, given)
    assert (found.verdict is Verdict.OK) is held
    assert held or found.mend.startswith("GRANT SELECT")


def test_rows_are_replayed_up_to_a_bound_of_bytes_and_one_at_least() -> None:
    assert ids_within([(1, 9), (2, 1), (3, 1)], limit=10) == [1, 2]
    assert ids_within([(1, 99), (2, 1)], limit=10) == [1]
    assert ids_within([]) == []


def session() -> Session:
    """One that is never connected."""
    url = "mysql://me:s3cret@db.example:3306/"
    return Session(MysqlWriterOptions.model_validate({"connection_string": url}))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1205, DestinationUnavailable),  # a lock
        (1213, DestinationUnavailable),  # a deadlock
        (2006, DestinationUnavailable),
        (2013, DestinationUnavailable),
        (1040, DestinationUnavailable),
        (1927, DestinationUnavailable),
        (0, DestinationUnavailable),
        (1045, DestinationRefused),
        (1142, DestinationRefused),
        (1290, DestinationRefused),
        (1064, DestinationRefused),
    ],
)
def test_an_error_is_waited_for_or_told_to_a_person(code: int, error: type[WarpError]) -> None:
    said = pymysql.err.OperationalError(code, "denied: s3cret, password=s3cret")
    found = session().explain(said, "writing")
    assert type(found) is error
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            3,
            "Error writing file '/tmp/#sql-1.MAD' (Errcode: 28 \"No space left on device\")",
        ),
        (1, "Can't create/write to file '/tmp/#sql_1.MAI' (Errcode: 122 \"Disk quota exceeded\")"),
        (1005, 'Can\'t create table `shop`.`orders` (errno: 28 "No space left on device")'),
        (1026, "Error writing file 'binlog' (errno: 28 \"No space left on device\")"),
        (1030, 'Got error 28 "No space left on device" from storage engine InnoDB'),
    ],
)
def test_a_full_disk_is_waited_for_at_either_side(code: int, said: str) -> None:
    full = pymysql.err.InternalError(code, said)
    assert isinstance(session().explain(full, "writing"), DestinationUnavailable)
    assert isinstance(errors.translate(code, said, "read"), SourceUnavailable)
    other = said.replace("28", "13").replace("122", "13")  # a file that may not be written
    assert isinstance(
        session().explain(pymysql.err.InternalError(code, other), "writing"), DestinationRefused
    )
    assert isinstance(errors.translate(code, other, "read"), SourceRefused)


def test_a_table_of_one_statement_that_broke_is_no_table_of_anybody() -> None:
    said = "Got error '126 \"Index is corrupted\"' for '/tmp/{}.MAI' (126)"
    for code, name, found in (
        (126, "#sql-update-67fd-17-99", DestinationUnavailable),
        (126, "shop/orders", DestinationRefused),
        (1194, "#sql-temptable-1", DestinationUnavailable),
    ):
        error = pymysql.err.InternalError(code, said.format(name))
        assert type(session().explain(error, "writing")) is found, name


def test_a_password_is_shown_nowhere() -> None:
    shown = session()
    assert "s3cret" not in repr(shown.options) + repr(shown.login) + shown.place
    unreadable = MysqlWriterOptions.model_validate(
        {"connection_string": "mysql://me:s3cret@db.example:s3cret/"}
    )
    with pytest.raises(DestinationRefused) as caught:
        Session(unreadable)
    assert "s3cret" not in str(caught.value)
