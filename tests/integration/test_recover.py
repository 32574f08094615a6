"""A lost place in the log is recovered by writing the rows that differ, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import cast

import pytest
from postgresql_shop import Shop
from verified_copy import ORDERS, SCHEMA, OneCopy, VerifiedCopy, copy_of

from warp.assembly import Assembly
from warp.errors import PositionLost
from warp.leases.memory import MemoryLeaseStore
from warp.model import UnitKind, WorkUnit
from warp.own_process import wait_until
from workers.errands import Desk, recover


@pytest.fixture
def copy(capture_shop: Shop, pg_warehouse: str) -> Iterator[VerifiedCopy]:
    with copy_of(capture_shop, pg_warehouse) as made:
        yield made


@pytest.mark.holds(
    guarantee=6, source="postgresql", destination="postgresql", fault="lost position"
)
def test_only_rows_of_the_gap_are_written_while_the_stream_goes_on(
    copy: VerifiedCopy, capture_shop: Shop
) -> None:
    shop = capture_shop
    with copy.following(ORDERS):
        copy.arrived()
    shop.drop_slot()
    shop.admin.execute("reset role")
    shop.run("update shop.orders set name = 'in the gap' where id = 3")
    shop.run("delete from shop.orders where id = 4")
    shop.run("insert into shop.orders (id, name) values (61, 'in the gap')")
    with pytest.raises(AssertionError), copy.streaming():
        assert wait_until(lambda: bool(copy.errors), 60)
    assert isinstance(copy.errors.pop(), PositionLost)
    before = dict(copy.run("select id, xmin::text from shop.orders"))

    ledger = MemoryLeaseStore()
    with closing(copy.destination()) as destination:
        desk = Desk(destination.metadata(), ledger, cast(Assembly, OneCopy(copy)))
        assert "compare what it has missed" in recover(desk, schema=SCHEMA)
    units = [entry.unit for entry in ledger.units()]
    assert WorkUnit.stream(SCHEMA) in units
    with copy.streaming():
        shop.run("update shop.orders set name = 'after it' where id = 50")
        copy.arrived()
        with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
            for unit in units:
                if unit.kind is UnitKind.VERIFY:
                    copy.work(source, destination, unit)
        copy.replay(ORDERS)
        assert copy.verify(ORDERS).differences == 0
    after = dict(copy.run("select id, xmin::text from shop.orders"))
    assert {id for id in {*before, *after} if before.get(id) != after.get(id)} == {3, 4, 50, 61}
    audit = "select state, count(*) from cartridge_warp_metadata.quarantine group by 1"
    assert copy.run(audit) == [("replayed", 3)]
