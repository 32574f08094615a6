"""What `doctor` says of a server, each thing made for real, and that a connection tells in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from mysql_world import RIGHTS_OF_MARIADB, World, world_at

from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Diagnosis, Verdict
from warp.mysql_family import Login, Server, identifier
from warp.sources.mysql import MysqlOptions, MysqlSource, preflight
from warp.sources.mysql.reading import Reader

FAILED, WARNING = Verdict.FAILED, Verdict.WARNING


@pytest.fixture
def world(mariadb: Any) -> Iterator[World]:
    with world_at(mariadb.url) as made:
        made.sql("CREATE TABLE t (id int PRIMARY KEY)")
        yield made


def found(world: World) -> dict[str, Diagnosis]:
    """What is not well; that a server named for the tests has no global ids is known."""
    wrong = {d.code: d for d in world.source().diagnose() if d.verdict is not Verdict.OK}
    if not world.has_gtids:
        assert wrong.pop("mysql-gtid").verdict is WARNING
    return wrong


def test_a_server_set_up_as_the_documents_say_is_well(world: World) -> None:
    assert found(world) == {}
    world.source().check()


SETTINGS = [
    ("binlog_format", "MIXED", "mysql-binlog-format", FAILED),
    ("binlog_row_image", "MINIMAL", "mysql-row-image", WARNING),
    ("binlog_row_metadata", "MINIMAL", "mysql-row-metadata", FAILED),
    ("gtid_strict_mode", "OFF", "mysql-gtid", WARNING),
    ("expire_logs_days", "0.5", "mysql-retention", WARNING),
]


@pytest.mark.parametrize(("name", "value", "code", "verdict"), SETTINGS)
def test_a_setting_that_is_wrong_is_told_and_the_statement_told_mends_it(
    world: World, name: str, value: str, code: str, verdict: Verdict
) -> None:
    if not world.is_mariadb:
        return  # the same settings by other values: `test_settings_of_mysql_…` below
    [(before,)] = world.sql(f"SELECT @@GLOBAL.{name}")
    try:
        quoted = value if value[0].isdigit() else f"'{value}'"
        world.sql(f"SET GLOBAL {name} = {quoted}")
        told = found(world)
        assert told.keys() == {code}
        assert told[code].verdict is verdict
        if verdict is FAILED:
            with pytest.raises(SourceRefused, match=name):
                world.source().check()
        world.sql(told[code].mend)
        assert found(world) == {}
    finally:
        world.sql(f"SET GLOBAL {name} = %s", [before])


GOOD = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "binlog_row_value_options": "",
    "gtid_mode": "ON",
    "binlog_order_commits": "ON",
    "binlog_expire_logs_seconds": "2592000",
}
MYSQL = Server.of("9.7.4-2")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"log_bin": "OFF"}, "mysql-log-bin"),
        ({"binlog_row_value_options": "PARTIAL_JSON"}, "mysql-partial-json"),
        ({"gtid_mode": "OFF_PERMISSIVE"}, "mysql-gtid"),
        ({"binlog_order_commits": "OFF"}, "mysql-commit-order"),
        ({"binlog_expire_logs_seconds": "3600"}, "mysql-retention"),
    ],
)
def test_settings_of_mysql_that_are_wrong_are_told_with_what_mends_them(
    wrong: dict[str, str], code: str
) -> None:
    assert [d for d in preflight.settings(GOOD, MYSQL) if d.verdict is not Verdict.OK] == []
    [told] = [d for d in preflight.settings(GOOD | wrong, MYSQL) if d.verdict is not Verdict.OK]
    assert told.code == code
    assert told.mend


def test_a_replica_that_keeps_to_itself_what_it_replicates_is_told() -> None:
    mariadb = Server.of("10.11.19-MariaDB")
    good = GOOD | {"gtid_strict_mode": "ON", "log_slave_updates": "OFF", "gtid_slave_pos": ""}
    assert [d for d in preflight.settings(good, mariadb) if d.verdict is not Verdict.OK] == []
    replica = good | {"gtid_slave_pos": "0-1-5"}
    [told] = [d for d in preflight.settings(replica, mariadb) if d.verdict is not Verdict.OK]
    assert (told.code, told.verdict) == ("mysql-replica-updates", FAILED)


@pytest.mark.parametrize("right", RIGHTS_OF_MARIADB)
def test_a_right_that_is_missing_is_told_and_the_statement_told_gives_it(
    world: World, right: str
) -> None:
    right = right if world.is_mariadb else right.replace("BINLOG MONITOR", "REPLICATION CLIENT")
    world.sql(f"REVOKE {right} ON *.* FROM {world.login}")
    try:
        told = {d.subject: d for d in found(world).values()}
        assert told[right].verdict is FAILED
        with pytest.raises(SourceRefused, match=right):
            world.source().check()
    finally:
        world.sql(f"GRANT {right} ON *.* TO {world.login}")
    assert told[right].mend == f"GRANT {right} ON *.* TO '{world.login}'"
    assert found(world) == {}


def test_a_table_that_may_not_be_read_is_told(world: World) -> None:
    name = identifier(world.database.replace("_", r"\_"))
    world.script(
        f"REVOKE SELECT ON {name}.* FROM {world.login}",
        f"GRANT INSERT ON {name}.* TO {world.login}",
    )
    told = found(world)["mysql-may-select"]
    assert told.subject == f"{world.database}.t"
    assert told.mend == f"GRANT SELECT ON `{world.database}`.* TO '{world.login}'"


def test_tables_without_a_key_with_cascades_and_with_versions_are_told(world: World) -> None:
    world.script(
        "CREATE TABLE keyless (a int)",
        "CREATE TABLE child (id int PRIMARY KEY, t int, "
        "CONSTRAINT of_t FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE)",
    )
    expected = {"mysql-key": FAILED, "mysql-cascade": WARNING}
    if world.is_mariadb:
        world.sql("CREATE TABLE versioned (id int PRIMARY KEY) WITH SYSTEM VERSIONING")
        expected["mysql-versioned"] = WARNING
    else:
        del expected["mysql-cascade"]  # MySQL 9.7 has them in its log
    told = found(world)
    assert {code: d.verdict for code, d in told.items()} == expected
    assert "!keyless" in told["mysql-key"].mend
    if world.is_mariadb:
        assert "of_t" in told["mysql-cascade"].found
        world.sql(told["mysql-cascade"].mend.partition(",")[0])
        assert "mysql-cascade" not in found(world)


# -- connections


def source_at(connection_string: str, **options: Any) -> MysqlSource:
    given = {"connection_string": connection_string, **options}
    return MysqlSource(MysqlOptions.model_validate(given), lambda table: None)


def test_a_wrong_password_is_refused_and_not_repeated(world: World) -> None:
    host = world.connection_string.partition("@")[2]
    source = source_at(f"mysql://{world.login}:not-the-one@{host}")
    with pytest.raises(SourceRefused, match="user, password") as caught:
        source.position()
    assert "not-the-one" not in str(caught.value)


@pytest.mark.holds(
    guarantee=10, source="mariadb", destination="pretended", fault="planted passwords"
)
def test_secrets_are_in_no_repr(world: World) -> None:
    source = world.source()
    source.position()
    shown = repr(source) + repr(source._connection) + repr(source._connection.login)
    assert world.password not in shown + repr(source._options)


@pytest.mark.parametrize("listening", [False, True])
def test_a_server_that_does_not_answer_is_told_within_ten_seconds(listening: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen()
        source = source_at(f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}", connect_timeout="1s")
        began = time.monotonic()
        with pytest.raises(SourceUnavailable):
            source.position()
        assert time.monotonic() - began < 10


def test_tls_that_is_required_is_refused_where_the_server_has_none(mariadb: Any) -> None:
    source = source_at(mariadb.url, tls="required")
    if "MariaDB" in source_at(mariadb.url)._connection.server.said:
        with pytest.raises(SourceRefused, match="`tls`"):
            source.position()
    else:
        assert source.position()
    assert source_at(mariadb.url, tls="off").namespaces() is not None


def test_rows_are_read_with_tls_where_the_server_has_it_and_nobody_forbids_it(mariadb: Any) -> None:
    # MariaDB 10.11 has none unless it is set up; MySQL makes itself a certificate.
    for tls in ("preferred", "off"):
        given = {"connection_string": mariadb.url, "tls": tls}
        reader = Reader(MysqlOptions.model_validate(given))
        used = bool(reader.one("SHOW STATUS LIKE 'Ssl_cipher'")[1])
        assert used == (tls == "preferred" and not reader.server.is_mariadb)
        reader.close()


def test_a_certificate_nobody_vouches_for_is_refused(mariadb: Any) -> None:
    with pytest.raises(SourceRefused, match="`tls`"):
        source_at(mariadb.url, tls="verify").position()
    with pytest.raises(SourceRefused, match="tls_ca /not/there"):
        source_at(mariadb.url, tls="verify", tls_ca="/not/there").position()


def test_a_connection_string_says_what_it_may_and_nothing_else() -> None:
    def login(text: str, **more: Any) -> Login:
        return Login.parse(
            MysqlOptions.model_validate({"connection_string": text, **more}), SourceRefused
        )

    full = login("mariadb://u%40x:p%2Fw@db.example:3307/shop?unix_socket=/run/m.sock")
    assert full == Login("db.example", 3307, "u@x", "p/w", "shop", "/run/m.sock")
    assert login("mysql://u@h", database="d") == replace(
        full, host="h", port=3306, user="u", password="", database="d", unix_socket=None
    )
    for wrong in ("mysql://u:secret@h:12x4/", "mysql://u:secret@h/?ssl-mode=DISABLED"):
        with pytest.raises(SourceRefused) as caught:
            login(wrong)
        assert "secret" not in str(caught.value)


def test_the_flavour_is_told_by_the_version() -> None:
    assert Server.of("5.5.5-10.11.19-MariaDB-0+deb12u1-log").version == (10, 11, 19)
    assert Server.of("11.4.2-MariaDB").is_mariadb
    assert not Server.of("8.0.36").is_mariadb
