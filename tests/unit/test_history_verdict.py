"""The judge of the chaos runs finds each fault that is planted, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from history import REFUSED, Event, Kind, Outcome, Scribe, read
from verdict import Accusation, Advance, Applied, Aside, Evidence, Fault, accuse

STREAM = "stream:shop"


def event(key: str, stamp: int, kind: Kind, *, total: int = 7, **more: Any) -> Event:
    place = stamp * 10
    made = Event("accounts", key, stamp, kind, Outcome.SURE, place - 5, place, total, f"#{stamp}")
    return replace(made, **more)


HISTORY = [
    event("a", 1, Kind.CREATE),
    event("b", 2, Kind.CREATE),
    event("a", 3, Kind.CHANGE),
    event("b", 4, Kind.REPLACE),
    event("c", 5, Kind.CREATE),
    event("a", 6, Kind.DELETE),
    event("b", 7, Kind.CHANGE),
    event("d", 8, Kind.CREATE, total=REFUSED),
    event("a", 9, Kind.CREATE),
    event("c", 10, Kind.DELETE),
    event("e", 11, Kind.CREATE, outcome=Outcome.UNDONE),
    event("e", 12, Kind.CREATE),
]


@dataclass
class World:
    """A destination that did all as it should, until a test plants something."""

    history: list[Event] = field(default_factory=lambda: list(HISTORY))
    applied: list[Applied] = field(default_factory=list)
    advances: list[Advance] = field(default_factory=list)
    aside: list[Aside] = field(default_factory=list)
    source: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    destination: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def carry(self, batch: int) -> World:
        """Batches of so many events; of each key only the last change is applied."""
        taken = [e for e in self.history if e.outcome is not Outcome.UNDONE]
        before = 0
        for first in range(0, len(taken), batch):
            part = taken[first : first + batch]
            tx, place = 100 + first, part[-1].place or before
            self.advances.append(Advance(tx * 100, tx, STREAM, True, before, place, place))
            before = place
            for n, each in enumerate({e.key: e for e in part}.values(), start=1):
                if each.refused:
                    self.aside.append(Aside(*each.row, each.stamp, each.stamp * 10, STREAM))
                elif each.alive or any(a.key == each.key for a in self.applied):
                    self.applied.append(applied(each, tx * 100 + n, tx))
        for each in taken:
            cells = {"stamp": each.stamp, "total": each.total}
            self.source[each.row], self.destination[each.row] = dict(cells), dict(cells)
            if not each.alive:
                del self.source[each.row], self.destination[each.row]
            elif each.refused:
                del self.destination[each.row]
        return self

    def of(self, stamp: int) -> int:
        """Where the event of this stamp lies in what was applied."""
        deletion = next((e for e in self.history if e.stamp == stamp and not e.alive), None)
        if deletion is None:
            return next(i for i, a in enumerate(self.applied) if a.stamp == stamp)
        return next(i for i, a in enumerate(self.applied) if a.version == stamp * 10)

    def accusations(self, *, rereads: bool = False) -> list[Accusation]:
        seen = Evidence(self.applied, self.advances, self.aside, self.source, self.destination)
        return accuse(self.history, seen, rereads=rereads)


def applied(made: Event, n: int, tx: int) -> Applied:
    version = made.place or 0
    if not made.alive:
        return Applied(n, tx, *made.row, version, deleted=True)
    return Applied(n, tx, *made.row, version, made.stamp, made.total, made.name)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("rereads", [False, True])
def test_a_faithful_destination_is_accused_of_nothing(batch: int, rereads: bool) -> None:
    assert World().carry(batch).accusations(rereads=rereads) == []


def lose_in_the_middle(world: World) -> None:
    """What came later is there: the rows in the end show nothing."""
    del world.applied[world.of(4)]


def lose_the_last(world: World) -> None:
    del world.applied[world.of(7)]
    world.destination["accounts", "b"] = {"stamp": 4, "total": 7}


def lose_a_deletion(world: World) -> None:
    del world.applied[world.of(10)]
    world.destination["accounts", "c"] = {"stamp": 5, "total": 7}


def move_the_marker_too_far(world: World) -> None:
    """For the length of one transaction; then the rows follow."""
    world.advances[2] = replace(world.advances[2], place=40, reached=40)


def apply_twice(world: World) -> None:
    again = world.applied[world.of(4)]
    later = world.advances[4]
    world.applied.append(replace(again, n=later.n + 50, tx=later.tx))


def reorder(world: World) -> None:
    """Twice the same transactions, the other way round."""
    older, newer = world.of(4), world.of(7)
    last = world.applied[newer]
    world.applied[newer] = replace(world.applied[older], n=last.n, tx=last.tx, version=70)
    world.applied[older] = replace(last, n=world.applied[older].n, tx=world.applied[older].tx)


def bring_back_an_old_row_by_a_chunk(world: World) -> None:
    chunk = Advance(world.advances[-1].n + 1000, 999, "chunk:shop:shop.accounts:0:0")
    world.advances.append(chunk)
    old = replace(world.applied[world.of(2)], n=chunk.n + 1, tx=chunk.tx)
    world.applied += [old, replace(world.applied[world.of(7)], n=chunk.n + 2, tx=chunk.tx)]


def write_another_value(world: World) -> None:
    """Which the next write of the row covers."""
    world.applied[world.of(3)] = replace(world.applied[world.of(3)], total=8)


def differ_in_the_end(world: World) -> None:
    world.destination["accounts", "a"]["total"] = 8


def make_up_a_row(world: World) -> None:
    last = world.advances[-1]
    world.applied.append(Applied(last.n + 50, last.tx, "accounts", "z", 500, 99))


def keep_what_was_rolled_back(world: World) -> None:
    undone = next(e for e in world.history if e.outcome is Outcome.UNDONE)
    before = world.advances[9]
    world.applied.append(applied(undone, before.n + 50, before.tx))


def keep_a_deleted_row(world: World) -> None:
    world.destination["accounts", "c"] = {"stamp": 5, "total": 7}


def delete_what_lives(world: World) -> None:
    last = world.advances[-1]
    world.applied.append(Applied(last.n + 50, last.tx, "accounts", "b", 70, deleted=True))
    del world.destination["accounts", "b"]


def write_without_the_marker(world: World) -> None:
    place = world.of(7)
    world.applied[place] = replace(world.applied[place], tx=777)


def forget_the_refused(world: World) -> None:
    world.aside.clear()


def set_aside_a_good_row(world: World) -> None:
    world.aside.append(Aside("accounts", "b", 7, 70, STREAM))


def set_aside_twice(world: World) -> None:
    world.aside *= 2


def let_the_source_go_its_own_way(world: World) -> None:
    """It forgot what it had confirmed, and both sides agree on that."""
    for side in (world.source, world.destination):
        side["accounts", "b"] = {"stamp": 4, "total": 7}


PLANTED: dict[Callable[[World], None], Fault] = {
    lose_in_the_middle: Fault.LOST,
    lose_the_last: Fault.LOST,
    lose_a_deletion: Fault.LOST,
    move_the_marker_too_far: Fault.LOST,
    apply_twice: Fault.TWICE,
    reorder: Fault.REORDERED,
    bring_back_an_old_row_by_a_chunk: Fault.REORDERED,
    write_another_value: Fault.WRONG,
    differ_in_the_end: Fault.WRONG,
    make_up_a_row: Fault.INVENTED,
    keep_what_was_rolled_back: Fault.INVENTED,
    keep_a_deleted_row: Fault.LEFT_OVER,
    delete_what_lives: Fault.NOT_DELETED,
    write_without_the_marker: Fault.ALONE,
    forget_the_refused: Fault.UNACCOUNTED,
    set_aside_a_good_row: Fault.NO_CAUSE,
    set_aside_twice: Fault.ASIDE_TWICE,
    let_the_source_go_its_own_way: Fault.HISTORY,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_named(plant: Callable[[World], None]) -> None:
    world = World().carry(1)
    plant(world)
    assert PLANTED[plant] in {a.fault for a in world.accusations()}


def test_every_fault_is_planted_once_at_least() -> None:
    assert set(PLANTED.values()) == set(Fault)


def test_what_nobody_knows_the_outcome_of_may_be_there_or_not() -> None:
    perhaps = event("b", 13, Kind.REPLACE, outcome=Outcome.PERHAPS, place=None)
    without = World().carry(1)
    without.history.append(perhaps)
    assert without.accusations() == []
    with_it = World(history=[*HISTORY, perhaps]).carry(1)
    assert with_it.accusations() == []


def test_a_part_of_a_transaction_that_is_read_again_is_no_second_time() -> None:
    world = World().carry(1)
    first, second = world.advances[3], world.advances[6]
    world.advances[3] = replace(first, onward=False, place=first.before, reached=first.reached)
    again = world.applied[world.of(4)]
    world.applied.append(replace(again, n=second.n - 1, tx=world.advances[5].tx))
    assert Fault.TWICE not in {a.fault for a in world.accusations()}


def test_a_row_that_was_read_later_than_its_event_may_be_newer() -> None:
    world = World().carry(1)
    place = world.of(4)
    world.applied[place] = replace(world.applied[world.of(7)], n=world.applied[place].n, version=40)
    world.applied[place] = replace(world.applied[place], tx=world.advances[3].tx)
    assert world.accusations(rereads=True) == []


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    with Scribe(tmp_path / "history.jsonl", {"seed": 3}) as scribe:
        scribe.add(*HISTORY)
    assert read(tmp_path / "history.jsonl") == ({"seed": 3}, HISTORY)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_part_of_a_row_of_which_something_waits_may_be_left_to_its_deletion(
    waiting: bool,
) -> None:
    """It is looked up at the source, where the row is gone by then."""
    world = World(
        [
            event("a", 1, Kind.CREATE),
            event("a", 2, Kind.CHANGE, total=REFUSED if waiting else 8),
            event("a", 3, Kind.CHANGE),
            event("a", 4, Kind.DELETE),
        ]
    ).carry(1)
    del world.applied[world.of(3)]
    faults = [accusation.fault for accusation in world.accusations()]
    assert faults == ([] if waiting else [Fault.LOST])
