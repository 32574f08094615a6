"""A TCP proxy in front of PostgreSQL that breaks one connection exactly at a COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

_COMMIT = b"COMMIT\0"


class Cut(StrEnum):
    BEFORE = "before the server saw it"
    DURING = "while the server is at it"
    AFTER = "after the server did it"


class CuttingProxy:
    """Cuts at the n-th COMMIT that any connection sends; every other connection goes through."""

    def __init__(self, url: str, nth: int, when: Cut) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._left = nth
        self._when = when
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        login = f"{parts.username}:{parts.password}" if parts.password else f"{parts.username}"
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://{login}@127.0.0.1:{port}{parts.path}"
        self.cut = False
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._hang_up(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            doomed = threading.Event()
            for pump in (self._to_server, self._to_client):
                thread = threading.Thread(target=pump, args=(client, server, doomed))
                self._threads.append(thread)
                thread.start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if _COMMIT in data and self._is_its_turn():
                    self.cut = True
                    if self._when is Cut.AFTER:
                        doomed.set()  # the answer proves that it was done, and is kept back
                        server.sendall(data)
                        continue
                    if self._when is Cut.DURING:
                        server.sendall(data)
                    break
                server.sendall(data)
        self._hang_up(client, *([] if doomed.is_set() else [server]))

    def _to_client(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if doomed.is_set():
                    break
                client.sendall(data)
        self._hang_up(client, server)

    def _is_its_turn(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0

    def _hang_up(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
