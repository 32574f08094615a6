"""Rows that differ are mended, by the path every row takes, and nothing newer is overruled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from postgresql_copy import Hand
from postgresql_shop import Shop
from verified_copy import FAULTS, ORDERS, SCHEMA, VerifiedCopy, copy_of, plant

from warp.comparison import Ends
from warp.destinations.postgresql.comparing import PostgresComparing
from warp.model import Lease, WorkUnit
from warp.repairing import MASK, Correction, Repair


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    return capture_shop


@pytest.fixture
def copy(shop: Shop, pg_warehouse: str) -> Iterator[VerifiedCopy]:
    with copy_of(shop, pg_warehouse) as made:
        yield made


def look(copy: VerifiedCopy, *, holding: bool, masked: tuple[str, ...] = ()) -> list[Correction]:
    with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
        hand = Hand(Lease(WorkUnit.of_replay(SCHEMA, ORDERS), "command", 0))
        ends = Ends(source, destination, hand, copy.select)
        looked = Repair(ends, SCHEMA, ORDERS, masked=masked).look(
            copy.kept(ORDERS), holding=holding
        )
        assert looked is not None
        assert not looked.later
        return looked.corrections


def hand_on(copy: VerifiedCopy, corrections: list[Correction]) -> None:
    rows = [c.row for c in corrections if c.row is not None]
    with closing(copy.destination()) as destination:
        ids = [c.id for c in corrections]
        assert destination.verifications().correct(SCHEMA, ORDERS, rows, ids) == len(ids)


def became(copy: VerifiedCopy) -> dict[str, str]:
    query = "select key, state from cartridge_warp_metadata.quarantine where code = 'REPAIR'"
    return dict(copy.run(query))


def test_what_differs_is_mended_and_no_other_row_is_written(copy: VerifiedCopy) -> None:
    others = "select id, xmin::text from shop.orders where id not in (7, 20, 33, 1000) order by 1"
    with copy.following(ORDERS):
        before = copy.run("select id, share, name from shop.orders where id in (7, 20, 33)")
        plant(copy)
        copy.verify(ORDERS)
        untouched = copy.run(others)
        hand_on(copy, look(copy, holding=True))
        copy.replay(ORDERS)
        assert became(copy) == dict.fromkeys(FAULTS, "replayed")
        after = copy.run(
            "select id, share, name from shop.orders where id in (7, 20, 33) and not _cw_deleted"
        )
        assert sorted(after) == sorted(before)
        assert copy.run(others) == untouched
        [[removed]] = copy.run(
            "select row ->> 'name' from cartridge_warp_metadata.deletion_audit"
            " where key = '{\"id\": 1000}'"
        )
        assert removed == "extra"
        assert copy.verify(ORDERS).differences == 0
        assert copy.differences(ORDERS) == {}
        states = copy.run("select distinct state from cartridge_warp_metadata.differences")
        assert states == [("repaired",)]


def test_a_row_that_the_stream_has_changed_meanwhile_stays_as_it_is(
    copy: VerifiedCopy, shop: Shop
) -> None:
    with copy.following(ORDERS):
        plant(copy)
        copy.verify(ORDERS)
        hand_on(copy, look(copy, holding=True))
        shop.run("update shop.orders set name = 'newer' where id = 7")
        shop.run("delete from shop.orders where id in (20, 33)")
        shop.run("insert into shop.orders (id, name) values (1000, 'come since')")
        copy.arrived()
        copy.replay(ORDERS)
        assert became(copy) == dict.fromkeys(FAULTS, "superseded")
        assert copy.run(
            "select id, name from shop.orders where id in (7, 20, 33, 1000) and not _cw_deleted"
            " order by 1"
        ) == [(7, "newer"), (1000, "come since")]
        assert copy.verify(ORDERS).differences == 0


@pytest.mark.parametrize("twin", [False, True])
def test_a_row_that_is_deleted_before_its_correction_is_stored_does_not_come_back(
    copy: VerifiedCopy, shop: Shop, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone in its place is what the delete leaves its trace by."""
    if twin:
        monkeypatch.setattr(PostgresComparing, "hold_places", lambda *_: None)
    with copy.following(ORDERS):
        copy.run("delete from shop.orders where id = 20")
        copy.verify(ORDERS)
        corrections = look(copy, holding=True)
        shop.run("delete from shop.orders where id = 20")
        copy.arrived()
        hand_on(copy, corrections)
        copy.replay(ORDERS)
        back = copy.run("select id from shop.orders where id = 20 and not _cw_deleted")
        assert back == ([(20,)] if twin else [])


def test_a_dry_run_shows_both_values_and_hides_what_is_to_be_hidden(copy: VerifiedCopy) -> None:
    with copy.following(ORDERS):
        copy.run("update shop.orders set share = 0.25, name = 'secret' where id = 7")
        copy.verify(ORDERS)
        [correction] = look(copy, holding=False, masked=("name",))
        shown = {c.column: (c.at_source, c.at_destination) for c in correction.cells}
        assert shown == {"name": (MASK, MASK), "share": ("1", "0.25")}
        assert correction.key == '{"id": 7}'
        copy.run("update shop.orders set share = 1, name = 'n7' where id = 7")
        assert look(copy, holding=False) == []
