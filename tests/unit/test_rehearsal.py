"""A plan: rows go the whole way and nothing is written; the file is sealed and compared."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from typing import Any

import pytest
from memory_shop import ORDERS, Shop
from rich.console import Console

from commands import plan as planning
from warp import sealed
from warp.errors import ConfigError
from warp.model import (
    Change,
    Chunk,
    Column,
    Cost,
    Kind,
    Outcome,
    SchemaChange,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.rehearsal import Forecast, Misfit, foreseen, rehearse, spread

SETTINGS = TableSettings(ORDERS, ORDERS, "shop", chunk_rows=10, full_load_batch_size=2)


def filled(rows: int = 30) -> Shop:
    shop = Shop()
    for id in range(rows):
        shop.database.put(ORDERS, id=id, name=f"n{id}")
    return shop


def forecast(shop: Shop, sample: int = 1_000, **settings: Any) -> Forecast:
    chosen = dataclasses.replace(SETTINGS, **settings)
    source = shop.source("shop", lambda table: chosen)
    return rehearse(source, shop.destination("shop"), chosen, sample=sample)


def test_nothing_is_made_and_every_sampled_row_is_counted() -> None:
    shop = filled()
    found = forecast(shop)
    assert (found.rows, found.whole, found.before, found.obstacle) == (30, True, None, "")
    assert found.after == dataclasses.replace(shop.database.schemas[ORDERS], version=1)
    assert found.statements == ["create table shop.orders (id int64, name text)"]
    assert not shop.warehouse.tables
    assert not shop.warehouse.markers


def test_a_part_of_the_rows_is_taken_from_all_over_the_table() -> None:
    found = forecast(filled(100), sample=10)
    assert (found.rows, found.whole) == (10, False)
    assert spread([Chunk(ORDERS, n) for n in range(9)], 5) == [
        Chunk(ORDERS, n) for n in (0, 2, 4, 6, 8)
    ]
    assert not forecast(filled(30), sample=3, chunk_rows=1_000).whole


def test_a_table_that_cannot_be_carried_says_why_and_the_others_go_on() -> None:
    shop = filled(1)
    schema = shop.database.schemas[ORDERS]
    unfit = dataclasses.replace(schema, columns=(Column("id", Kind.TEXT), schema.columns[1]))
    shop.database.schemas[ORDERS] = unfit
    shop.warehouse.prepared = True
    destination = shop.destination("shop")
    fixed = tuple(dataclasses.replace(c, fixed=True) for c in schema.columns)
    made = SchemaChange(
        ORDERS, Change.CREATE_TABLE, schema=dataclasses.replace(schema, columns=fixed)
    )
    destination.apply_schema_changes([made])
    shop.database.tables[ORDERS] = {("x",): {"id": "x", "name": "n"}}
    found = rehearse(
        shop.source("shop"),
        destination,
        dataclasses.replace(SETTINGS, dead_letter_queue=False),
        sample=5,
    )
    assert found.obstacle or found.quarantined == 1


def test_a_source_that_bills_says_what_reading_costs() -> None:
    cost = Cost(ORDERS, "history", 12, None, cap=10, why_unknown="no history", verification=7)
    [table] = document(dataclasses.replace(told(), billed=cost))["tables"]
    assert table["billed"] == {
        "snapshot": 12,
        "run": None,
        "verification": 7,
        "refused": True,
        "why_unknown": "no history",
    }
    assert forecast(filled(1)).billed is None


def test_changes_are_foreseen_in_words_where_a_destination_cannot_tell() -> None:
    have = TableSchema(ORDERS, (Column("id", Kind.INT32),), ("id",))
    wider = SchemaChange(ORDERS, Change.WIDEN_COLUMN, column=Column("id", Kind.INT64))
    more = SchemaChange(ORDERS, Change.ADD_COLUMN, column=Column("n", Kind.TEXT))
    assert foreseen(have, wider).schema.columns == (Column("id", Kind.INT64),)
    assert foreseen(have, more).statements == ("add to shop.orders the column n text",)
    assert foreseen(have, SchemaChange(ORDERS, Change.CREATE_TABLE, schema=have)).statements == ()


# -- the file


def told(
    *, rows: int = 10, misfits: Any = None, source: Any = None, before: Any = None
) -> Forecast:
    schema = TableSchema(
        ORDERS, (Column("id", Kind.INT64), Column("v", Kind.TEXT, limit=8)), ("id",)
    )
    return Forecast(
        ORDERS,
        "shop",
        ORDERS,
        before,
        after=schema,
        source=source or schema,
        rows=rows,
        misfits=misfits or {},
    )


def document(*forecasts: Forecast) -> Any:
    return sealed.document(forecasts, digest="d1", version="1", made_at="now", sample=10)


def test_shares_are_of_the_sampled_rows() -> None:
    misfits = {"v": [Misfit(Outcome.TRUNCATED, "12 characters", "8", 3)]}
    [table] = document(told(misfits=misfits))["tables"]
    id, v = table["columns"]
    assert (id["lossless"], id["share"]) == (1.0, {})
    assert (v["lossless"], v["share"], v["cells"]) == (0.7, {"truncated": 0.3}, {"truncated": 3})
    [empty] = document(told(rows=0))["tables"]
    assert empty["columns"][0]["lossless"] is None
    assert table["after"]["columns"]["v"] == "text(8)"


def test_people_read_what_would_happen_and_why() -> None:
    misfits = {"v": [Misfit(Outcome.TRUNCATED, "12 characters", "8", 3)]}
    forecast = dataclasses.replace(
        told(misfits=misfits),
        statements=["create table [odd] (id bigint)"],
        billed=Cost(ORDERS, "timestamp", 1_000, 20),
        quarantined=2,
        obstacle="WARP-520 no right",
    )
    console = Console(file=StringIO(), width=120)
    planning.show(document(forecast, told(rows=0)), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "create table [odd] (id bigint);",
        "10 rows sampled (of about 0), 2 of them for the quarantine",
        "bills 1,000 bytes for all rows, 20 for each run",
        "cannot be carried: WARP-520 no right",
        "70 %",
        "12 characters for 8",
        "2 tables, 1 statements, 1 columns that lose something; seal sha256:",
    ):
        assert part in shown


def test_a_sealed_plan_is_read_again_and_an_edited_one_is_not() -> None:
    plan = document(told())
    assert sealed.read(json.dumps(plan), "plan.json") == plan
    edited = json.dumps(plan).replace('"rows_sampled": 10', '"rows_sampled": 11')
    assert edited != json.dumps(plan)
    for text, complaint in ((edited, "edited"), ("[]", "expected a plan"), ("no", "a plan as")):
        with pytest.raises(ConfigError, match=complaint):
            sealed.read(text, "plan.json")
    other = plan | {"plan": 2}
    with pytest.raises(ConfigError, match="of form 1, found 2"):
        sealed.read(json.dumps(other), "plan.json")


def test_what_differs_is_named() -> None:
    plan = document(told())

    def differing(*now: Forecast, digest: str = "d1") -> list[str]:
        return sorted(sealed.differences(plan, now, digest=digest))

    schema = told().after
    assert schema is not None
    assert differing(told()) == []
    assert differing(told(), digest="d2") == ["configuration: expected d1, found d2"]
    assert differing() == ["shop.orders (shop): expected it at the source, found it gone"]
    other = dataclasses.replace(told(), table=TableId("shop", "new"))
    assert len(differing(told(), other)) == 1
    # Carried out before, and with a column more since: fine.
    assert differing(told(before=schema)) == []
    grown = dataclasses.replace(schema, columns=(*schema.columns, Column("w", Kind.TEXT)))
    assert differing(told(before=grown)) == []
    changed = dataclasses.replace(schema, columns=(Column("id", Kind.TEXT),))
    assert differing(told(before=changed)) == [
        "shop.orders at the destination: expected none, found one"
    ]
    assert differing(told(source=changed)) == [
        "shop.orders at the source, column id: expected int64, found text",
        "shop.orders at the source, column v: expected text(8), found none",
    ]
