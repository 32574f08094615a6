"""`--once`: when it is over, what it says at its end, and what it shows meanwhile."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from memory_shop import ORDERS, STREAM, Shop
from rich.console import Console

from commands.once import Once
from commands.progress import Bar, Lines, Progress, progress_of
from warp import startup
from warp.leases.memory import MemoryLeaseStore
from warp.model import Chunk, Marker, Operation, Phase, Position, QuarantinedRow, SetAside, WorkUnit

TABLE = WorkUnit.of_table("shop", ORDERS)


@dataclass
class Seen:
    """A display that remembers."""

    shown: list[Progress] = field(default_factory=list)
    closed: bool = False

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def once(shop: Shop, seen: Seen) -> Iterator[Once]:
    source = shop.source("shop")
    goal = Once(
        shop,
        MemoryLeaseStore(),
        {"shop": source},
        {"shop": source.position()},
        {"shop": [ORDERS]},
        seen,
    )
    with goal:
        yield goal


def arrived(shop: Shop) -> None:
    for unit in (TABLE, STREAM):
        shop.warehouse.markers[unit.id] = Marker(
            unit, position=Position("0"), phase=Phase.STREAMING
        )


def test_it_goes_on_until_the_rows_are_there(shop: Shop, once: Once, seen: Seen) -> None:
    assert once.look() is None
    assert seen.shown == [Progress(tables=1, complete=0, rows=0, expected=0)]
    assert not seen.closed


def test_it_ends_well_where_every_row_arrived(
    shop: Shop, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    arrived(shop)
    assert once.look() == startup.DONE
    assert capsys.readouterr().err == ""


def test_rows_in_quarantine_are_counted_and_make_the_two_sides_different(
    shop: Shop, once: Once, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    arrived(shop)
    row = QuarantinedRow(ORDERS, "{}", Operation.CREATE, "{}", "too long", "22001")
    shop.warehouse.aside += [SetAside(n, "shop", "stream:shop", row) for n in (1, 2)]

    assert once.look() == startup.DIFFERENT == 3

    said = capsys.readouterr().err
    assert f"rows in quarantine: 2 of {ORDERS};" in said
    assert "cartridge-warp status" in said
    assert seen.closed


@pytest.mark.parametrize(
    ("phase", "advice"), [(Phase.FAILED, "error_log"), (Phase.PAUSED, "cartridge-warp resume")]
)
def test_a_unit_that_nobody_will_run_ends_it(
    shop: Shop, once: Once, capsys: pytest.CaptureFixture[str], phase: Phase, advice: str
) -> None:
    arrived(shop)
    shop.warehouse.markers[STREAM.id] = Marker(STREAM, phase=phase)
    assert once.look() == startup.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"{phase}: {STREAM.id}; ")
    assert advice in said


def chunk(number: int, phase: Phase, rows: int, size: int) -> Marker:
    unit = WorkUnit.of_chunk("shop", Chunk(ORDERS, number, rows=size), 0)
    return Marker(unit, phase=phase, rows=rows)


def test_progress_counts_what_is_done_as_it_was_and_the_rest_as_it_was_estimated() -> None:
    markers = [
        Marker(STREAM, rows=999),
        chunk(0, Phase.DONE, 120, 100),
        chunk(1, Phase.SNAPSHOT, 30, 100),
        chunk(2, Phase.SNAPSHOT, 150, 100),  # read again after its worker was killed
        chunk(3, Phase.PLANNED, 0, 100),
    ]
    assert progress_of(markers, tables=3, complete=1) == Progress(3, 1, 250, 420)


def test_where_there_is_no_terminal_a_line_tells_what_changed_now_and_then() -> None:
    now = [0.0]
    lines = Lines(lambda: now[0])
    with structlog.testing.capture_logs() as logs:
        for at, rows in [(1.0, 10), (5.0, 20), (6.0, 30), (11.0, 30), (99.0, 30)]:
            now[0] = at
            lines.show(Progress(2, 0, rows, 100))
    assert [(line["event"], line["rows"]) for line in logs] == [
        ("snapshot_progress", 20),
        ("snapshot_progress", 30),
    ]


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    terminal = io.StringIO()
    bar = Bar(Console(file=terminal, force_terminal=True, width=120))
    bar.show(Progress(2, 0, 1_500, 3_000))
    bar.show(Progress(2, 2, 3_000, 3_000))
    bar.close()
    text = terminal.getvalue()
    assert "3,000 of about 3,000 rows" in text
    assert "2 of 2 tables" in text
    assert "\x1b[?25h" in text  # the cursor is back
