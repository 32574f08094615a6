"""Rules on the columns of a MariaDB, its key among them, from the log to the repaired row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from fix_servers import Server
from mysql_world import World, world_at
from privacy_world import KEY, OPEN, PEOPLE, PLANTED, hashed, tables_holding
from verified_copy import VerifiedCopy

from warp.interfaces import SourceConnector
from warp.model import Cover, Privacy, TableId, TableSettings
from warp.privacy.covering import masked
from warp.privacy.source import CoveredSource

RULES = (
    ("mail", Cover.HASH),
    ("name", Cover.TOKENISE),
    ("ssn", Cover.DROP),
    ("letter", Cover.MASK),
    ("doc", Cover.HASH),  # MariaDB's JSON is text: as a whole
)
PATHS = frozenset(path for path, _ in RULES)
ROWS = 30


def select(table: TableId) -> TableSettings | None:
    if table.name not in PLANTED:
        return None
    privacy = Privacy(RULES, PATHS, key=KEY.encode()) if table.name == PEOPLE else None
    there = TableId("shop", table.name)
    return TableSettings(
        table, there, "shop", full_load_batch_size=10, write_batch_size=20, privacy=privacy
    )


@pytest.fixture
def world(mariadb: Server) -> Iterator[World]:
    with world_at(mariadb.url) as world:
        for table, mark in PLANTED.items():
            world.sql(
                f"CREATE TABLE {table} (mail varchar(60) PRIMARY KEY, n int, name varchar(60),"
                " ssn int, letter longtext, doc json)"
            )
            for n in range(ROWS):
                world.sql(
                    f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s)",
                    [
                        f"{mark}{n}@mail.example",
                        n,
                        f"Hedwig {mark}{n}",
                        n,
                        f"{mark}{n} " * 50,
                        f'{{"street": "{mark}weg {n}"}}',
                    ],
                )
        yield world


@pytest.fixture
def copy(world: World, pg_warehouse: str) -> Iterator[VerifiedCopy]:
    def make() -> SourceConnector:
        covered: Any = CoveredSource(world.source(select), select, paths=PATHS, key=KEY.encode())
        return covered  # type: ignore[no-any-return]

    with closing(VerifiedCopy(make, select, pg_warehouse)) as made:
        yield made


def test_nothing_in_the_warehouse_holds_a_covered_value_and_all_else_works(
    copy: VerifiedCopy, world: World
) -> None:
    people, opened = world.table(PEOPLE), world.table(OPEN)
    with copy.following(people, opened):
        for table in PLANTED:
            world.sql(f"UPDATE {table} SET n = 300 WHERE n = 3")
            world.sql(f"UPDATE {table} SET mail = CONCAT('new ', mail) WHERE n = 4")
            world.sql(f"DELETE FROM {table} WHERE n = 5")
            world.sql(f"UPDATE {table} SET name = CONCAT(name, ' changed') WHERE n = 6")
        copy.arrived()
        assert tables_holding(copy.url, PLANTED[PEOPLE]) == set()
        assert tables_holding(copy.url, PLANTED[OPEN]) >= {"open", "deletion_audit"}
        mark = PLANTED[PEOPLE]
        assert copy.run("select mail, letter, doc from shop.people where n = 300") == [
            (
                hashed(f"{mark}3@mail.example"),
                masked(f"{mark}3 " * 50),
                hashed(f'{{"street": "{mark}weg 3"}}'),
            )
        ]
        assert copy.run(
            "select n from shop.people where mail = %s", (hashed(f"new {mark}4@mail.example"),)
        ) == [(4,)]
        [[live]] = copy.run("select count(*) from shop.people where not _cw_deleted")
        assert live == ROWS - 1

        # Compared as they are written, and what differs is told by covered keys.
        assert copy.verify(people).differences == 0
        copy.run("update shop.people set name = 'a fault' where n = 7")
        copy.run("delete from shop.people where n = 8")
        assert copy.verify(people).differences == 2
        assert set(copy.differences(people).values()) == {"differs", "missing"}
        assert tables_holding(copy.url, PLANTED[PEOPLE]) == set()
