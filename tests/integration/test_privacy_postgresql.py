"""Rules on the columns of a PostgreSQL, its key among them, from the log to the repaired row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from postgresql_shop import Shop, everything
from privacy_world import tables_holding
from psycopg import sql
from verified_copy import VerifiedCopy

from warp.errors import SourceRefused
from warp.interfaces import SourceConnector
from warp.model import Cover, Privacy, TableId, TableSettings
from warp.privacy.covering import Covering, masked
from warp.privacy.source import CoveredSource
from warp.sources.postgresql import PostgresSource

PEOPLE, OPEN = TableId("shop", "people"), TableId("shop", "open")
KEY = b"the privacy key of the tests"
PLANTED = {PEOPLE: "xqzgeheim", OPEN: "xqzoffen"}
RULES = (
    ("mail", Cover.HASH),
    ("name", Cover.TOKENISE),
    ("ssn", Cover.DROP),
    ("letter", Cover.MASK),
    ("doc.home.street", Cover.HASH),
)
PATHS = frozenset(path for path, _ in RULES)
ROWS = 40


def select(table: TableId) -> TableSettings | None:
    settings = everything(table)
    if settings is None or table != PEOPLE:
        return settings
    return replace(settings, privacy=Privacy(RULES, PATHS, key=KEY))


@pytest.fixture
def copy(capture_shop: Shop, pg_warehouse: str) -> Iterator[VerifiedCopy]:
    shop = capture_shop.fresh()
    for table, mark in PLANTED.items():
        name = sql.Identifier(table.name)
        for statement in (
            "create table shop.{} (mail text primary key, n int, name text, ssn int,"
            " letter text, doc jsonb)",
            "alter table shop.{} alter letter set storage external",
        ):
            shop.admin.execute(sql.SQL(statement).format(name))
        shop.admin.execute(
            sql.SQL(
                "insert into shop.{} select {m} || i || '@mail.example', i, 'Hedwig ' || {m} || i,"
                " i, repeat({m} || i || ' ', 400), jsonb_build_object('home',"
                " jsonb_build_object('street', {m} || 'weg ' || i, 'zip', i))"
                " from generate_series(1, {rows}) i"
            ).format(name, m=sql.Literal(mark), rows=sql.Literal(ROWS))
        )

    def make() -> SourceConnector:
        inner: Any = PostgresSource(shop.options(), select)
        covered: Any = CoveredSource(inner, select, paths=PATHS, key=KEY)
        return covered  # type: ignore[no-any-return]

    with closing(VerifiedCopy(make, select, pg_warehouse)) as made:
        yield made


def hashed(text: str) -> str:
    return Covering(KEY).text(Cover.HASH, text)


def test_nothing_in_the_warehouse_holds_a_covered_value_and_all_else_works(
    copy: VerifiedCopy, capture_shop: Shop
) -> None:
    run = capture_shop.run
    with copy.following(PEOPLE, OPEN):
        # A part of a row (the letter is not sent), of which the destination has lost the rest.
        lost = hashed("xqzgeheim3@mail.example")
        copy.run("delete from shop.people where mail = %s", (lost,))
        for table in ("people", "open"):
            run(f"update shop.{table} set n = 300 where n = 3")
            run(f"update shop.{table} set mail = 'new ' || mail where n = 4")
            run(f"delete from shop.{table} where n = 5")
            run(f"update shop.{table} set name = name || ' changed' where n = 6")
        copy.arrived()
        assert tables_holding(copy.url, PLANTED[PEOPLE]) == set()
        assert tables_holding(copy.url, PLANTED[OPEN]) >= {"open", "deletion_audit"}
        letter, street = "xqzgeheim3 " * 400, "xqzgeheimweg 3"
        assert copy.run("select mail, letter, doc from shop.people where n = 300") == [
            (lost, masked(letter), {"home": {"street": hashed(street), "zip": 3}})
        ]
        [[live]] = copy.run("select count(*) from shop.people where not _cw_deleted")
        assert live == ROWS - 1
        columns = copy.run(
            "select column_name from information_schema.columns where table_name = 'people'"
        )
        assert ("ssn",) not in columns

        # Compared as they are written, and mended from the source.
        assert copy.verify(PEOPLE).differences == 0
        copy.run("update shop.people set name = 'a fault' where n = 7")
        copy.run("delete from shop.people where n = 8")
        assert copy.verify(PEOPLE).differences == 2
        assert set(copy.differences(PEOPLE).values()) == {"differs", "missing"}
        assert tables_holding(copy.url, PLANTED[PEOPLE]) == set()


def test_a_column_that_was_renamed_stops_the_stream_before_a_value_leaves(
    copy: VerifiedCopy, capture_shop: Shop
) -> None:
    """Under its new name no rule would cover it."""
    copy.bring(PEOPLE)
    capture_shop.run("alter table shop.people rename name to full_name")
    capture_shop.run("update shop.people set n = 900 where n = 9")
    with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
        [marker] = [m for m in destination.metadata().markers() if m.unit.id == "stream:shop"]
        assert marker.position is not None
        with pytest.raises(SourceRefused, match="expected 'name', for which there is a privacy"):
            for _ in source.get_changes(marker.position, selection=select, idle=0.05):
                pass
    assert tables_holding(copy.url, PLANTED[PEOPLE]) == set()
