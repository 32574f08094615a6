"""Which files of the binary log are kept, and for how long the one that a marker stands in is.

The server deletes whole files, by the age of the last change in each: a file that is written to is
safe, one before it is not once `binlog_expire_logs_seconds` have passed since the next was begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from warp.model import Headroom
from warp.sources.mysql import preflight
from warp.sources.mysql.binlog.gtid import GtidSet, MariaPosition
from warp.sources.mysql.connection import Connection
from warp.sources.mysql.position import OwnFiles, Place

_LIMITS: Final = ("binlog_expire_logs_seconds", "expire_logs_days")
_WEEK: Final = 7 * 86_400


@dataclass(frozen=True, slots=True)
class File:
    name: str
    size: int


class KeptFiles:
    """The log files of one server."""

    def __init__(
        self, connection: Callable[[], Connection], begun_at: Callable[[str], int]
    ) -> None:
        self._connection = connection
        self._begun_at = begun_at
        self._begun: dict[File, int] = {}  # when a file was begun, of those that are closed

    def headroom(self, place: Place) -> Headroom:
        connection = self._connection()
        files = [File(name, size) for name, size, *_ in connection.rows("SHOW BINARY LOGS")]
        variables = connection.variables(*_LIMITS)
        [(now,)] = connection.rows("SELECT UNIX_TIMESTAMP()")
        kept = preflight.retention(variables)
        window = self._age(files, 0, now)
        why = self._gone(connection, place, files)
        mend = f"SET GLOBAL binlog_expire_logs_seconds = {max(_WEEK, 2 * int(kept or 0))}"
        if kept is not None and "binlog_expire_logs_seconds" not in variables:
            mend = f"SET GLOBAL expire_logs_days = {max(7, 2 * int(kept // 86_400))}"
        if why:
            return Headroom(why, 0.0, None if kept is None else 0.0, window=window, lost=True)
        names = [file.name for file in files]
        # Its file is another server's, or unknown: nothing says that it is not in the oldest.
        at = names.index(place.file) if place.file in names else 0
        told = f"{names[at]} is file {at + 1} of {len(names)} that are kept"
        if kept is None:
            return Headroom(f"{told}, until somebody purges them", 1.0, window=window)
        closed = self._age(files, at + 1, now) if at + 1 < len(files) else 0.0
        seconds = max(0.0, kept - (closed or 0.0))
        told += f"; each is for {kept:.0f} s after its last change, this one for {seconds:.0f} more"
        return Headroom(told, seconds / kept, seconds, window=window, mend=mend)

    def _age(self, files: Sequence[File], at: int, now: float) -> float | None:
        """Seconds since a file was begun, which is when the one before it was closed."""
        file = files[at]
        begun = self._begun.get(file) or self._begun_at(file.name)
        if at < len(files) - 1:  # it grows no more
            self._begun = {f: b for f, b in self._begun.items() if f in files} | {file: begun}
        return max(0.0, float(now) - begun) if begun else None

    def _gone(self, connection: Connection, place: Place, files: Sequence[File]) -> str:
        """Why the place is lost, where it is."""
        passed, oldest = place.passed, files[0].name
        if isinstance(passed, OwnFiles):
            if place.file in [file.name for file in files]:
                return ""
            return f"the log begins with {oldest}, and the marker stands in {place.file}"
        if isinstance(passed, GtidSet):
            [(purged,)] = connection.rows("SELECT @@GLOBAL.gtid_purged")
            missing = GtidSet.parse(purged) - passed
            if not missing:
                return ""
            return f"the log begins with {oldest}, and {missing} after the marker is purged"
        if not isinstance(passed, MariaPosition):
            return f"the log begins with {oldest}, and the marker is from before there was one"
        [(begins,)] = connection.rows("SELECT BINLOG_GTID_POS(%s, 4)", [oldest])
        if all(gtid in passed for gtid in MariaPosition.parse(begins or "").domains):
            return ""
        return f"the log begins with {oldest}, at {begins}, which is after the marker's {passed}"
