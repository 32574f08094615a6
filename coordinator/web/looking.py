"""One look at a time for everybody who watches, and none while nobody does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from warp.errors import WarpError
from warp.fleet.picture import Picture
from warp.fleet.view import FleetView
from warp.options import redact

log = structlog.get_logger(__name__)

EVERY: Final = 2.0  # seconds
STALE: Final = 30.0  # seconds after which the course of a rate begins anew


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look found: a picture, or why there is none."""

    number: int
    picture: Picture | None
    trouble: str = ""


class Lookout:
    """Looks from a thread of its own for as long as somebody waits for what it sees."""

    def __init__(self, look: Callable[[], FleetView], *, every: float = EVERY) -> None:
        self._look = look
        self._every = every
        self._changed = threading.Condition()
        self._watchers = 0
        self._looking = False
        self._closed = False
        self._last = Sight(0, None)
        self._seen_at = 0.0

    @property
    def watchers(self) -> int:
        return self._watchers

    def enter(self, most: int) -> bool:
        """One watcher more; False where there are too many."""
        with self._changed:
            if self._watchers >= most or self._closed:
                return False
            self._watchers += 1
            if not self._looking:
                self._looking = True
                threading.Thread(target=self._run, name="lookout", daemon=True).start()
            return True

    def leave(self) -> None:
        with self._changed:
            self._watchers -= 1
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> Sight | None:
        """What was seen since the sight of this number; None when there is nothing in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._last.number > number, timeout)
            return None if self._closed or self._last.number <= number else self._last

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            sight = self._sight()
            with self._changed:
                self._last = sight
                self._changed.notify_all()
                left = self._every - (time.monotonic() - begun)
                self._changed.wait_for(lambda: self._over, max(0.1, left))
                if self._over:
                    self._looking = False
                    return

    @property
    def _over(self) -> bool:
        return self._closed or self._watchers == 0

    def _sight(self) -> Sight:
        number = self._last.number + 1
        before = self._last.picture
        if before is not None and time.monotonic() - self._seen_at > STALE:
            before = None
        try:
            picture = Picture.of(self._look(), before)
        except WarpError as error:
            log.warning("page_not_renewed", error=redact(str(error)))
            return Sight(number, before, redact(str(error)))
        self._seen_at = time.monotonic()
        return Sight(number, picture)
