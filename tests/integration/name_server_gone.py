"""A command of ours on a machine whose name server says nothing of one host, ever.

    python -m name_server_gone HOST workers.cli …

Each time it is asked, it says so on stderr.  Our own limit is shorter, for tests that wait.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from typing import Any

from warp import host_lookup

_answered = socket.getaddrinfo


def _look_up(host: Any, *rest: Any, **more: Any) -> Any:
    if host == _UNKNOWN:
        os.write(2, f"asked by {os.getpid()}\n".encode())
        threading.Event().wait()
    return _answered(host, *rest, **more)


if __name__ == "__main__":
    _UNKNOWN = sys.argv.pop(1)
    module = sys.argv.pop(1)
    socket.getaddrinfo = _look_up
    host_lookup.LIMIT = 1.0
    importlib.import_module(module).main()
