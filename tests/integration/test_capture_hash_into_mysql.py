"""`strategy: hash` into a MariaDB: the ranges that differ are found there as well."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from fix_servers import Server
from in_process import ThereInMysql, live, of_postgresql, settings_of
from postgresql_shop import Shop

from warp import hash_capture


@pytest.mark.holds(guarantee=4, source="postgresql", destination="mariadb", fault="no fault")
def test_only_rows_that_differ_are_written(
    capture_shop: Shop, mariadb: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_whole: list[str] = []
    monkeypatch.setattr(hash_capture, "_say_once", lambda table, why: read_whole.append(why))
    side = of_postgresql(capture_shop.fresh())
    there = ThereInMysql(mariadb.url, side, f"meta_{secrets.token_hex(4)}")
    every = {"mode": "batch", "polling_interval": "100ms"}
    tree = {
        "source": side.tree,
        "destination": {
            "type": "mysql",
            "connection_string": mariadb.url,
            "metadata_schema": there.metadata.strip("`"),
        },
        "schemas": [{"name": "shop", "change_detection": {"strategy": "hash"}, **every}],
    }
    for id in range(100):
        side.put(id, f"v{id}")
    try:
        with live(settings_of(tmp_path, tree)) as fleet:
            fleet.until_complete("orders")
            fleet.until(lambda: there.rows() == side.rows(), "the first rows")
            before = dict(there.run("select id, _cw_version from {table}"))
            side.put(3, "changed")
            side.put(200, "new")
            side.delete(4)
            fleet.until(lambda: there.rows() == side.rows(), "the changes")
            after = dict(there.run("select id, _cw_version from {table}"))
            assert {id for id in after if after[id] != before.get(id)} == {3, 200}
        assert read_whole == []
    finally:
        for database in (there.metadata, "shop"):
            there.run(f"drop database if exists {database}")
        capture_shop.tidy()
