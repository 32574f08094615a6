"""`cartridge-warp top`: the fleet live on a terminal, or look after look as text."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Final

import click

from commands.operate import have_done
from commands.status import open_ledger
from coordinator.status import StatusReader, as_json
from dashboards import plain as text
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import WarpError
from warp.fleet.picture import Picture
from warp.fleet.view import FleetView
from warp.interfaces import LeaseStore

MISSING: Final = (
    "the live screen needs the package textual: pip install 'cartridge-warp[top]'; "
    "meanwhile as text\n"
)


def run(
    settings: Settings,
    *,
    every: float,
    plain: bool,
    looks: int | None,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    live = sys.stdin.isatty() and sys.stdout.isatty() and not (plain or looks or as_json)
    if live and importlib.util.find_spec("textual") is None:
        sys.stderr.write(MISSING)
        live = False
    with contextlib.closing(FleetDesk(settings, assembly or Plugged(settings))) as desk:
        if not live:
            return as_text(desk, every=every, looks=looks, json_lines=as_json)
        from dashboards.top.app import Top  # late: it is not installed everywhere

        desk.look()  # what is wrong at the start is told as everywhere else
        screen = Top(desk, every=every)
        startup.on_signals(screen.leave)
        logging.disable()  # a line of the log would tear the screen, which tells trouble itself
        try:
            screen.run()
        finally:
            logging.disable(logging.NOTSET)
    return startup.DONE


def as_text(desk: FleetDesk, *, every: float, looks: int | None, json_lines: bool) -> int:
    """One look after the other on stdout, until it was asked to stop or nobody reads."""
    asked = [False]  # a plain flag: a signal may interrupt any lock's holder

    def ask() -> None:
        asked[0] = True

    startup.on_signals(ask)
    console, picture = text.console(), None
    for number in _counted(looks):
        try:
            picture = Picture.of(desk.look(), picture)
        except WarpError as error:
            if picture is None:
                raise
            sys.stderr.write(" ".join(str(error).split()) + "\n")
        else:
            if json_lines:
                click.echo(json.dumps(as_json(picture.fleet)))
            else:
                console.print(text.of_picture(picture))
                console.print()
        until = time.monotonic() + (every if number != looks else 0.0)
        while not asked[0] and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        if asked[0]:
            break
    return startup.DONE


def _counted(looks: int | None) -> Iterator[int]:
    number = 0
    while looks is None or number < looks:
        number += 1
        yield number


class FleetDesk:
    """Looks at the fleet and asks it for something, over connections of its own."""

    def __init__(self, settings: Settings, assembly: Assembly) -> None:
        self._settings = settings
        self._assembly = assembly
        self._ledger: LeaseStore = open_ledger(settings)
        self._reader = StatusReader(
            assembly,
            self._ledger,
            [schema.name for schema in settings.schemas],
            lease_ttl=settings.coordination.lease_ttl,
        )
        self._prepared = False

    def look(self) -> FleetView:
        # Who may only look is answered before the first start too, and nothing is created for it.
        if not self._prepared:
            with contextlib.closing(self._assembly.bookkeeping()) as destination:
                self._prepared = destination.metadata().prepared()
        if not self._prepared:
            return FleetView(as_of=time.time())
        return self._reader.look(with_news=True)

    def act(self, what: str, subject: str) -> str:
        """`pause` or `resume` a schema, as an errand; `drain` a worker, in the ledger."""
        if what == "drain":
            self._ledger.drain(subject)
            return f"{subject} drains: it gives its units back and takes no more"
        arguments = {"schema": subject}
        intent = have_done(self._settings, what, arguments, wait=True, assembly=self._assembly)
        if intent.status == "done":
            return f"{what}: {intent.result}"
        if intent.status == "failed":
            return f"{what} failed: {intent.result}"
        return f"{what} is stored as errand {intent.id}; a worker does it as soon as it can"

    def close(self) -> None:
        self._reader.close()
        self._ledger.close()
