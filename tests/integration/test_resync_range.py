"""A range of a table's keys read anew, beside the stream: what lies in it, and nothing else."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_servers import Server
from in_process import (
    Live,
    Side,
    There,
    ThereInMysql,
    live,
    of_mongodb,
    of_mysql,
    of_postgresql,
    settings_of,
)
from postgresql_shop import Shop
from psycopg import sql
from pymongo.database import Database

from warp.destinations.mysql import merge as mysql_merge
from warp.destinations.postgresql import merge
from warp.destinations.postgresql.merge import Landing
from warp.errors import ConfigError, DestinationRefused
from warp.model import KeySpan, Phase, UnitKind
from workers import errands

Sides = Callable[[str], contextlib.AbstractContextManager[Side]]


@pytest.fixture
def sides(request: pytest.FixtureRequest) -> Sides:
    """A source by its name, with nothing started for the others."""

    @contextlib.contextmanager
    def side(name: str) -> Iterator[Side]:
        if name == "mongodb":
            mongo: Server = request.getfixturevalue("mongo")
            database: Database[dict[str, Any]] = request.getfixturevalue("mongo_database")
            yield of_mongodb(mongo.url, database)
        elif name == "mariadb":
            mariadb: Server = request.getfixturevalue("mariadb")
            with of_mysql(mariadb.url, request.getfixturevalue("mariadb_database")) as made:
                yield made
        else:
            shop: Shop = request.getfixturevalue("capture_shop")
            yield of_postgresql(shop.fresh())
            shop.tidy()

    return side


@contextlib.contextmanager
def running(
    side: Side, warehouse: str, tmp_path: Path, there: There | None = None, **schema: Any
) -> Iterator[tuple[Live, There]]:
    for id in range(0, 300, 2):
        side.put(id, f"v{id}")
    destination = {"type": "postgresql", "connection_string": warehouse}
    if isinstance(there, ThereInMysql):
        meta = there.metadata.strip("`")
        destination = {"type": "mysql", "connection_string": warehouse, "metadata_schema": meta}
    tree = {
        "source": side.tree,
        "destination": destination,
        "schemas": [{"name": side.namespace, "chunk_rows": 20, **schema}],
    }
    with live(settings_of(tmp_path, tree)) as fleet:
        there = there or There(warehouse, side)
        fleet.until_complete("orders")
        fleet.until(lambda: there.rows() == side.rows(), "the first rows")
        yield fleet, there


def damage(there: There) -> None:
    """Inside the range that is read anew and outside of it: a wrong, a missing, a stray row."""
    for wrong, missing, stray in ((150, 160, 171), (250, 260, 271)):
        there.run("update {table} set v = 'wrong' where {key} = %s", wrong)
        there.run("delete from {table} where {key} = %s", missing)
        there.run("insert into {table} ({key}, v, _cw_version) values (%s, 'stray', 0)", stray)


def resync(fleet: Live, side: Side, where: str) -> str:
    return errands.resync(fleet.desk, schema=side.namespace, table="orders", where=where)


def expect_the_range_alone_to_be_mended(
    side: Side, fleet: Live, there: There, where: str = "{key} >= 100 and {key} < 200"
) -> None:
    damage(there)
    said = resync(fleet, side, where.format(key=side.key))
    assert "orders starts over where" in said
    assert fleet.table("orders").phase is Phase.PLANNED
    side.put(120, "while it is read")
    side.put(131, "new")
    side.delete(140)
    side.put(290, "beside it")
    fleet.until_complete("orders", epoch=1)
    expected = side.rows()
    del expected[260]
    expected |= {250: "wrong", 271: "stray"}
    fleet.until(lambda: there.rows() == expected, "what was written meanwhile")
    assert fleet.table("orders").within is None
    # What was deleted meanwhile goes by the stream or by the sweep, whichever comes first.
    assert [key for key in there.swept() if key != {side.key: 140}] == [{side.key: 171}]
    chunks = [m for m in fleet.metadata.markers((UnitKind.CHUNK,)) if m.epoch == 1]
    assert len(chunks) == 3  # of 20 rows each, for some 50 ids
    assert sum(m.rows for m in chunks) <= 52


@pytest.mark.parametrize("source", ["mongodb", "mariadb", "postgresql"])
def test_a_range_is_read_anew_beside_the_stream(
    source: str, sides: Sides, pg_warehouse: str, tmp_path: Path
) -> None:
    with sides(source) as side, running(side, pg_warehouse, tmp_path) as (fleet, there):
        expect_the_range_alone_to_be_mended(side, fleet, there)
        # An empty range sweeps what the source has none of.
        there.run("insert into {table} ({key}, v, _cw_version) values (1001, 'stray', 0)")
        resync(fleet, side, f"{side.key} > 1000")
        fleet.until_complete("orders", epoch=2)
        assert 1001 not in there.rows()
        assert there.rows()[271] == "stray"


@pytest.mark.parametrize("twin", [False, True])
def test_a_range_is_read_anew_in_a_mariadb(
    sides: Sides, mariadb: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: bool
) -> None:
    """In the twin stale rows are those of any key."""
    stale = mysql_merge.stale
    if twin:
        monkeypatch.setattr(mysql_merge, "stale", lambda of, _, *row: stale(of, None, *row))
    meta = f"meta_{secrets.token_hex(4)}"
    with sides("postgresql") as side:
        there = ThereInMysql(mariadb.url, side, meta)
        try:
            with running(side, mariadb.url, tmp_path, there) as (fleet, _):
                if not twin:
                    expect_the_range_alone_to_be_mended(side, fleet, there)
                    return
                damage(there)
                side.put(290, "beside it")  # the log goes on, so that the rest is older
                resync(fleet, side, "id >= 100 and id < 200")
                fleet.until_complete("orders", epoch=1)
                assert 250 not in there.rows()  # it was there, and is at the source
        finally:
            for database in (meta, side.namespace):
                there.run(f"drop database if exists {database}")


def test_a_sweep_of_the_whole_table_would_take_rows_that_nobody_has_read(
    sides: Sides, pg_warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: stale rows are those of any key."""

    def anywhere(landing: Landing, within: KeySpan | None) -> sql.Composed:
        return stale(landing, None)

    stale = merge.stale
    monkeypatch.setattr(merge, "stale", anywhere)
    with sides("postgresql") as side, running(side, pg_warehouse, tmp_path) as (fleet, there):
        damage(there)
        resync(fleet, side, "id >= 100 and id < 200")
        fleet.until_complete("orders", epoch=1)
        assert 250 not in there.rows()  # it was there, and is at the source


def test_soft_deletes_survive_and_slips_change_nothing(
    sides: Sides, pg_warehouse: str, tmp_path: Path
) -> None:
    with (
        sides("postgresql") as side,
        running(side, pg_warehouse, tmp_path, deletion_strategy="soft") as (
            fleet,
            there,
        ),
    ):
        side.delete(110)
        gone = "select {key} from {table} where is_deleted order by 1"
        fleet.until(lambda: there.run(gone) == [(110,)], "the soft delete")
        for where, complaint in (
            ("v = 'x'", "a column of the key"),
            ("id >= 1 or true", "`and`"),
            ("id >= 'x'", "kind int64"),
        ):
            with pytest.raises(ConfigError, match=complaint):
                resync(fleet, side, where)
        assert fleet.table("orders").epoch == 0
        there.run("insert into {table} (id, v, _cw_version) values (171, 'stray', 0)")
        resync(fleet, side, "id between 100 and 199")
        with pytest.raises(DestinationRefused, match="being read"):
            resync(fleet, side, "id < 5")
        fleet.until_complete("orders", epoch=1)
        assert there.run(gone) == [(110,), (171,)]
