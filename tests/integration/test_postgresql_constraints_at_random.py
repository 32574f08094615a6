"""Random histories of a source that keeps its constraints, delivered by two units in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from postgresql_family import CUSTOMER, CUSTOMERS, ORDER
from postgresql_world import CREATE, DELETE, META, ORDERS, UPDATE, Event, Unit, World

from warp.destinations.postgresql import careful, deferral
from warp.model import UNCHANGED, ChangeBatch, Phase, Position, TableId, WorkUnit

NAMES = "abcdefgh"
CONSTRAINTS = """
alter table shop.orders add foreign key (customer) references shop.customers (id) {0};
alter table shop.customers add foreign key (best) references shop.orders (id) {0};
create unique index on shop.orders (name);
create unique index on shop.customers (name);
"""


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


class Source:
    """Two tables that refer to each other; every change keeps every constraint."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rows: dict[TableId, dict[int, list[Any]]] = {CUSTOMERS: {}, ORDERS: {}}
        self.log: dict[TableId, list[Event]] = {CUSTOMERS: [], ORDERS: []}
        self.version = 0

    def change(self) -> None:
        self.version += 1
        table = self.rng.choice([CUSTOMERS, ORDERS])
        rows, others = self.rows[table], self.rows[ORDERS if table == CUSTOMERS else CUSTOMERS]
        id_ = self.rng.randrange(8)
        reference, name = (2, 1) if table == CUSTOMERS else (1, 2)
        if id_ in rows and self.rng.random() < 0.3:
            if not any(id_ in (row[1], row[2]) for row in others.values()):
                del rows[id_]
                self.log[table].append((DELETE, self.version, id_))
            return
        taken = {row[name] for row in rows.values() if row[0] != id_}
        row: list[Any] = [id_, None, None]
        row[reference] = self.rng.choice([None, *others])
        row[name] = self.rng.choice([None, *sorted(set(NAMES) - taken)])
        if id_ in rows:
            said = [*row]
            keeps = self.rng.choice([0, 0, reference, name])
            if keeps:
                row[keeps], said[keeps] = rows[id_][keeps], UNCHANGED
            self.log[table].append((UPDATE, self.version, *said))
        else:
            self.log[table].append((CREATE, self.version, *row))
        rows[id_] = row


def deliver(world: World, rng: random.Random, source: Source) -> None:
    """Both tables' changes in order, each by its own unit, at its own pace."""
    stream = world.settled(CUSTOMER)
    of_orders = WorkUnit.of_table("shop", ORDERS)
    stream.destination.metadata().register(of_orders, position=None, phase=Phase.STREAMING)
    stream.create(ORDER)
    world.looking.execute(CONSTRAINTS.format(rng.choice(["", "deferrable"])).encode())
    poll = world.unit(WorkUnit.poll("shop", CUSTOMERS))
    units = {ORDERS: stream, CUSTOMERS: poll}
    left = {table: list(events) for table, events in source.log.items()}
    while any(left.values()):
        table = rng.choice([table for table in left if left[table]])
        count = rng.choice([1, 2, 5, 20])
        some, left[table] = left[table][:count], left[table][count:]
        units[table].write(str(some[-1][1]), *some, table=table)
    for _ in range(4):
        for unit in units.values():
            look(world, unit)


def look(world: World, unit: Unit) -> None:
    world.looking.execute(
        f"update {META}.deferred_rows set tried_at = tried_at - interval '1h', tries = 1".encode()
    )
    unit.destination._deferral._looked_at = float("-inf")
    after = unit.marker.advanced(ChangeBatch([], Position("look")))
    unit.destination.update_marker(after)
    unit.marker = after


def trial(world: World, seed: int) -> None:
    rng = random.Random(seed)
    source = Source(rng)
    for _ in range(120):
        source.change()
    deliver(world, rng, source)
    kept = world.ask(f"select source_table, key, operation, reason from {META}.deferred_rows")
    assert kept == world.ask(f"select key, reason from {META}.quarantine") == []
    for table, columns in ((CUSTOMERS, "id, name, best"), (ORDERS, "id, customer, name")):
        expected = sorted(tuple(row) for row in source.rows[table].values())
        assert world.rows(f"shop.{table.name}", columns) == expected


@pytest.mark.parametrize("seed", [*range(14), 139, 820])
@pytest.mark.holds(guarantee=5, source="none", destination="postgresql", fault="no fault")
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_the_destination_equals_the_source_when_all_has_been_delivered(
    world: World, seed: int
) -> None:
    trial(world, seed)


# -- broken twins


def test_without_waiting_rows_would_be_in_quarantine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful, "OF_A_REFERENCE", frozenset())
    monkeypatch.setattr(careful, "OF_A_RIVAL", frozenset())
    with pytest.raises(AssertionError):
        trial(world, 0)


def test_without_overruling_what_waits_old_changes_would_come_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral, "_is_newer", lambda *_: False)
    with pytest.raises(AssertionError):
        trial(world, 3)
