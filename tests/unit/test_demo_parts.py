"""What the demo decides without any server."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from commands.demo_data import ROWS, documents
from commands.demo_screen import Lines, dashboard
from commands.demo_watch import Look, TableState, Takeovers, Unit

STREAM = Unit("stream:s", "stream", "a", 7, "streaming")
CHUNK = Unit("chunk:s:t:0:1", "chunk", "a", 8, "planned")


def taken() -> Takeovers:
    return Takeovers(killed_at=100.0, held={STREAM.id: STREAM, CHUNK.id: CHUNK})


def test_a_unit_is_taken_over_when_another_owner_has_a_higher_fence() -> None:
    takeovers = taken()
    assert takeovers.look([STREAM, CHUNK], 101.0) == []
    (one,) = takeovers.look([replace(STREAM, owner="b", fence=9), CHUNK], 102.5)
    assert (one.unit, one.from_owner, one.to_owner) == ("stream:s", "a", "b")
    assert (one.from_fence, one.to_fence, one.seconds) == (7, 9, 2.5)
    assert takeovers.look([replace(STREAM, owner="b", fence=9), CHUNK], 103.0) == []


def test_a_unit_the_dead_worker_did_not_hold_is_no_takeover() -> None:
    assert taken().look([Unit("chunk:s:u:0:1", "chunk", "b", 99, "planned")], 101.0) == []


def test_every_table_has_documents_of_the_types_an_application_stores() -> None:
    first = {table: next(documents(table)) for table in ROWS}
    assert first["airlines"] == {"_id": "9E", "name": "Endeavor Air Inc."}
    assert first["airports"]["location"]["coordinates"] == [-80.6195833, 41.1304722]
    assert type(first["planes"]["year"]) is int
    assert "speed" not in first["planes"]  # absent, not null
    assert first["weather"]["_id"] == 1
    assert first["flights"]["dep_delay"] == 2.0
    assert type(first["flights"]["dep_delay"]) is float
    assert first["flights"]["time_hour"].isoformat() == "2013-01-01T10:00:00+00:00"


def look() -> Look:
    table = TableState("flights", 1000, 400, 400, 123.0, "snapshot")
    return Look([table], [STREAM], [("worker-1", "killed", 0)], 0.25, 1.5, 42)


def test_the_screen_shows_tables_workers_and_lag() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(dashboard(look()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for words in ("flights", "1,000", "400", "snapshot", "worker-1 killed", "lag 0.25 s"):
        assert words in text


def test_lines_hold_no_control_characters_and_are_not_wrapped() -> None:
    console = Console(width=40, file=io.StringIO())
    lines = Lines(console)
    lines.show(look())
    lines.say("x" * 100)
    assert isinstance(console.file, io.StringIO)
    first, second = console.file.getvalue().splitlines()
    assert first.endswith("400 of 1,000 rows · 123 rows/s · lag 0.25 s (worst 1.50 s) · 42 changes")
    assert second.endswith("x" * 100)
