"""PostgreSQL connections that wait for no answer for ever.

A host that vanished is noticed by the kernel: nothing that we send is acknowledged, and after
`tcp_user_timeout`, or after three keepalives, the connection is gone.  A proxy, a load balancer or
a sidecar in between acknowledges all of it, whatever has become of the server behind it; then only
the answer that does not come can tell.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow


class AnsweredConnection(Connection[TupleRow]):
    """`answers_within` seconds is how long one statement, or one part of a COPY, may take to be
    answered; None for as long as it takes.  Beyond that the connection is given up.

    To be longer than the server's own `statement_timeout`, which ends what is merely slow and keeps
    the connection.
    """

    answers_within: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        if self.answers_within is not None:
            gen = self._watched(gen, self.answers_within)
        return super().wait(gen, *arguments, **options)

    def _watched(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        """The driver asks again ten times a second, also while nothing comes."""
        until = time.monotonic() + seconds
        try:
            waits_for = next(gen)
            while True:
                ready = yield waits_for
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()  # else a ROLLBACK would wait as long again
                    raise psycopg.OperationalError(
                        f"the server did not answer within {seconds:g} s; the connection is lost"
                    )
                waits_for = gen.send(ready)
        except StopIteration as done:
            return done.value


def patience(statement_timeout: float) -> float | None:
    """How long to wait for answers under a server's limit; None where it has none."""
    return 1.5 * statement_timeout if statement_timeout else None
