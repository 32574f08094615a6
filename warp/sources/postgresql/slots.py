"""The replication slot: what holds the log for us."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog
from psycopg import errors, sql

from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Headroom
from warp.sources.postgresql.position import lsn_of, lsn_text
from warp.sources.postgresql.session import Server

log = structlog.get_logger(__name__)

PLUGIN: Final = "pgoutput"
_LETTING_GO: Final = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class SlotState:
    plugin: str
    database: str
    active_pid: int | None
    wal_status: str  # `lost`: the log it held is gone
    reason: str  # why it was invalidated, from PostgreSQL 17 on
    confirmed: int  # what comes before is not handed out any more
    safe_bytes: int | None  # until it is lost; None without max_slot_wal_keep_size
    retained_bytes: int | None  # of the log, held by it
    idle_for: float | None = None  # seconds since somebody followed it, from PostgreSQL 17 on
    idle_at_most: float | None = None  # and when it is dropped for that, from 18 on

    @property
    def lost(self) -> bool:
        return self.wal_status == "lost"


class Slot:
    """One slot of the server, by its name."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name

    def state(self) -> SlotState | None:
        rows = self._server.ask("slot", {"slot": self.name}, doing="look at the slot")
        if not rows:
            return None
        plugin, database, pid, status, reason, confirmed, safe, retained, *idle = rows[0]
        return SlotState(
            plugin or "(physical)",
            database or "",
            pid,
            status or "",
            reason,
            lsn_of(confirmed) if confirmed else 0,
            safe,
            retained,
            *idle,
        )

    def ensure(self) -> None:
        """Make it where it is not there, or where the log it held is gone."""
        state = self.state()
        if state is not None and state.lost:
            log.warning("slot_lost", slot=self.name, reason=state.reason or "its log was removed")
            self._drop()
            state = None
        if state is None:
            self._make()
        else:
            self.belongs(state)

    def belongs(self, state: SlotState) -> None:
        """Is it ours to follow?"""
        if state.plugin != PLUGIN or state.database != self._server.database:
            raise SourceRefused(
                f"the slot {self.name} was expected to be of {PLUGIN} in the database "
                f"{self._server.database}, found {state.plugin} in {state.database or 'none'}; "
                "name another with `slot:`, or drop it",
                place=self._server.explainer.place,
            )

    def let_go(self) -> None:
        """Give whoever followed it until now a moment to end: its walsender ends after it."""
        began = time.monotonic()
        while time.monotonic() - began < _LETTING_GO:
            state = self.state()
            if state is None or state.active_pid is None:
                return
            self._server.closed.wait(0.02)
            self._server.still_open()

    def _make(self) -> None:
        """Waits for every transaction that has written and is open; not for long.

        A slot knows only what begins after it, so the server makes it when those are over.
        """
        timeout = self._server.options.slot_timeout
        # It waits for those transactions by their locks.
        connection = self._server.connect(statement_timeout=timeout, lock_timeout=0.0)
        make = sql.SQL("SELECT pg_catalog.pg_create_logical_replication_slot({}, {})")
        try:
            with self._server.meaning(f"make the slot {self.name}"):
                try:
                    connection.execute(make.format(sql.Literal(self.name), sql.Literal(PLUGIN)))
                except errors.DuplicateObject:
                    return  # another process was first
                except errors.QueryCanceled as error:
                    self._server.still_open()
                    raise SourceUnavailable(
                        f"the slot {self.name} was expected to be made within {timeout:g} s, "
                        f"found transactions that are older and open: {self.running()}; end them "
                        "(select pg_terminate_backend(PID)), or raise `slot_timeout`; "
                        "it is tried again",
                        place=self._server.explainer.place,
                    ) from error
        finally:
            self._server.give_back(connection)
        log.info("slot_made", slot=self.name)

    def _drop(self) -> None:
        drop = sql.SQL(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) "
            "FROM pg_catalog.pg_replication_slots WHERE slot_name = {}"
        )
        self._server.ask(drop.format(sql.Literal(self.name)), doing="drop the lost slot")

    def running(self) -> str:
        """Who is in a transaction that has written, for a message."""
        rows = self._server.ask("running", doing="look at open transactions")
        said = [
            (f"pid {pid}" if pid else f"prepared transaction {name!r}")
            + (f" for {seconds:.0f} s" if seconds is not None else "")
            for pid, name, seconds in rows[:10]
        ]
        return ", ".join(said) or "none any more"


def headroom(name: str, state: SlotState | None, marker: int) -> Headroom:
    """What a slot still holds behind a marker, and how much more may be written.  Pure."""
    if state is None:
        return Headroom(f"the slot {name} is gone", 0.0, lost=True)
    mend = "raise max_slot_wal_keep_size (ALTER SYSTEM SET …; SELECT pg_reload_conf())"
    if state.lost:
        why = f"the slot {name} is lost ({state.reason or 'its log was removed'})"
        return Headroom(why, 0.0, bytes=0, lost=True, mend=mend)
    retained = state.retained_bytes
    # While it is followed, the marker that was read a moment ago may be the older of the two.
    if state.confirmed > marker and state.active_pid is None:
        why = (
            f"the slot {name} has let go of the log up to {lsn_text(state.confirmed)}, and the "
            f"marker is at {lsn_text(marker)}"
        )
        return Headroom(why, 0.0, retained=retained, lost=True)
    told = f"the slot {name} ({state.wal_status}) holds {retained or 0:,} bytes of the log"
    ratio, room, seconds = 1.0, None, None
    if state.safe_bytes is None:
        told += " and may hold any number"
    else:
        room = max(0, state.safe_bytes)
        ratio = room / max(1, room + (retained or 0))
        told += f" and {room:,} more until it is lost"
    if state.idle_at_most and state.active_pid is None and state.idle_for is not None:
        seconds = max(0.0, state.idle_at_most - state.idle_for)
        ratio = min(ratio, seconds / state.idle_at_most)
        told += f"; nobody follows it, for which it is lost in {seconds:.0f} s"
        mend = "raise idle_replication_slot_timeout, or let the stream run"
    return Headroom(told, ratio, seconds, room, retained=retained, mend=mend)
