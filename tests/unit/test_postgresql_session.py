"""The source's connections to PostgreSQL, where several threads end them."""

from __future__ import annotations

import threading
from typing import Any

from warp.sources.postgresql.options import PostgresSourceOptions
from warp.sources.postgresql.session import Server


class Closable:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_server_that_two_threads_close_at_once_is_closed_once() -> None:
    """As where a worker hands back a unit while the unit's own thread ends."""
    url = "postgresql://shop@localhost/shop"
    server = Server(PostgresSourceOptions.model_validate({"connection_string": url}))
    kept: Any = Closable()
    server._kept = kept
    failed: list[BaseException] = []

    def close() -> None:
        try:
            server.close()
        except BaseException as error:  # noqa: BLE001 - raised in a thread nobody looks at
            failed.append(error)

    with server._asking:  # the other one is inside
        thread = threading.Thread(target=close)
        thread.start()
        while not server.closed.is_set():
            pass
        server.give_back(kept)
        server._kept = None
    thread.join()
    assert failed == []
    assert kept.closed
