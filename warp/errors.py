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
└── StartFailed             stop the process, exit code 1: port taken, no server to start

Each class carries a stable `code`.  A message says what was expected, what was found and what
to do, in that order, and never holds a secret (guarantee 10).
"""

from __future__ import annotations

from typing import ClassVar


class WarpError(Exception):
    """Base class of all errors; `str()` starts with the code, as logs and terminals show it."""

    code: ClassVar[str] = "WARP-000"

    def __init__(self, message: str, *, place: str = "") -> None:
        self.message = message
        self.place = place  # the unit, table or configuration path it is about
        super().__init__(message)

    def __str__(self) -> str:
        where = f" {self.place}:" if self.place else ""
        return f"{self.code}{where} {self.message}"


class ConfigError(WarpError):
    """A person must edit something: unknown key, wrong value, missing block."""

    code = "WARP-100"


class TransientError(WarpError):
    """Waiting helps."""

    code = "WARP-200"


class SourceUnavailable(TransientError):
    code = "WARP-210"


class DestinationUnavailable(TransientError):
    code = "WARP-220"


class SchemaBusy(DestinationUnavailable):
    """Somebody reads or writes a table for so long that its columns cannot be changed now.

    Nothing was changed, and nobody waits behind us: the lock is asked for briefly, again and again.
    """

    code = "WARP-221"


class LedgerUnavailable(TransientError):
    code = "WARP-230"


class LeaseLost(WarpError):
    """This worker no longer owns the unit.  A normal event, never a failure of the unit."""

    code = "WARP-300"


class FenceBehind(LeaseLost):
    """`open` or `write_batch` met a fence at least as new as ours in the destination."""

    code = "WARP-310"

    def __init__(self, message: str, *, found: int, place: str = "") -> None:
        self.found = found  # the fence that stands in the destination
        super().__init__(message, place=place)


class SchemaMoved(WarpError):
    """The destination's table has another schema version than the batch was shaped for.

    Nothing was written.  Read the schema again and evolve the same batch anew.
    """

    code = "WARP-320"


class PositionLost(WarpError):
    """The source no longer has the log to resume from.  Never skip ahead (guarantee 6)."""

    code = "WARP-400"


class UnitFailed(WarpError):
    """The unit cannot go on and waiting would not mend it."""

    code = "WARP-500"


class SourceRefused(UnitFailed):
    """Wrong credentials, missing rights or a server setting at the source."""

    code = "WARP-510"


class DestinationRefused(UnitFailed):
    """Wrong credentials, missing rights or a server setting at the destination."""

    code = "WARP-520"


class StartFailed(WarpError):
    """The process cannot start: a port is taken, an embedded server is missing."""

    code = "WARP-600"
