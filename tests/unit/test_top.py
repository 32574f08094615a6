"""The live screen, driven by textual's own pilot: what stands on it and what its keys do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fleet_scene import NOW, fleet
from textual.pilot import Pilot

from dashboards.top.app import Top
from dashboards.top.dialogs import Detail, Page, Question
from dashboards.top.grid import Grid
from warp.errors import LedgerUnavailable
from warp.fleet.view import FleetView

SMALL, LARGE = (80, 24), (160, 50)


class Scripted:
    """A fleet that works on with every look, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.looks = 0
        self.trouble: LedgerUnavailable | None = None
        self.seen: Callable[[int, float], FleetView] = fleet

    def look(self) -> FleetView:
        if self.trouble is not None:
            raise self.trouble
        self.looks += 1
        return self.seen(20 * self.looks, NOW + 2 * self.looks)

    def act(self, what: str, subject: str) -> str:
        self.asked.append((what, subject))
        return f"{what}: done with [{subject}]"


def driven(
    desk: Scripted,
    script: Callable[[Pilot[None], Top], Awaitable[None]],
    *,
    size: tuple[int, int] = SMALL,
) -> None:
    """A script, after two looks; further ones are for it to ask for."""

    async def run() -> None:
        app = Top(desk, every=3600.0)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.picture is not None, "a look")
            await look(pilot, app)
            await script(pilot, app)

    asyncio.run(run())


def replace_units(seen: FleetView, first: int) -> FleetView:
    return replace(seen, units=seen.units[-first:])


def screen(app: Top) -> str:
    """What stands on the screen, line by line."""
    # An export as SVG says the same, and costs more than everything else here.
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def look(pilot: Pilot[None], app: Top) -> None:
    before = app.picture
    app._looks.now()
    await until(pilot, lambda: app.picture is not before, "another look")


async def until(pilot: Pilot[None], condition: Callable[[], Any], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError(f"waited for {what} on:\n{screen_of(pilot)}")


def screen_of(pilot: Pilot[None]) -> str:
    assert isinstance(pilot.app, Top)
    return screen(pilot.app)


async def shows(pilot: Pilot[None], *parts: str) -> None:
    await until(pilot, lambda: all(part in screen_of(pilot) for part in parts), f"{parts}")


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
def test_everything_that_matters_stands_on_one_screen(size: tuple[int, int]) -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        await shows(pilot, "1 failed", "rows/s", "worst lag 0.4s", "2 workers, 3 of 8 slots")
        await shows(pilot, "● streaming", "✗ failed", "█", "host-1:41", "2/4", "takeover", "quit")
        if size == LARGE:
            await shows(pilot, "1764000000000123", "verified", "WARP-100")
        else:
            assert max(map(len, screen(app).splitlines())) <= 80

    driven(Scripted(), script, size=size)


def test_a_look_brings_up_to_date_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No flicker: rows are replaced when they come, go or change places, and not else."""
    replaced = []
    replace_all = Grid._replace

    def counted(self: Any, *given: Any) -> None:
        replaced.append(self.id)
        replace_all(self, *given)

    monkeypatch.setattr(Grid, "_replace", counted)
    desk = Scripted()

    async def script(pilot: Pilot[None], app: Top) -> None:
        before = replaced.copy()
        for _ in range(3):
            await look(pilot, app)
        assert replaced == before
        desk.seen = lambda rows, now: replace_units(fleet(rows, now), 1)
        await look(pilot, app)
        assert len(replaced) == len(before) + 1

    driven(desk, script)


def test_the_cursor_stays_at_its_unit_when_the_order_changes() -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("down", "down")
        at = app.unit_grid.chosen
        assert at is not None
        await pilot.press("s", "s")
        await shows(pilot, "by rows/s")
        after = app.unit_grid.chosen
        assert after is not None
        assert after.key == at.key

    driven(Scripted(), script)


def test_words_narrow_what_is_shown_until_escape() -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("slash", *"snap", "enter")
        await shows(pilot, "only “snap”")
        assert [line.key for line in app.unit_grid._rows] == ["snapshot:shop:shop.orders"]
        await pilot.press("escape")
        await until(pilot, lambda: len(app.unit_grid._rows) == 3, "everything")

    driven(Scripted(), script)


def test_enter_opens_a_unit_in_full_and_it_stays_alive() -> None:
    desk = Scripted()

    async def script(pilot: Pilot[None], app: Top) -> None:
        app.unit_grid.move_cursor(row=[x.key for x in app.unit_grid._rows].index("stream:shop"))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Detail), "the unit")
        await shows(pilot, "position", "8265", "1764000000000123", "tables", "shop.users")
        await look(pilot, app)
        await shows(pilot, f"{5000 + 200 * desk.looks:,}")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Page), "the fleet again")

    driven(desk, script, size=LARGE)


def test_t_shows_tables_and_back() -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("t")
        await shows(pilot, "shop.users", "1/3", "crm.people")
        assert "\x1b" not in screen(app)
        await pilot.press("t")
        await shows(pilot, "stream:shop")

    driven(Scripted(), script)


@pytest.mark.parametrize(("key", "what"), [("p", "pause"), ("r", "resume")])
def test_a_schema_is_paused_and_resumed_only_after_a_yes(key: str, what: str) -> None:
    desk = Scripted()

    async def script(pilot: Pilot[None], app: Top) -> None:
        app.unit_grid.move_cursor(row=[x.key for x in app.unit_grid._rows].index("stream:shop"))
        for no in ("n", "enter") if key == "p" else ():
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, Question), "the question")
            await shows(pilot, f"{what} schema shop?")
            await pilot.press(no)
            await until(pilot, lambda: not isinstance(app.screen, Question), "the fleet again")
        assert desk.asked == []
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, Question), "the question")
        await pilot.press("y")
        await until(pilot, lambda: desk.asked == [(what, "shop")], "the schema to be asked for")
        await shows(pilot, "done with [shop]")

    driven(desk, script)


def test_a_worker_is_drained_where_the_cursor_stands() -> None:
    desk = Scripted()

    async def script(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("d")  # from the units: first choose one
        await until(pilot, lambda: app.worker_grid.has_focus, "the workers")
        await pilot.press("down", "d")
        await until(pilot, lambda: isinstance(app.screen, Question), "the question")
        await shows(pilot, "drain worker host-2:42")
        await pilot.press("y")
        await until(pilot, lambda: desk.asked == [("drain", "host-2:42:ab2")], "the drain")

    driven(desk, script)


def test_a_fleet_that_cannot_be_seen_says_so_and_keeps_the_last_look() -> None:
    desk = Scripted()

    async def script(pilot: Pilot[None], app: Top) -> None:
        desk.trouble = LedgerUnavailable("no Redis at redis://u:hunter2@h", place="h")
        app._looks.now()
        await shows(pilot, "old:", "no Redis", "stream:shop")
        assert "hunter2" not in screen(app)
        desk.trouble = None
        await look(pilot, app)
        await shows(pilot, "1 failed")

    driven(desk, script)


def test_another_size_is_another_layout_at_once() -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        assert "verified" not in screen(app)
        await pilot.resize_terminal(*LARGE)
        await shows(pilot, "fence", "verified")
        await pilot.resize_terminal(*SMALL)
        await until(pilot, lambda: "verified" not in screen(app), "the small layout")

    driven(Scripted(), script)


def test_the_keys_are_explained() -> None:
    async def script(pilot: Pilot[None], app: Top) -> None:
        await pilot.press("question_mark")
        await shows(pilot, "pause the schema", "drain the worker", "waits for a worker")
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, Page), "the fleet again")

    driven(Scripted(), script, size=LARGE)
