"""A change of schema that is cut short at any point is made once, and by whoever comes next."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest
from postgresql_world import META, ORDERS, World

import warp.destinations.postgresql
import warp.destinations.sql
from warp import faults
from warp.destinations.postgresql import ddl
from warp.model import Change, Column, Kind, SchemaChange

POINTS = ("after_alter", "after_register", "after_change", "before_fill", "after_fill")


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def run(world: World, fence: int, fault: str = "") -> int:
    environment = os.environ | {faults.VARIABLE: fault}
    return programs.run("evolving_writer", world.url, str(fence), env=environment).returncode


def test_every_fault_point_of_a_change_is_tried() -> None:
    text = "".join(
        (Path(package.__path__[0]) / name).read_text()
        for package in (warp.destinations.postgresql, warp.destinations.sql)
        for name in ("ddl.py", "backfill.py")
    )
    assert set(re.findall(r'faults\.hit\("(\w+)"\)', text)) == set(POINTS)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="kill -9")
def test_a_process_killed_in_a_change_of_schema_has_it_made_once(
    world: World, point: str, nth: int
) -> None:
    assert run(world, 100, f"{point}:kill:{nth}") == -signal.SIGKILL
    assert run(world, 200) == 0

    assert world.ask("select id, v, new, _extra from shop.orders order by id") == [
        # 5 is what the column held; the value that had been put beside it is not lost.
        (1, 5, "a", {"v": 2**40}),
        (2, 2**40, "b", None),
    ]
    versions = world.ask(
        f"select version, change, unfilled from {META}.schema_registry order by version"
    )
    assert versions == [
        (1, "create_table", None),
        (2, "add_column", None),
        (3, "widen_column", None),
    ]


def test_without_the_registration_in_the_same_transaction_the_registry_lacks_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: commit between the ALTER and its line in the registry, and die there."""
    assert run(world, 100, "after_change:kill:2") == -signal.SIGKILL  # create, then add
    make = ddl._MAKERS[Change.WIDEN_COLUMN]

    class Killed(BaseException):
        pass

    def dies_between(session, settings, have, change):  # type: ignore[no-untyped-def]
        make(session, settings, have, change)
        session.run(b"COMMIT")
        session.run(b"BEGIN")
        raise Killed

    monkeypatch.setitem(ddl._MAKERS, Change.WIDEN_COLUMN, dies_between)
    unit = world.unit(fence=150)
    change = SchemaChange(ORDERS, Change.WIDEN_COLUMN, column=Column("v", Kind.INT64))
    with pytest.raises(Killed):
        unit.destination.apply_schema_changes([change])
    monkeypatch.undo()
    assert run(world, 200) == 0
    versions = world.ask(f"select change from {META}.schema_registry order by version")
    assert ("widen_column",) not in versions  # nobody can rebuild the table from the registry
