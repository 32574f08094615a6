"""Named points at which a chaos test kills or stops its own process.

Nothing here costs anything in production: unless `CARTRIDGE_WARP_FAULT` was set when the process
started, `hit` does nothing.  `after_marker:kill:3` sends SIGKILL the third time `after_marker` is
passed; `after_marker:stop` sends SIGSTOP the first time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping

VARIABLE = "CARTRIDGE_WARP_FAULT"

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _nothing(name: str) -> None:
    pass


def _to_this_thread(pid: int, number: int) -> None:
    # Sent to the process, another thread may take the signal first, and this one runs on for a
    # moment: a worker that was to stop before its first statement had made it and held its lock.
    signal.pthread_kill(threading.get_ident(), number)


def armed(
    environment: Mapping[str, str], send: Callable[[int, int], None] = _to_this_thread
) -> Callable[[str], None]:
    """What `hit` does under this environment."""
    order = environment.get(VARIABLE)
    if not order:
        return _nothing
    point, _, rest = order.partition(":")
    action, _, count = rest.partition(":")
    if action not in _SIGNALS:
        raise ValueError(f"{VARIABLE} must be POINT:kill[:N] or POINT:stop[:N], found {order!r}")
    left = int(count or 1)

    def strike(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                send(os.getpid(), _SIGNALS[action])

    return strike


hit: Callable[[str], None] = armed(os.environ)
