"""At which version a chunk of a table is read.

In PostgreSQL a transaction's commit record can be in the log, and be streamed and applied, before
new snapshots see it: while it waits for a standby, or for its turn.  A chunk read in between holds
the old row, and must not overrule the new one (guarantee 4).

So the version S of a chunk is read first, then those who may have written to the table are waited
for, then the snapshot is opened.  Whoever is not visible in it has not written its commit record
before S: either it has written to the table only since, or it was seen not to be committing after S
was read.  S being too low is harmless, since the stream's rows are then applied once more.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from warp.errors import SourceRefused, SourceUnavailable
from warp.model import TableId
from warp.sources.postgresql.position import lsn_of
from warp.sources.postgresql.session import Server

log = structlog.get_logger(__name__)

_LOOK_AGAIN: Final = 0.05
_SPEAK_AFTER: Final = 1.0


def flushed(server: Server, publication: str = "") -> int:
    """The end of the log that would survive a crash."""
    rows = server.ask("log_end", {"publication": publication}, doing="read the log's end")
    in_recovery, end, *_ = rows[0]
    if in_recovery:
        raise standby(server)
    return lsn_of(end)


def standby(server: Server) -> SourceRefused:
    return SourceRefused(
        "a primary was expected, found a standby, whose log cannot be followed; name the primary "
        "in the connection string, or add target_session_attrs=read-write to it",
        place=server.explainer.place,
    )


def settled_version(server: Server, table: TableId, oid: int, publication: str) -> int:
    """S, once a snapshot opened from now on sees everything older that was done to the table."""
    version = flushed(server)
    wait_for_writers(server, table, oid, publication)
    return version


def wait_for_writers(server: Server, table: TableId, oid: int, publication: str) -> None:
    """Until everybody who may be committing a change of this table now has done so."""
    waiting = _writers(server, oid, publication)
    began = time.monotonic()
    said = False
    while waiting:
        waited = time.monotonic() - began
        if waited > server.options.snapshot_wait:
            raise SourceUnavailable(
                f"the transactions that wrote to the table were expected to end within "
                f"{server.options.snapshot_wait:g} s, found still running: {_names(waiting)}; "
                "end them (select pg_terminate_backend(PID)), or wait; it is tried again",
                place=str(table),
            )
        if waited > _SPEAK_AFTER and not said:
            said = True
            log.info("chunk_waits_for_writers", table=str(table), writers=_names(waiting))
        server.closed.wait(_LOOK_AGAIN)
        server.still_open(str(table))
        now = _writers(server, oid, publication)
        # Those who came since began after S.
        waiting = {who: now[who] for who in waiting if who in now}


def _writers(server: Server, oid: int, publication: str) -> dict[str, str]:
    rows = server.ask(
        "writers", {"oid": oid, "publication": publication}, doing="look for writers of a table"
    )
    return {
        transaction: (f"pid {pid}" if pid else f"prepared transaction {transaction}")
        + f" ({state})"
        for transaction, pid, state, waiting in rows
        if waiting
    }


def _names(writers: dict[str, str]) -> str:
    return ", ".join(sorted(writers.values()))
