"""What a position is here, and in which order rows stand.

A position names the transactions that were delivered by their global ids, which any server of a
replication group understands; file and offset are there for people, and for comparing a read view
of MariaDB with its log.

The version of a row is the number of its transaction: on MySQL how many transactions the executed
set holds, on MariaDB the sum of the sequence numbers of all domains.  Both grow by every
transaction, in the log's order, and survive a failover.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from warp.errors import SourceRefused, WarpError
from warp.model import Position
from warp.sources.mysql.binlog.gtid import Gtid, GtidSet, MariaGtid, MariaPosition
from warp.sources.mysql.connection import Flavour


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to here was delivered."""

    gtid: GtidSet | MariaPosition
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
        return Flavour.MARIADB if isinstance(self.gtid, MariaPosition) else Flavour.MYSQL

    @property
    def version(self) -> int:
        return self.gtid.count()

    @property
    def token(self) -> str:
        said: dict[str, Any] = {"flavour": self.flavour.value, "gtid": str(self.gtid)}
        if self.file:
            said |= {"file": self.file, "at": self.offset}
        return json.dumps(said)

    def position(self, committed_at: float = 0.0) -> Position:
        return Position(self.token, committed_at)

    @staticmethod
    def parse(token: str) -> Place:
        try:
            said = json.loads(token)
            gtid, file, at = said["gtid"], str(said.get("file", "")), int(said.get("at", 0))
            if Flavour(said["flavour"]) is Flavour.MARIADB:
                return Place.of_mariadb(gtid, file, at)
            return Place.of_mysql(gtid, file, at)
        except (ValueError, KeyError, TypeError, AttributeError, WarpError) as error:
            raise SourceRefused(
                f"a position in the log of MySQL or MariaDB was expected, found {token!r} "
                f"({error}); run `cartridge-warp resync SCHEMA`"
            ) from error

    def covers(self, other: Place) -> bool:
        """Was everything up to `other` delivered when everything up to here was?"""
        here, there = self.gtid, other.gtid
        if isinstance(here, MariaPosition):
            return isinstance(there, MariaPosition) and all(g in here for g in there.domains)
        return isinstance(there, GtidSet) and there <= here


class Counting:
    """A place that moves on by one transaction at a time."""

    __slots__ = ("_last", "_version", "gtid")

    def __init__(self, start: Place) -> None:
        self.gtid = start.gtid
        self._version = start.version
        self._last: Gtid | MariaGtid | None = None

    def add(self, gtid: Gtid | MariaGtid) -> int:
        """The version of the rows of this transaction, which comes next."""
        here = self.gtid
        self._last = gtid
        if isinstance(here, MariaPosition) and isinstance(gtid, MariaGtid):
            self.gtid = moved = here.add(gtid)
            self._version = gtid.sequence if len(moved.domains) == 1 else moved.count()
        elif isinstance(here, GtidSet) and isinstance(gtid, Gtid):
            if gtid not in here:
                self.gtid = here.add(gtid)
                self._version += 1
        else:
            raise AssertionError("a stream has one flavour")
        return self._version

    @property
    def last(self) -> tuple[int, bytes, int, int] | None:
        """(domain, source, number, version) of the last transaction; None where the next of its
        kind is not surely the one that follows."""
        gtid, here = self._last, self.gtid
        if isinstance(gtid, MariaGtid):
            return gtid.domain, b"", gtid.sequence, self._version
        if gtid is None or gtid.tag or not isinstance(here, GtidSet) or not here.ends_with(gtid):
            return None
        return 0, uuid.UUID(gtid.source).bytes, gtid.number, self._version

    def passed(self, number: int, server: int, version: int) -> None:
        """Somebody else took the transactions that follow the last one, up to this number."""
        gtid, here = self._last, self.gtid
        if isinstance(here, MariaPosition) and isinstance(gtid, MariaGtid):
            self._last = moved = MariaGtid(gtid.domain, server, number)
            self.gtid = here.add(moved)
        elif isinstance(here, GtidSet) and isinstance(gtid, Gtid):
            self._last = Gtid(gtid.source, gtid.tag, number)
            self.gtid = here | GtidSet.of(gtid.source, gtid.number + 1, number)
        self._version = version


def file_number(name: str) -> int:
    """The number that a log file's name ends with: `binlog.000012` is 12."""
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else 0
