"""Names of hosts looked up within a time, whatever the C library does.

Every driver of ours asks `socket.getaddrinfo`, and their time-outs begin only once there is an
address.  Where a name server does not answer, glibc asks for 10 s, for each server and for each
search domain again, which in a pod is a minute; and nothing ends that call, no signal and nobody
who closes the connection.  A worker that was told to end did not [seen].

So a lookup is made in a thread, and who wants to know waits for a while.  In one place for all
drivers, those of connectors that we do not know too.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

LIMIT = 6.0  # seconds; where the first name server is dead, glibc asks the second after 5
_STALE: Final = 60.0  # seconds, after which an answer that came too late is worth nothing

Answer = list[Any]


class Lookups:
    """A `getaddrinfo` that says "try again" after `limit` seconds.

    A question that is still unanswered is not asked a second time: who asks it waits for the rest
    of its time, so that the threads are no more than the names, and after a failure the next one
    comes at once.  An answer that comes too late is kept for the next who asks: a slow name server
    makes a slow start, and not none.
    """

    def __init__(
        self, look_up: Callable[..., Answer], *, limit: float, stale: float = _STALE
    ) -> None:
        self._look_up = look_up
        self._limit = limit
        self._stale = stale
        self._lock = threading.Lock()
        self._unanswered: dict[tuple[Any, ...], _Question] = {}

    def __call__(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Answer:
        words = (host, port, family, type, proto, flags)
        if not _is_name(host):
            return self._look_up(*words)
        question = self._asked(words)
        if not question.over.wait(max(0.0, question.at + self._limit - time.monotonic())):
            raise socket.gaierror(
                socket.EAI_AGAIN, f"no name server has answered within {self._limit:g} s"
            )
        with self._lock:  # it has done its service: names move
            if self._unanswered.get(words) is question:
                del self._unanswered[words]
        return question.answer()

    def _asked(self, words: tuple[Any, ...]) -> _Question:
        with self._lock:
            question = self._unanswered.get(words)
            if question is None or question.has_been_over_since(self._stale):
                question = self._unanswered[words] = _Question(self._look_up, words)
            return question


class _Question:
    """One call that is under way, or over."""

    def __init__(self, look_up: Callable[..., Answer], words: tuple[Any, ...]) -> None:
        self.at = time.monotonic()
        self.over = threading.Event()
        self._answered_at = 0.0
        self._answer: Answer = []
        self._error: OSError | UnicodeError | None = None

        def ask() -> None:
            try:
                self._answer = look_up(*words)
            except (OSError, UnicodeError) as error:  # no such host, or no name at all
                self._error = error
            finally:
                self._answered_at = time.monotonic()
                self.over.set()

        threading.Thread(target=ask, name=f"lookup {words[0]}", daemon=True).start()

    def has_been_over_since(self, seconds: float) -> bool:
        return self.over.is_set() and time.monotonic() - self._answered_at > seconds

    def answer(self) -> Answer:
        if self._error is not None:
            raise self._error
        return self._answer


def bound() -> None:
    """From here on every lookup of this process ends within `LIMIT`."""
    if not isinstance(socket.getaddrinfo, Lookups):
        socket.getaddrinfo = Lookups(socket.getaddrinfo, limit=LIMIT)


def _is_name(host: Any) -> bool:
    """Whether anybody has to be asked."""
    if not isinstance(host, str) or not host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
