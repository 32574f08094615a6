"""A TCP proxy that delays, holds up or cuts all that passes between a fleet and one server."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from enum import StrEnum
from typing import Final, Self

LOCALHOST: Final = "127.0.0.1"
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close says RST, as a cut wire's end does


class State(StrEnum):
    WHOLE = "whole"
    SLOW = "slow"  # each piece comes later
    HELD = "held"  # nothing passes, and nobody is told
    CUT = "cut"  # every connection breaks, and no new one is made


class Wire:
    """Listens on a port of its own for connections to one server."""

    def __init__(self, name: str, server: int, delay: float = 0.1) -> None:
        self.name = name
        self._server = server
        self._delay = delay
        self._listener = socket.create_server((LOCALHOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._state = State.WHOLE
        self._whole = threading.Event()
        self._whole.set()
        self._closed = False
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, name=f"wire {name}", daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        self.mend()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._break()
        self._acceptor.join()

    def through(self, address: str) -> str:
        """The connection string, by way of this wire."""
        return re.sub(rf"(:|port=){self._server}\b", rf"\g<1>{self.port}", address)

    def become(self, state: State) -> None:
        self._state = state
        if state is State.CUT:
            self._break()
        if state in (State.WHOLE, State.SLOW):
            self._whole.set()
        else:
            self._whole.clear()

    def mend(self) -> None:
        self.become(State.WHOLE)

    def _break(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # A thread that waits in recv keeps the connection open until it is told.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._state is State.CUT:
                self._drop(client)
                continue
            try:
                server = socket.create_connection((LOCALHOST, self._server), timeout=5)
            except OSError:  # it is being started
                self._drop(client)
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._ends |= {client, server}
            for source, destination in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, destination), daemon=True).start()

    def _pump(self, source: socket.socket, destination: socket.socket) -> None:
        patience = threading.Event()
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._state is State.SLOW:
                    patience.wait(self._delay)
                self._whole.wait()
                destination.sendall(data)
        with self._lock:
            self._ends -= {source, destination}
        for end in (source, destination):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
