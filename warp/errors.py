"""Every error this project raises, arranged by what happens next.

WarpError
├── ConfigError             stop, exit code 2: a person must edit something
├── TransientError          wait and try again, keeping the lease
│   ├── SourceUnavailable
│   ├── DestinationUnavailable
│   │   └── SchemaBusy      a table is in use: change it later, write on meanwhile where possible
│   └── LedgerUnavailable
├── LeaseLost               forget the batch, write nothing, claim again
│   └── FenceBehind         a newer fence stands in the destination: refence, or forget the unit
├── SchemaMoved             the table changed under us: read its schema again, evolve anew
├── PositionLost            stop the unit: its place in the log is gone
├── UnitFailed              stop the unit: waiting mends nothing (rights, settings, a bug)
│   ├── SourceRefused
│   └── DestinationRefused
├── StartFailed             stop the process, exit code 1: port taken, no server to start
├── ErrandRefused           do nothing: not what an operator asked for
└── UnitRefused             do not begin it: not what a coordinator offered

The set is closed.  Each class carries a stable `code`, and for docs/errors.md its meaning (the
docstring), what happens next (`then`) and what a person does (`advice`).  A message says what was
expected, what was found and what to do, in that order, and never holds a secret (guarantee 10).
"""

from __future__ import annotations

from typing import ClassVar


class WarpError(Exception):
    """Something nobody foresaw: a fault of ours or of the surroundings."""

    code: ClassVar[str] = "WARP-000"
    then: ClassVar[str] = (
        "The unit fails and is tried again, after waits that grow as `error_handling` says; after "
        "`max_retries` failures in a row it stops. Everything else goes on."
    )
    advice: ClassVar[str] = (
        "Read the message and the lines before it in the log; report it. Once mended: "
        "`cartridge-warp revive UNIT`."
    )

    # `str()` starts with the code, as logs and terminals show it.
    def __init__(self, message: str, *, place: str = "") -> None:
        self.message = message
        self.place = place  # the unit, table or configuration path it is about
        super().__init__(message)

    def __str__(self) -> str:
        where = f" {self.place}:" if self.place else ""
        return f"{self.code}{where} {self.message}"


class ConfigError(WarpError):
    """A person must edit something: unknown key, wrong value, missing block, wrong argument."""

    code = "WARP-100"
    then = "The process stops with exit code 2. A unit that meets it later stops until revived."
    advice = "Edit the named path; `cartridge-warp validate` tells whether it is right now."


class TransientError(WarpError):
    """Waiting helps."""

    code = "WARP-200"
    then = (
        "The unit keeps its lease and tries again from its marker, for as long as it takes, after "
        "waits that grow up to `error_handling.max_delay`. It does not count against `max_retries`."
    )
    advice = "Nothing, unless it lasts."


class SourceUnavailable(TransientError):
    """The source does not answer, or not now."""

    code = "WARP-210"
    advice = (
        "Look at the source: is it up, is it reachable from here? Mind how far back its log "
        "reaches: a stream that waits for longer than that loses its place (WARP-400)."
    )


class DestinationUnavailable(TransientError):
    """The destination does not answer, or not now: it restarts, is locked, or has no disk left."""

    code = "WARP-220"
    advice = "Look at the destination: is it up, locked, out of connections or of disk?"


class SchemaBusy(DestinationUnavailable):
    """Somebody reads or writes a table for so long that its columns cannot be changed now.

    Nothing was changed, and nobody waits behind us: the lock is asked for briefly, again and again.
    """

    code = "WARP-221"
    then = (
        "A new field waits in `_extra` for its column, and so does a value its column must be "
        "widened for, where the table has `_extra`. Elsewhere the unit keeps its lease and waits."
    )
    advice = "End the long transaction that holds the table (`pg_stat_activity`), or wait for it."


class LedgerUnavailable(TransientError):
    """Redis does not answer."""

    code = "WARP-230"
    then = (
        "Units go on until 0.8 of their lease is over, then stop at a batch boundary and are "
        "claimed again when Redis is back. Nothing is lost, also if Redis comes back empty."
    )
    advice = "Look at Redis; docs/operations/redis.md says what it needs."


class LeaseLost(WarpError):
    """This worker no longer owns the unit.  A normal event, never a failure of the unit."""

    code = "WARP-300"
    then = "The worker forgets the batch, writes nothing, and claims other work."
    advice = "Nothing. If it happens all the time: is the machine starved, is Redis slow?"


class FenceBehind(LeaseLost):
    """`open` or `write_batch` met a fence at least as new as ours in the destination."""

    code = "WARP-310"
    then = "The same: a newer owner is at work, or somebody moved the unit's marker by hand."

    def __init__(self, message: str, *, found: int, place: str = "") -> None:
        self.found = found  # the fence that stands in the destination
        super().__init__(message, place=place)


class SchemaMoved(WarpError):
    """The destination's table has another schema version than the batch was shaped for.

    Nothing was written.
    """

    code = "WARP-320"
    then = "The table's schema is read again and the same batch is shaped anew."
    advice = "Nothing: a normal event."


class PositionLost(WarpError):
    """The source no longer has the log to resume from.  It is never skipped (guarantee 6)."""

    code = "WARP-400"
    then = "The unit stops until a person acts; everything else goes on."
    advice = (
        "`cartridge-warp recover SCHEMA` lets the stream go on, compares the tables with the "
        "source beside it and writes only rows that differ. Where rows cannot be compared it says "
        "so: then `cartridge-warp resync SCHEMA` reads them anew. Keep a larger log at the source."
    )


class UnitFailed(WarpError):
    """The unit cannot go on and waiting would not mend it."""

    code = "WARP-500"
    then = "The unit stops until a person acts; everything else goes on."
    advice = "Do what the message says; then `cartridge-warp revive UNIT`."


class SourceRefused(UnitFailed):
    """Wrong credentials, missing rights or a server setting at the source."""

    code = "WARP-510"
    advice = (
        "Give the named right or change the named setting at the source; then "
        "`cartridge-warp revive UNIT`."
    )


class DestinationRefused(UnitFailed):
    """Wrong credentials, missing rights or a server setting at the destination.

    Also a row that cannot be stored where `dead_letter_queue` is off.
    """

    code = "WARP-520"
    advice = (
        "Give the named right or change the named setting at the destination; then "
        "`cartridge-warp revive UNIT`."
    )


class StartFailed(WarpError):
    """The process cannot start: a port is taken, an embedded server is missing."""

    code = "WARP-600"
    then = "The process stops with exit code 1."
    advice = "Free the port, install the named extra, or start the named server."


class ErrandRefused(WarpError):
    """Something in rq's queue that is no errand of ours."""

    code = "WARP-700"
    then = "Nothing is done or imported; what operators did ask for is carried out all the same."
    advice = "Find out who writes to this Redis; docs/operations/redis.md has the rights it needs."


class UnitRefused(WarpError):
    """Something in the ledger that is no unit of ours."""

    code = "WARP-710"
    then = (
        "It is not begun. A unit of ours whose record was spoiled is written anew by the "
        "coordinator's next round and goes on; what nobody configured is forgotten."
    )
    advice = "Find out who writes to this Redis; docs/operations/redis.md has the rights it needs."
