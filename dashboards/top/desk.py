"""What the screen asks of the fleet, and how it asks without standing still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from warp.errors import WarpError
from warp.fleet.picture import Picture
from warp.fleet.view import FleetView
from warp.options import redact

PAUSE: Final = "pause"
RESUME: Final = "resume"
DRAIN: Final = "drain"


class Desk(Protocol):
    """The fleet, for whoever watches it.  Used from several threads; raises WarpError."""

    def look(self) -> FleetView: ...

    def act(self, what: str, subject: str) -> str:
        """PAUSE or RESUME a schema, DRAIN a worker; what came of it, in words."""
        ...


class Looks:
    """Looks again and again from a thread of its own, which never keeps the process alive."""

    def __init__(
        self,
        desk: Desk,
        every: float,
        seen: Callable[[Picture], None],
        failed: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._every = every
        self._seen = seen
        self._failed = failed
        self._stop = threading.Event()
        self._again = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="looks", daemon=True).start()

    def now(self) -> None:
        """Look at once: something was changed."""
        self._again.set()

    def stop(self) -> None:
        self._stop.set()
        self._again.set()

    def _run(self) -> None:
        picture: Picture | None = None
        while not self._stop.is_set():
            try:
                picture = Picture.of(self._desk.look(), picture)
            except WarpError as error:
                self._failed(redact(" ".join(str(error).split())))
            else:
                self._seen(picture)
            self._again.wait(self._every)
            self._again.clear()


def in_background(act: Callable[[], str], told: Callable[[str, bool], None]) -> None:
    """Do something that may take a while; `told` hears what came of it, and whether it failed."""

    def run() -> None:
        try:
            said = act()
        except WarpError as error:
            told(redact(" ".join(str(error).split())), True)
        else:
            told(said, False)

    threading.Thread(target=run, name="act", daemon=True).start()
