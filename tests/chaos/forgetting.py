"""Whether a source is told to forget its log only up to where the destination is (guarantee 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

import psycopg
import pymysql
from evidence import Span
from fleet import Fleet

PAUSE: Final = 0.1  # seconds between two looks


class Forgetting:
    """Looks again and again, from a thread of its own."""

    def __init__(
        self, fleet: Fleet, forgotten: Callable[[], int | None], span: Callable[[str], Span]
    ) -> None:
        self.early: list[str] = []
        self._fleet = fleet
        self._forgotten = forgotten
        self._span = span
        self._looks = 0
        self._told = 0  # how far it was told at the last look
        self.moved = 0  # looks at which it had been told more
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="forgetting")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def said(self) -> list[str]:
        looks = f"the source was told to forget {self.moved} times, of {self._looks} looks"
        return [looks] if self._looks else []

    def _look_again(self) -> None:
        while not self._over.wait(PAUSE):
            # In this order: a marker only ever moves on.
            told = self._forgotten()
            durable = self._durable() if told is not None else None
            if told is None or durable is None:
                continue
            self._looks += 1
            self.moved += told > self._told
            self._told = told
            if told > durable:
                self.early.append(
                    f"a source that was told to forget up to {told}: the marker is at {durable}"
                )

    def _durable(self) -> int | None:
        """None while nobody can say."""
        try:
            rows = self._fleet.warehouse.read(
                "select position from {meta}.sync_markers where unit = %s", self._fleet.stream
            )
        except (psycopg.Error, pymysql.err.Error, OSError):
            return None
        return self._span(rows[0][0])[0] if rows and rows[0][0] else None
