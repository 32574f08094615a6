"""Logs of a real MySQL 9.7, decoded: what comes out is what SELECT said on that server."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import pytest
from recorded_logs import (
    START,
    Replica,
    differences,
    events_of,
    everything,
    fed,
    selected,
    steps_of,
)

from warp.errors import SourceRefused
from warp.model import UNCHANGED, Kind, Operation, TableId
from warp.sources.mysql.binlog import gtid, rows, transactions
from warp.sources.mysql.binlog.gtid import GtidSet
from warp.sources.mysql.binlog.rows import Wanted
from warp.sources.mysql.binlog.transactions import Began, Ended, Noted, Rows, Step, Transactions

DATABASE = "cases"


def wanting(wanted: Wanted, table: TableId) -> Wanted:
    return wanted


def table(name: str) -> TableId:
    return TableId(DATABASE, name)


def replayed(name: str) -> list[str]:
    replica = Replica()
    for step in steps_of(name):
        replica.apply(step)
    return differences(replica, DATABASE, selected(name))


def rows_of(steps: list[Step], name: str = "") -> list[Rows]:
    return [
        step
        for step in steps
        if isinstance(step, Rows) and name in ("", step.table.schema.table.name)
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("types", "charsets", "json", "compressed", "tagged", "hidden", "xa", "definitions"),
        "anonymous",
    ],
)
@pytest.mark.holds(guarantee=4, source="mysql", destination="pretended", fault="no fault")
def test_a_decoded_log_ends_in_what_the_server_shows(name: str) -> None:
    assert replayed(name) == []
    assert any(selected(name).values())


def test_each_type_has_its_kind() -> None:
    schema = next(step.table.schema for step in steps_of("types") if isinstance(step, Rows))
    kinds = {column.name: column.kind for column in schema.columns}
    assert schema.key == ("id",)
    assert [name for name, kind in kinds.items() if kind is Kind.DECIMAL] == [
        *("bu", "n1", "n9", "n65", "n10", "b64"),
    ]
    assert kinds["b1"] is Kind.BOOL
    assert kinds["iu"] is kinds["b63"] is Kind.INT64
    assert kinds["mu"] is kinds["y"] is kinds["bo"] is Kind.INT32
    assert kinds["t6"] is kinds["e"] is kinds["s"] is Kind.TEXT
    assert kinds["g"] is kinds["ve"] is kinds["bn"] is Kind.BYTES
    assert (kinds["j"], kinds["f"], kinds["d"]) == (Kind.JSON, Kind.FLOAT32, Kind.FLOAT64)
    assert (kinds["da"], kinds["dt6"], kinds["ts"]) == (Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP)


def test_a_compressed_transaction_would_be_lost_by_a_reader_that_passes_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin: mysql-replication 1.0 does just this."""
    monkeypatch.setattr(Transactions, "_payload", lambda self, event, end: ())
    assert replayed("compressed") != []


def test_compressed_rows_are_given_out_before_the_whole_transaction_is_unpacked() -> None:
    payload = next(event for event in events_of("compressed") if event[4] == 40)
    machine = Transactions(everything, START)
    steps = machine.feed(events_of("compressed")[0])
    steps = iter(machine.feed(payload))
    assert isinstance(next(steps), Began | Rows)


def test_tagged_transactions_are_counted_in_the_set() -> None:
    steps = list(steps_of("tagged"))
    passed = GtidSet()
    for step in steps:
        if isinstance(step, Ended):
            assert isinstance(step.gtid, gtid.Gtid)
            passed = passed.add(step.gtid)
    assert passed.count() == len([step for step in steps if isinstance(step, Began)]) == 5
    assert [(tag, high - low) for _, tag, (low, high) in passed] == [
        *(("", 1), ("nightly", 1), ("x_1", 0)),
    ]


def test_a_transaction_says_when_it_was_committed() -> None:
    for name in ("tagged", "xa"):
        began = [step for step in steps_of(name) if isinstance(step, Began)]
        assert all(1.7e9 < step.committed_at < 2e9 for step in began)
        assert any(step.committed_at % 1 for step in began)


def test_parts_of_json_values_are_refused_for_a_table_that_is_wanted() -> None:
    with pytest.raises(SourceRefused, match="binlog_row_value_options") as refused:
        list(steps_of("partial_json"))
    assert refused.value.place == "cases.j"
    assert list(steps_of("partial_json", lambda table: None))


def test_a_change_that_is_a_statement_is_refused_for_a_table_that_is_wanted() -> None:
    with pytest.raises(SourceRefused, match=r"binlog_format.*INSERT INTO s VALUES") as refused:
        list(steps_of("statements", lambda seen: Wanted() if seen == table("s") else None))
    assert refused.value.place == "cases.s"
    assert list(steps_of("statements", lambda table: None))


def test_a_table_that_nobody_wants_does_not_fail_on_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("looked into a table that is not wanted")

    monkeypatch.setattr(transactions, "logged_table", fail)
    assert not rows_of(list(steps_of("types", lambda table: None)))


def test_cells_that_a_minimal_image_lacks_are_unchanged_and_never_null() -> None:
    written, updated, moved, deleted, created, no_blob, blob = rows_of(list(steps_of("minimal")))
    assert len(written.rows) == 3
    assert updated.rows == [(1, UNCHANGED, 10, UNCHANGED, UNCHANGED)]
    assert moved.rows == [(20, UNCHANGED, UNCHANGED, UNCHANGED, None)]
    assert moved.moved == [(0, (2,))]
    assert deleted.operation is Operation.DELETE
    assert deleted.rows[0][0] == 3
    # What took its default is not in the log.
    assert created.rows == [(4, UNCHANGED, 4, UNCHANGED, UNCHANGED)]
    assert no_blob.rows == [(1, "a1", 11, UNCHANGED, None)]
    assert blob.rows == [(1, "a1", 11, "T1", None)]
    problems = differences_of_minimal()
    assert [problem for problem in problems if "UNCHANGED" not in problem] == []
    assert len(problems) == 3  # the three defaults of row 4


def test_without_the_mark_an_absent_cell_would_be_written_as_null(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin of the test above."""
    monkeypatch.setattr(rows, "UNCHANGED", None)
    for made in (rows._compiled, rows._compiled_update):
        made.cache_clear()
    assert len(differences_of_minimal()) > 3
    for made in (rows._compiled, rows._compiled_update):
        made.cache_clear()


def differences_of_minimal() -> list[str]:
    return replayed("minimal")


def test_xa_rows_come_when_they_are_committed_and_not_when_they_are_rolled_back() -> None:
    steps = list(steps_of("xa"))
    order = [row[0] for step in rows_of(steps) for row in step.rows]
    assert order == [3, 1, 2, 5, 1]
    ended = [step for step in steps if isinstance(step, Ended)]
    # From the first PREPARE to the last decision no marker may stand.
    assert [step.held for step in ended] == [False, True, True, True, True, False, False, False]


@pytest.mark.holds(guarantee=6, source="mysql", destination="pretended", fault="lost position")
def test_a_commit_whose_rows_were_never_seen_stops_instead_of_losing_them() -> None:
    events = events_of("xa")
    machine = Transactions(everything, START)
    list(machine.feed(events[0]))
    with pytest.raises(Exception, match=r"WARP-400.*XA COMMIT.*resync"):
        fed(machine, events[-30:])


@pytest.mark.holds(guarantee=9, source="mysql", destination="pretended", fault="large data")
def test_held_rows_are_bounded() -> None:
    machine = Transactions(everything, START, held_rows=1)
    with pytest.raises(SourceRefused, match="XA RECOVER"):
        fed(machine, events_of("xa"))


def test_statements_that_change_tables_are_told_with_their_names() -> None:
    noted = [step.statement for step in steps_of("definitions") if isinstance(step, Noted)]
    weird = 'we`ird "näme" %s'
    assert [(each.sort, [one.name for one in each.tables]) for each in noted] == [
        ("create", [weird]),
        ("alter", [weird]),
        ("rename", [weird, "plain"]),
        ("truncate", ["plain"]),
        ("create", ["parts"]),
        ("alter", ["parts"]),
        ("create", ["copied"]),
        ("drop", ["copied", "parts"]),
    ]
    assert [each.partial for each in noted] == [False] * 5 + [True] + [False] * 2
    assert {one.namespace for each in noted for one in each.tables} == {DATABASE}


def test_hostile_names_of_columns_come_as_they_are() -> None:
    first = rows_of(list(steps_of("definitions")))[0]
    assert first.table.schema.names() == ("cö\\l `x`", "select")


def test_a_column_that_is_left_out_moves_no_other() -> None:
    for name in ("v", "e", "j", "id", "n65", "lb"):
        without = Wanted(without=frozenset({name}))
        whole = rows_of(list(steps_of("types")))
        less = rows_of(list(steps_of("types", partial(wanting, without))))
        place = whole[0].table.schema.names().index(name)
        for step, other in zip(whole, less, strict=True):
            assert [row[:place] + row[place + 1 :] for row in step.rows] == other.rows


def test_the_key_may_be_named_by_the_one_who_asks() -> None:
    steps = rows_of(list(steps_of("hidden", lambda table: Wanted(key=("a", "id")))), "hidden")
    assert steps[0].table.schema.key == ("a", "id")
    moved = [step.moved for step in steps if step.moved]
    assert moved == [[(0, (10, 1))], [(0, (None, 2))]]


def test_the_place_after_a_file_beyond_4_gib_goes_on_counting() -> None:
    machine = Transactions(everything, transactions.Place("bin.000001", (1 << 32) - 100))
    events = events_of("tagged")
    list(machine.feed(events[0]))
    ends = [step for event in events for step in machine.feed(event) if isinstance(step, Ended)]
    assert all(step.place.position > 1 << 32 for step in ends)
    assert ends == sorted(ends, key=lambda step: step.place)


def rewritten(event: bytes, kind: int, flags: int = 0) -> bytes:
    changed = event[:4] + bytes((kind,)) + event[5:17] + flags.to_bytes(2, "little") + event[19:-4]
    return changed + zlib.crc32(changed).to_bytes(4, "little")


@pytest.mark.holds(guarantee=4, source="mysql", destination="pretended", fault="no fault")
def test_an_unknown_event_stops_unless_the_server_says_it_may_be_passed_over() -> None:
    first, *_, last = events_of("tagged")
    machine = Transactions(everything, START)
    list(machine.feed(first))
    with pytest.raises(SourceRefused, match="type 99"):
        machine.feed(rewritten(last, 99))
    assert list(machine.feed(rewritten(last, 99, flags=0x80))) == []


def test_rows_without_their_table_map_are_an_error() -> None:
    first, *others = events_of("tagged")
    machine = Transactions(everything, START)
    list(machine.feed(first))
    with pytest.raises(Exception, match=r"WARP-000.*no table map"):
        fed(machine, (event for event in others if event[4] != 19))


def test_a_wrong_checksum_is_an_error() -> None:
    first, second, *_ = events_of("tagged")
    machine = Transactions(everything, START)
    list(machine.feed(first))
    with pytest.raises(Exception, match="checksum"):
        machine.feed(second[:-1] + bytes((second[-1] ^ 1,)))
    unchecked = Transactions(everything, START, verify=False)
    list(unchecked.feed(first))
    unchecked.feed(second[:-1] + bytes((second[-1] ^ 1,)))


def test_what_is_wanted_is_asked_once_per_shape_and_again_when_it_may_have_changed() -> None:
    asked: list[TableId] = []

    def wanted(seen: TableId) -> Wanted:
        asked.append(seen)
        return Wanted()

    list(steps_of("compressed", wanted))
    assert asked == [table("c"), table("other")]
    asked.clear()
    list(steps_of("hidden", wanted))
    # After each ALTER and CREATE the column's declared types may be others.
    assert asked == [table("hidden")] * 3 + [table("keyless")]
