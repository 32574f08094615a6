"""`resync`, `revive`, `pause`, `resume`: errands, stored first, then sent and waited for.

Where nobody takes an errand (no worker runs, or Redis is a cluster) it is carried out here, by the
very function that a worker's errand runner calls.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import click

# First: it tells rq where to keep its keys.
from warp.errands import LONGEST, ErrandQueue, intend

# isort: split
from rich.console import Console

from commands.status import open_ledger
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError, TransientError, WarpError
from warp.interfaces import LeaseStore, MetadataStore
from warp.model import Intent
from workers.errands import Desk, carry_out, examine

ANSWER: Final = 3.0  # seconds for a runner to begin: it looks every second
LIMIT: Final = LONGEST + 10.0
LOOK_EVERY: Final = 0.1


def ask(
    settings: Settings,
    name: str,
    arguments: Mapping[str, str],
    *,
    wait: bool,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    """Have an errand done and tell what came of it; without `wait`, only store and send it."""
    with _waiting(name) if wait else contextlib.nullcontext():
        intent = have_done(settings, name, arguments, wait=wait, assembly=assembly)
    _tell(intent, as_json=as_json)
    if intent.status == "open" and not wait:
        return startup.DONE  # as it was wished
    return startup.DONE if intent.status == "done" else startup.FAILED


def have_done(
    settings: Settings,
    name: str,
    arguments: Mapping[str, str],
    *,
    wait: bool,
    assembly: Assembly | None = None,
) -> Intent:
    """Have an errand done, and print nothing; without `wait`, only store and send it."""
    assembly = assembly or Plugged(settings)
    if "schema" in arguments:
        settings.schema(arguments["schema"])
    with contextlib.ExitStack() as stack:
        metadata = stack.enter_context(contextlib.closing(assembly.bookkeeping())).metadata()
        metadata.prepare()
        ledger = stack.enter_context(contextlib.closing(open_ledger(settings)))
        examine(Desk(metadata, ledger, assembly), **arguments)
        asked = Asked(name, metadata, ledger, assembly)
        with _queue(settings) as queue:
            return asked.submit(settings, queue, arguments, wait=wait)


@dataclass(frozen=True, slots=True)
class Asked:
    """One errand, seen from the side of whoever asks for it."""

    name: str
    metadata: MetadataStore
    ledger: LeaseStore
    assembly: Assembly

    def submit(
        self,
        settings: Settings,
        queue: ErrandQueue | None,
        arguments: Mapping[str, str],
        *,
        wait: bool,
    ) -> Intent:
        if queue is not None:
            id = queue.submit(self.metadata, self.name, arguments)
        else:
            id = intend(self.metadata, self.name, arguments)
            if settings.coordination.redis_url is not None:
                return self._here(id)  # a cluster, where nobody carries errands
        if not wait:
            return self._intent(id)
        # Without a Redis in common, a runner beside its own finds the intent in the metadata.
        intent = self._until_over(id, ANSWER)
        if intent.status != "open":
            return intent
        if queue is None or queue.take_back(id):
            return self._here(id)
        return self._until_over(id, LIMIT)

    def _here(self, id: str) -> Intent:
        """Carry it out in this process."""
        try:
            carry_out(id, self.name, self.ledger, self.assembly)
        except TransientError as error:
            raise type(error)(
                f"{error.message}; {self.name} is stored as errand {id}, and the next worker that "
                "finds everything in reach carries it out",
                place=error.place,
            ) from error
        except WarpError:
            # Its reason is in the intent, where a runner would have left it too.
            if self._intent(id).status == "open":
                raise
        return self._intent(id)

    def _until_over(self, id: str, limit: float) -> Intent:
        """The intent when it is over, or as it is after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (intent := self._intent(id)).status == "open" and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
        return intent

    def _intent(self, id: str) -> Intent:
        [intent] = self.metadata.errands(id)
        return intent


@contextlib.contextmanager
def _queue(settings: Settings) -> Iterator[ErrandQueue | None]:
    """The way to the runners; None where there is none."""
    coordination = settings.coordination
    if coordination.redis_url is None:
        yield None
        return
    try:
        queue = ErrandQueue(coordination.redis_url, coordination.namespace)
    except ConfigError:  # a cluster: that the URL is one, the ledger has seen
        yield None
        return
    with contextlib.closing(queue):
        yield queue


@contextlib.contextmanager
def _waiting(name: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(f"{name}: waiting for a worker to carry it out"):
        yield


def _tell(intent: Intent, *, as_json: bool) -> None:
    if as_json:
        shown = {"errand": intent.id, "name": intent.name, "status": intent.status}
        click.echo(json.dumps(shown | {"result": intent.result}))
    elif intent.status == "done":
        click.echo(f"{intent.name}: {intent.result}")
    elif intent.status == "failed":
        sys.stderr.write(f"{intent.name} failed: {intent.result}\n")
    else:
        sys.stderr.write(
            f"{intent.name} is stored as errand {intent.id} and not carried out yet; a worker "
            "does it as soon as it can\n"
        )
