"""What people see of a fleet, from markers and ledger to lines, rates and words."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fleet_scene import HOSTILE, NOW, ORDERS, USERS, chunk, fleet, unit

from dashboards.plain import WIDTH, of_picture
from dashboards.top import columns
from warp.fleet import lines, news, words
from warp.fleet.lines import Health, Line, chosen, counters, lines_of
from warp.fleet.news import News, Sort
from warp.fleet.picture import Picture
from warp.fleet.trends import KEPT, Trends
from warp.fleet.view import FleetView, fleet_of, lag_of
from warp.model import (
    SHARED,
    Chunk,
    CutShort,
    ErrorLine,
    Headroom,
    LeasedUnit,
    Marker,
    Phase,
    Position,
    TableId,
    WorkerState,
    WorkUnit,
)

STREAM = WorkUnit.stream("shop")


def view(*markers: Marker, ledger: tuple[LeasedUnit, ...] = (), **more: object) -> FleetView:
    given: dict[str, object] = {
        "schemas": ["shop"],
        "reached": {},
        "quarantined": {},
        "deferred": {},
        "now": NOW,
    }
    return fleet_of(markers, ledger, more.pop("workers", ()), **(given | more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- the view


def test_a_stopped_streams_lag_grows_with_the_clock() -> None:
    marker = Marker(STREAM, position=Position("7", NOW - 90), phase=Phase.STREAMING)
    assert lag_of(marker, NOW, reached=False) == 90
    assert lag_of(marker, NOW + 10, reached=False) == 100
    assert lag_of(marker, NOW, reached=True) == 0


def test_a_unit_is_seen_with_its_lease_and_its_table_with_its_chunks() -> None:
    parts = [Chunk(ORDERS, n, rows=50) for n in range(2)]
    units = [WorkUnit.of_chunk("shop", part, 0) for part in parts]
    seen = view(
        Marker(STREAM, fence=4, phase=Phase.STREAMING),
        Marker(WorkUnit.of_table("shop", ORDERS), phase=Phase.SNAPSHOT),
        Marker(units[0], rows=50, phase=Phase.DONE),
        Marker(units[1], rows=10),
        ledger=(LeasedUnit(units[1], "leased", "w:1:a", 9, tries=1, expires_in=3.0),),
        quarantined={ORDERS: 3},
        verified={ORDERS: (NOW - 5, 2)},
        headroom={STREAM.id: Headroom("a log", ratio=0.5, seconds=7200.0)},
        workers=(WorkerState("w:1:a", 4, 1, 7.0),),
        lease_ttl=10.0,
    )
    stream = seen.units[-1]
    assert (stream.id, stream.state, stream.owner) == (STREAM.id, "absent", "")
    assert stream.tables == (ORDERS,)
    assert stream.headroom is not None
    assert stream.headroom.seconds == 7200
    assert (seen.units[1].state, seen.units[1].owner, seen.units[1].expected) == (
        *("leased", "w:1:a", 50),
    )
    (table,) = seen.tables
    assert (table.chunks_done, table.chunks, table.rows, table.expected) == (1, 2, 60, 100)
    assert (table.quarantined, table.verified_at, table.differences) == (3, NOW - 5, 2)
    assert seen.workers[0].heard_ago == 3.0
    assert not seen.caught_up


def test_a_draining_worker_has_no_slots() -> None:
    (worker,) = view(workers=(WorkerState("w", 0, 2, 1.0),)).workers
    assert worker.draining
    assert worker.heard_ago is None  # nobody said how long a lease is


# ---------------------------------------------------------------- lines


def test_chunks_of_one_table_are_one_line_and_finished_ones_are_none() -> None:
    seen = {line.key: line for line in lines_of(fleet(rows=50))}
    assert set(seen) == {"snapshot:shop:shop.orders", "stream:shop", "poll:crm:crm.people"}
    snapshot = seen["snapshot:shop:shop.orders"]
    assert (snapshot.state, snapshot.owners) == ("leased", ("host-1:41:ab1",))
    assert snapshot.progress == pytest.approx(0.5)
    assert (snapshot.rows, snapshot.expected, len(snapshot.units)) == (150, 300, 3)
    done = replace(fleet(), units=(chunk(0, 100, done=True),))
    assert lines_of(done) == []


def test_a_chunk_that_read_more_than_expected_is_not_done_before_it_says_so() -> None:
    seen = replace(fleet(), units=(chunk(0, 5000, owner="w"),))
    (line,) = lines_of(seen)
    assert line.progress == pytest.approx(0.99)


def test_a_line_has_what_is_known_of_its_tables() -> None:
    stream = next(line for line in lines_of(fleet()) if line.kind == "stream")
    assert (stream.quarantined, stream.deferred) == (3, 2)
    assert stream.verified_at is None  # some of its tables never were
    assert stream.differences == 0
    verified = tuple(replace(t, verified_at=NOW - 9) for t in fleet().tables)
    stream = next(
        line for line in lines_of(replace(fleet(), tables=verified)) if line.kind == "stream"
    )
    assert stream.verified_at == NOW - 9


def test_a_stream_of_several_schemas_has_the_tables_of_all() -> None:
    shared = unit("stream:*", schema=SHARED, tables=(ORDERS, TableId("crm", "people")))
    tables = tuple(replace(t, quarantined=1) for t in fleet().tables)
    (line,) = lines_of(replace(fleet(), units=(shared,), tables=tables))
    assert line.quarantined == 2


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, Health.WELL),
        ({"phase": Phase.FAILED}, Health.FAILED),
        ({"state": "dead"}, Health.FAILED),
        ({"phase": Phase.PAUSED, "state": "absent"}, Health.PAUSED),
        ({"state": "due", "owner": ""}, Health.WAITING),
        ({"lag_seconds": lines.LATE + 1}, Health.LATE),
    ],
)
def test_a_line_is_well_until_something_is_wrong(
    changes: dict[str, object], health: Health
) -> None:
    (line,) = lines_of(FleetView(units=(unit("stream:shop", **changes),)))
    assert line.health is health


def test_the_worst_come_first_and_words_narrow() -> None:
    found = chosen(lines_of(fleet()), order="health")
    assert found[0].key == "poll:crm:crm.people"
    assert [x.key for x in chosen(found, text="HOST-2 strea")] == ["stream:shop"]
    assert [x.key for x in chosen(found, text="users")] == ["stream:shop"]
    assert chosen(found, text="nowhere") == []
    for order in lines.ORDERS:
        assert len(chosen(found, order=order)) == 3


# ---------------------------------------------------------------- rates


def after(*steps: tuple[float, int, float | None]) -> Trends:
    trends = Trends()
    for at, rows, progress in steps:
        trends = trends.after(at, {"u": (rows, progress)})
    return trends


def test_a_rate_is_of_the_last_seconds_and_needs_two_looks() -> None:
    assert after((0, 5, None)).rate("u") is None
    assert after((0, 0, None), (2, 100, None)).rate("u") == 50
    # What was long ago does not count.
    assert after((0, 0, None), (1, 9000, None), (20, 9000, None), (21, 9010, None)).rate("u") == 10
    assert after((0, 0, None), (1, 5, None)).rate("unknown") is None


def test_a_unit_that_counts_from_0_again_has_no_negative_rate() -> None:
    trends = after((0, 0, None), (1, 100, None), (2, 10, None))
    assert trends.history("u") == (100, 0)
    assert trends.rate("u") == 50


def test_a_clock_set_back_begins_the_course_anew() -> None:
    assert len(after((10, 0, None), (5, 1, None)).looks) == 1
    assert len(after((10, 0, None), (10, 1, None)).looks) == 1


def test_a_snapshot_is_done_when_its_progress_says_so() -> None:
    assert after((0, 0, 0.0), (10, 0, 0.2), (20, 0, 0.4)).eta("u") == pytest.approx(30)
    assert after((0, 0, 0.4), (10, 0, 0.4)).eta("u") is None  # it stands still
    assert after((0, 0, 0.9), (10, 0, 0.1), (20, 0, 0.2)).eta("u") == pytest.approx(80)  # resynced
    assert after((0, 0, 1.0)).eta("u") == 0
    assert after((0, 0, None)).eta("u") is None
    assert Trends().eta("u") is None


def test_no_rate_is_negative_and_memory_is_bounded() -> None:
    chance = random.Random(7)
    at, trends = 0.0, Trends()
    for _ in range(500):
        at += chance.choice((0.0, 0.5, 3.0, 90.0, -200.0))
        trends = trends.after(at, {"u": (chance.randrange(10**12), None)})
        assert (trends.rate("u") or 0) >= 0
    assert len(trends.looks) <= KEPT
    assert all(value >= 0 for value in trends.history("u"))


def test_a_picture_adds_up_its_lines() -> None:
    picture = Picture.of(fleet(rows=20, now=NOW + 2), Picture.of(fleet(rows=0)))
    assert counters(picture.lines)["stream:shop"] == (5200, None)
    assert picture.rate == pytest.approx(110)  # 200 of the stream, 20 of the snapshot, in 2 s
    assert picture.history == pytest.approx((110,))
    assert picture.worst_lag == 0.4
    assert picture.health[Health.FAILED] == 1
    snapshot = next(line for line in picture.lines if line.progress is not None)
    assert snapshot.eta == pytest.approx((1 - 0.4) * 2 / (0.4 - 1 / 3))


# ---------------------------------------------------------------- news


def test_a_takeover_tells_who_was_gone_and_who_has_it_now() -> None:
    run = CutShort("stream:shop", "shop", "old:1:a", 5, "abandoned", NOW)
    lost = replace(run, status="lost", error="WARP-210 a newer owner stands there")
    lease = LeasedUnit(STREAM, "leased", "new:2:b", 8)
    takeover, refused = news.of_runs([run, lost], {STREAM.id: lease})
    assert takeover.sort is Sort.TAKEOVER
    assert takeover.text == "old:1:a (fence 5) was gone; new:2:b has it (fence 8)"
    assert refused.sort is Sort.FENCED
    assert "WARP-210" in refused.text
    (alone,) = news.of_runs([run], {})
    assert alone.text == "old:1:a (fence 5) was gone"


def test_errors_are_news_and_findings_about_cells_are_not() -> None:
    line = ErrorLine(1, NOW, NOW, "WARP-300", "UnitFailed", "no", "shop", "stream:shop")
    told = list(news.of_errors([line, replace(line, cells=7), replace(line, unit="", table=USERS)]))
    assert [one.subject for one in told] == ["stream:shop", "shop.users"]


def test_news_come_the_latest_first_and_once() -> None:
    old, new = (News(at, Sort.ERROR, "u", "again") for at in (1.0, 2.0))
    other = News(1.5, Sort.ERROR, "v", "x")
    assert news.latest([[old, other], [new]]) == (new, other)
    assert len(news.latest([[News(n, Sort.ERROR, "u", str(n)) for n in range(900)]])) == news.MOST


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (119, "119s"), (120, "2m00s"),  # noqa: RUF001
     (3599, "59m59s"), (3600, "1h00m"), (359_000, "99h43m"), (900_000, "10d")],
)  # fmt: skip
def test_durations_are_short(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_no_number_is_longer_than_its_column() -> None:
    for exponent in range(-3, 15):
        for lead in (1.0, 1.2345, 4.999, 9.4999, 9.9499, 9.95, 9.9949, 9.995, 9.9999):
            number = lead * 10.0**exponent
            assert len(words.count(number)) <= 6, number
            if number < 1e9:
                assert len(words.duration(number)) <= 6, number


def test_a_trickle_beside_a_flood_shows() -> None:
    assert words.sparkline([0, 1, 1000], 4) == " ▁▂█"
    assert words.sparkline([], 3) == "   "
    assert words.sparkline([0, 0], 2) == "▁▁"


def test_nothing_is_finished_before_the_end() -> None:
    assert words.percent(0.9999) == "99%"
    assert words.percent(1.0) == "100%"
    assert words.bar(0.5, 4) == "██░░"


def test_a_name_cannot_talk_to_the_terminal() -> None:
    shown = words.plain(str(HOSTILE))
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert words.short("a" * 40 + "END", 11) == "aaaaa…aaEND"


# ---------------------------------------------------------------- text and columns


def test_text_shows_every_line_and_obeys_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    picture = Picture.of(fleet(rows=20, now=NOW + 2), Picture.of(fleet(rows=0)))
    Console(width=WIDTH).print(of_picture(picture))
    said = capsys.readouterr().out
    for part in ("stream:shop", "snapshot 40%", "not caught up", "3 of shop.<img", "takeover"):
        assert part in said
    assert "\x1b" not in said
    assert "nothing has run yet" not in said


@pytest.mark.parametrize("width", [20, 60, 79, 80, 99, 120, 159, 300])
def test_columns_fit_at_any_width(width: int) -> None:
    taken = [
        [column.width for column in columns.fitting(columns.LINES, width)],
        [column.width for column in columns.fitting(columns.TABLES, width)],
        [column.width for column in columns.fitting(columns.WORKERS, width)],
    ]
    for widths in taken:
        assert sum(widths) + len(widths) <= max(width, 79)


def test_80_columns_show_who_how_fast_how_late_and_how_much_is_set_aside() -> None:
    shown = [column.heading for column in columns.fitting(columns.LINES, 79)]
    assert shown == ["unit", "is", "owner", "going", "rows/s", "lag", "aside"]
    wide = [column.heading for column in columns.fitting(columns.LINES, 159)]
    assert {"fence", "room", "verified", "state"} <= set(wide)


def test_a_cell_is_always_as_wide_as_its_column() -> None:
    picture = Picture.of(fleet(rows=20, now=NOW + 2), Picture.of(fleet(rows=0)))
    shown = columns.fitting(columns.LINES, 159)
    for line in picture.lines:
        row: Line = line
        for column, cell in zip(shown, columns.cells(shown, row, NOW), strict=True):
            assert cell.cell_len == column.width, column.heading
