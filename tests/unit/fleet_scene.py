"""A fleet as somebody might see it, for tests of what shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from warp.fleet.news import News, Sort
from warp.fleet.view import FleetView, TableView, UnitView, WorkerView
from warp.model import Phase, TableId, UnitKind

NOW = 1_800_000_000.0
ORDERS = TableId("shop", "orders")
USERS = TableId("shop", "users")
HOSTILE = TableId("shop", "<img src=x onerror=alert(1)>\x1b[31m[red]\n'\"&")


def unit(id: str, **more: Any) -> UnitView:
    """A unit at work, of the kind its id says."""
    kind, schema = id.split(":")[:2]
    return replace(
        UnitView(id, UnitKind(kind), schema, (), Phase.STREAMING, "leased", owner="w"), **more
    )


def chunk(number: int, rows: int = 0, *, done: bool = False, owner: str = "") -> UnitView:
    return unit(
        f"chunk:shop:{ORDERS}:0:{number}",
        tables=(ORDERS,),
        phase=Phase.DONE if done else Phase.PLANNED,
        state="absent" if done else "leased" if owner else "due",
        owner=owner,
        rows=rows,
        expected=100,
    )


def fleet(rows: int = 0, now: float = NOW) -> FleetView:
    """Two workers: a stream, a snapshot a third done, a poll that failed, a hostile name."""
    workers = tuple(
        WorkerView(f"host-{n}:{40 + n}:ab{n}", 4, held, 8.0, 2.0) for n, held in ((1, 2), (2, 1))
    )
    one, two = (worker.id for worker in workers)
    return FleetView(
        units=(
            chunk(0, 100, done=True),
            chunk(1, min(100, rows), owner=one),
            chunk(2),
            unit(
                "poll:crm:crm.people",
                tables=(TableId("crm", "people"),),
                phase=Phase.FAILED,
                state="dead",
                owner="",
                tries=10,
            ),
            unit(
                "stream:shop",
                tables=(ORDERS, USERS, HOSTILE),
                owner=two,
                fence=1_764_000_000_000_123,
                rows=5000 + 10 * rows,
                lag_seconds=0.4,
                position="8265",
            ),
        ),
        tables=(
            TableView(HOSTILE, "shop", Phase.STREAMING, quarantined=3),
            TableView(ORDERS, "shop", Phase.SNAPSHOT, chunks_done=1, chunks=3, expected=300),
            TableView(
                USERS, "shop", Phase.STREAMING, deferred=2, verified_at=now - 60, differences=0
            ),
            TableView(TableId("crm", "people"), "crm", Phase.STREAMING),
        ),
        workers=workers,
        news=(
            News(now - 5, Sort.TAKEOVER, "stream:shop", f"host-9:1:ff (fence 3) was gone; {two}"),
            News(now - 9, Sort.ERROR, "poll:crm:crm.people", "WARP-100 <script>alert(2)</script>"),
        ),
        as_of=now,
    )
