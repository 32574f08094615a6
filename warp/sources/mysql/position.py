"""What a position is here, and in which order rows stand.

A position names the transactions that were delivered by their global ids, which any server of a
replication group understands; file and offset are there for people, and for comparing a read view
of MariaDB with its log.  A MySQL that gives no global ids (gtid_mode is not ON) has nothing but
file and offset: then the position is the end of a transaction in one server's own files.

The version of a row is the number of its transaction: on MySQL how many transactions the executed
set holds, on MariaDB the sum of the sequence numbers of all domains.  Both grow by every
transaction, in the log's order, and survive a failover.  Without global ids it is the number of
the log file and the place in it where the transaction began; without any log the server's clock.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from warp.errors import SourceRefused, WarpError
from warp.model import Position
from warp.mysql_family import Flavour
from warp.sources.mysql.binlog.gtid import Gtid, GtidSet, MariaGtid, MariaPosition
from warp.sources.mysql.binlog.transactions import Place as LogPlace

# A version without global ids: 27 bits for the file, 36 for the place in it (64 GiB), so that it
# stays below 2^63.
_OFFSET_BITS: Final = 36
_FILE_BITS: Final = 27


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Whose files a place is in where nothing else tells what was passed."""

    server: str  # its server_uuid
    # When the file was begun, in Unix seconds; 0 where that is not known.  After a RESET files of
    # the same names begin anew.
    begun: int = 0

    def __str__(self) -> str:
        return f"files of {self.server}"


@dataclass(frozen=True, slots=True)
class NoLog:
    """Of a server that writes no log, whose tables can only be polled: rows count by its clock."""

    clock: int  # microseconds since 1970


# What tells which transactions were passed.
Passed = GtidSet | MariaPosition | OwnFiles | NoLog


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to here was delivered."""

    passed: Passed
    file: str = ""
    offset: int = 0

    @staticmethod
    def of_mariadb(gtid: str, file: str = "", offset: int = 0) -> Place:
        return Place(MariaPosition.parse(gtid), file, offset)

    @staticmethod
    def of_mysql(gtid: str, file: str = "", offset: int = 0) -> Place:
        return Place(GtidSet.parse(gtid), file, offset)

    @property
    def flavour(self) -> Flavour:
        return Flavour.MARIADB if isinstance(self.passed, MariaPosition) else Flavour.MYSQL

    @property
    def version(self) -> int:
        if isinstance(self.passed, OwnFiles):
            return version_at(LogPlace(self.file, self.offset))
        if isinstance(self.passed, NoLog):
            return self.passed.clock
        return self.passed.count()

    @property
    def token(self) -> str:
        said: dict[str, Any] = {"flavour": self.flavour.value}
        if isinstance(self.passed, OwnFiles):
            said |= {"server": self.passed.server, "begun": self.passed.begun}
        elif isinstance(self.passed, NoLog):
            said["clock"] = self.passed.clock
        else:
            said["gtid"] = str(self.passed)
        if self.file:
            said |= {"file": self.file, "at": self.offset}
        return json.dumps(said)

    def position(self, committed_at: float = 0.0) -> Position:
        return Position(self.token, committed_at)

    @staticmethod
    def parse(token: str) -> Place:
        try:
            said = json.loads(token)
            flavour = Flavour(said["flavour"])
            file, at = str(said.get("file", "")), int(said.get("at", 0))
            if "clock" in said:
                return Place(NoLog(int(said["clock"])))
            if flavour is Flavour.MYSQL and "gtid" not in said:
                return Place(OwnFiles(str(said["server"]), int(said["begun"])), said["file"], at)
            if flavour is Flavour.MARIADB:
                return Place.of_mariadb(said["gtid"], file, at)
            return Place.of_mysql(said["gtid"], file, at)
        except (ValueError, KeyError, TypeError, AttributeError, WarpError) as error:
            raise SourceRefused(
                f"a position in the log of MySQL or MariaDB was expected, found {token!r} "
                f"({error}); run `cartridge-warp resync SCHEMA`"
            ) from error

    def covers(self, other: Place) -> bool:
        """Was everything up to `other` delivered when everything up to here was?

        Of a place that is told in another way nobody knows.
        """
        here, there = self.passed, other.passed
        if isinstance(here, MariaPosition):
            return isinstance(there, MariaPosition) and all(g in here for g in there.domains)
        if isinstance(here, OwnFiles):
            if not isinstance(there, OwnFiles) or there.server != here.server:
                return False
            begun = {here.begun, there.begun} - {0}
            is_reset = self.file == other.file and len(begun) > 1
            return not is_reset and other.version <= self.version
        if isinstance(here, NoLog):
            return isinstance(there, NoLog) and there.clock <= here.clock
        return isinstance(there, GtidSet) and there <= here


class Counting:
    """A place that moves on by one transaction at a time."""

    __slots__ = ("_last", "_version", "passed")

    def __init__(self, start: Place) -> None:
        self.passed = start.passed
        self._version = start.version
        self._last: Gtid | MariaGtid | None = None

    def add(self, gtid: Gtid | MariaGtid) -> int:
        """The version of the rows of this transaction, which comes next."""
        here = self.passed
        self._last = gtid
        if isinstance(here, MariaPosition) and isinstance(gtid, MariaGtid):
            self.passed = moved = here.add(gtid)
            self._version = gtid.sequence if len(moved.domains) == 1 else moved.count()
        elif isinstance(here, GtidSet) and isinstance(gtid, Gtid):
            if gtid not in here:
                self.passed = here.add(gtid)
                self._version += 1
        else:
            raise AssertionError("a stream has one flavour")
        return self._version

    @property
    def last(self) -> tuple[int, bytes, int, int] | None:
        """(domain, source, number, version) of the last transaction; None where the next of its
        kind is not surely the one that follows."""
        gtid, here = self._last, self.passed
        if isinstance(gtid, MariaGtid):
            return gtid.domain, b"", gtid.sequence, self._version
        if gtid is None or gtid.tag or not isinstance(here, GtidSet) or not here.ends_with(gtid):
            return None
        return 0, uuid.UUID(gtid.source).bytes, gtid.number, self._version

    def take(self, number: int, server: int, version: int) -> None:
        """Somebody else took the transactions that follow the last one, up to this number."""
        gtid, here = self._last, self.passed
        if isinstance(here, MariaPosition) and isinstance(gtid, MariaGtid):
            self._last = moved = MariaGtid(gtid.domain, server, number)
            self.passed = here.add(moved)
        elif isinstance(here, GtidSet) and isinstance(gtid, Gtid):
            self._last = Gtid(gtid.source, gtid.tag, number)
            self.passed = here | GtidSet.of(gtid.source, gtid.number + 1, number)
        self._version = version


def file_number(name: str) -> int:
    """The number that a log file's name ends with: `binlog.000012` is 12."""
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else 0


def version_at(place: LogPlace) -> int:
    """The version of what happened at a place in the log's files."""
    number = file_number(place.file)
    if number >> _FILE_BITS or place.position >> _OFFSET_BITS:
        raise SourceRefused(
            f"a log file with a number below {1 << _FILE_BITS:,} and of less than "
            f"{1 << _OFFSET_BITS:,} bytes was expected, found {place}: rows could not be put in "
            "order by it; set gtid_mode = ON, then run `cartridge-warp resync SCHEMA`"
        )
    return number << _OFFSET_BITS | place.position
