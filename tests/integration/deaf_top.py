"""The live screen over a fleet that stands still, in a process that is never told that its terminal
has changed its size."""

from __future__ import annotations

import signal

from fleet_scene import fleet

from dashboards.top.app import Top
from warp.fleet.view import FleetView


class Scene:
    def look(self) -> FleetView:
        return fleet()

    def act(self, what: str, subject: str) -> str:
        raise AssertionError("nobody acts")


if __name__ == "__main__":
    # Threads that are started later inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    Top(Scene(), every=0.2).run()
