"""Global transaction ids: of MySQL with tags, of MariaDB, and the sets of them.

A set is a value: adding to it gives another one.
"""

from __future__ import annotations

import re
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import total_ordering
from typing import Final, Self

from warp.errors import WarpError
from warp.sources.mysql.binlog.events import damaged

_TAG: Final = re.compile(r"[a-z_][a-z0-9_]{0,31}\Z")
_INTERVAL: Final = re.compile(r"(\d+)(?:-(\d+))?\Z")


@dataclass(frozen=True, slots=True, order=True)
class Gtid:
    """One transaction of MySQL."""

    source: str  # UUID of the server it was first committed on, lower case
    tag: str  # '' for none
    number: int

    def __str__(self) -> str:
        tag = f"{self.tag}:" if self.tag else ""
        return f"{self.source}:{tag}{self.number}"


Interval = tuple[int, int]  # first and last, both inside


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class GtidSet:
    """Transactions of MySQL as `uuid:1-5:tag:1-2,uuid2:7`, always written the same way."""

    # (source, tag) -> intervals, in order, apart from each other
    _intervals: Mapping[tuple[str, str], tuple[Interval, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        found: dict[tuple[str, str], list[Interval]] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            first, *pieces = (piece.strip() for piece in part.split(":"))
            source, tag = _source(first, text), ""
            if not pieces:
                raise _unreadable(text, f"no transaction after {first!r}")
            for piece in pieces:
                if match := _INTERVAL.match(piece):
                    low = int(match[1])
                    high = int(match[2] or low)
                    if not 1 <= low <= high:
                        raise _unreadable(text, f"the interval {piece!r}")
                    found.setdefault((source, tag), []).append((low, high))
                elif _TAG.match(piece.lower()):
                    tag = piece.lower()
                else:
                    raise _unreadable(text, f"{piece!r}")
        return cls({name: _merged(intervals) for name, intervals in found.items()})

    def __str__(self) -> str:
        texts: dict[str, list[str]] = {}
        for (source, tag), intervals in sorted(self._intervals.items()):
            parts = texts.setdefault(source, [source])
            parts += [tag] * bool(tag)
            parts += [str(low) if low == high else f"{low}-{high}" for low, high in intervals]
        return ",".join(":".join(parts) for parts in texts.values())

    def __repr__(self) -> str:
        return f"GtidSet({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and dict(self._intervals) == dict(other._intervals)

    def __hash__(self) -> int:
        return hash(str(self))

    def __le__(self, other: GtidSet) -> bool:
        """Is every transaction of this set in the other one?"""
        return not (self - other)

    def __bool__(self) -> bool:
        return bool(self._intervals)

    def __len__(self) -> int:
        """How many transactions: grows by one with each, whoever is the primary."""
        return self.count()

    def __contains__(self, gtid: Gtid) -> bool:
        intervals = self._intervals.get((gtid.source, gtid.tag), ())
        place = bisect_right(intervals, (gtid.number, 1 << 64)) - 1
        return place >= 0 and gtid.number <= intervals[place][1]

    def __iter__(self) -> Iterator[tuple[str, str, Interval]]:
        for (source, tag), intervals in sorted(self._intervals.items()):
            for interval in intervals:
                yield source, tag, interval

    def count(self) -> int:
        return sum(
            high - low + 1 for intervals in self._intervals.values() for low, high in intervals
        )

    def add(self, gtid: Gtid) -> GtidSet:
        name = (gtid.source, gtid.tag)
        intervals = self._intervals.get(name, ())
        if intervals and intervals[-1][1] == gtid.number - 1:  # nearly always
            low = intervals[-1][0]
            grown: tuple[Interval, ...] = (*intervals[:-1], (low, gtid.number))
        else:
            grown = _merged([*intervals, (gtid.number, gtid.number)])
        return GtidSet({**self._intervals, name: grown})

    @classmethod
    def of(cls, source: str, first: int, last: int) -> Self:
        """Transactions without a tag that follow each other."""
        return cls({(source, ""): ((first, last),)})

    def ends_with(self, gtid: Gtid) -> bool:
        """Is it the highest of its source and tag?"""
        intervals = self._intervals.get((gtid.source, gtid.tag), ())
        return bool(intervals) and intervals[-1][1] == gtid.number

    def __or__(self, other: GtidSet) -> GtidSet:
        names = {**self._intervals, **other._intervals}
        return GtidSet(
            {
                name: _merged([*self._intervals.get(name, ()), *other._intervals.get(name, ())])
                for name in names
            }
        )

    def __sub__(self, other: GtidSet) -> GtidSet:
        left = {
            name: _without(intervals, other._intervals.get(name, ()))
            for name, intervals in self._intervals.items()
        }
        return GtidSet({name: intervals for name, intervals in left.items() if intervals})

    def encoded(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID wants it: a second form where there are tags, which 8.3 has."""
        parts = sorted(self._intervals.items())
        tagged = any(tag for (_, tag), _ in parts)
        count = len(parts)
        body = [
            b"\1" + count.to_bytes(6, "little") + b"\1" if tagged else count.to_bytes(8, "little")
        ]
        for (source, tag), intervals in parts:
            body.append(uuid.UUID(source).bytes)
            if tagged:  # a length of up to 32, so always in one byte
                body.append(bytes((len(tag) << 1,)) + tag.encode("ascii"))
            body.append(len(intervals).to_bytes(8, "little"))
            for low, high in intervals:
                body += [low.to_bytes(8, "little"), (high + 1).to_bytes(8, "little")]
        return b"".join(body)


def _source(text: str, whole: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise _unreadable(whole, f"{text!r}, which is no UUID") from None


def _unreadable(text: str, what: str) -> WarpError:
    return WarpError(
        f"expected a set of GTIDs such as `uuid:1-5:tag:7`, found {what} in {text[:200]!r}"
    )


def _merged(intervals: list[Interval]) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _without(intervals: tuple[Interval, ...], taken: tuple[Interval, ...]) -> tuple[Interval, ...]:
    left: list[Interval] = []
    for start, high in intervals:
        low = start
        for gone_low, gone_high in taken:
            if gone_high < low or gone_low > high:
                continue
            if gone_low > low:
                left.append((low, gone_low - 1))
            low = gone_high + 1
        if low <= high:
            left.append((low, high))
    return tuple(left)


# -- MariaDB


@dataclass(frozen=True, slots=True)
class MariaGtid:
    """One transaction of MariaDB: `domain-server-sequence`."""

    domain: int
    server: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class MariaPosition:
    """The last transaction of each domain, as `gtid_binlog_pos` writes it: `0-1-7,5-2-3`."""

    domains: tuple[MariaGtid, ...] = ()  # by domain, one each

    @classmethod
    def parse(cls, text: str) -> Self:
        found = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            try:
                domain, server, sequence = map(int, part.split("-"))
            except ValueError:
                raise WarpError(
                    f"expected a GTID position such as `0-1-7,5-2-3`, found {part!r} in "
                    f"{text[:200]!r}"
                ) from None
            found[domain] = MariaGtid(domain, server, sequence)
        return cls(tuple(gtid for _, gtid in sorted(found.items())))

    def __str__(self) -> str:
        return ",".join(map(str, self.domains))

    def __contains__(self, gtid: MariaGtid) -> bool:
        """Has this position passed a transaction?"""
        return any(at.domain == gtid.domain and at.sequence >= gtid.sequence for at in self.domains)

    def add(self, gtid: MariaGtid) -> MariaPosition:
        if len(self.domains) == 1 and self.domains[0].domain == gtid.domain:  # nearly always
            return MariaPosition((gtid,))
        domains = {at.domain: at for at in self.domains}
        domains[gtid.domain] = gtid
        return MariaPosition(tuple(at for _, at in sorted(domains.items())))

    def count(self) -> int:
        """Sum of the sequence numbers: grows with each transaction, whoever is the primary."""
        return sum(at.sequence for at in self.domains)


# -- the events


@dataclass(frozen=True, slots=True)
class MysqlBeginning:
    gtid: Gtid | None  # None: anonymous
    committed_at: float  # Unix seconds; 0 where the server does not say


def gtid_event(event: bytes, end: int, *, anonymous: bool) -> MysqlBeginning:
    """GTID: flags u8, UUID, number i64, sort u8, two i64, then 7 bytes of microseconds."""
    if end < 44:
        raise damaged("a GTID event cut short")
    gtid = None
    if not anonymous:
        source = str(uuid.UUID(bytes=event[20:36]))
        gtid = Gtid(source, "", int.from_bytes(event[36:44], "little"))
    microseconds = 0
    if end >= 68 and event[44] == 2:
        microseconds = int.from_bytes(event[61:68], "little") & (1 << 55) - 1
    return MysqlBeginning(gtid, microseconds / 1e6)


def tagged_gtid_event(event: bytes, end: int) -> MysqlBeginning:
    """GTID_TAGGED: (field, value) pairs, each number of a length its first byte tells."""
    try:
        _, place = _varying(event, 19)  # the form's version
        size, place = _varying(event, place)
        _, place = _varying(event, place)
        end = min(end, 19 + size)
        source, tag, number, microseconds = b"", "", 0, 0
        while place < end:
            name, place = _varying(event, place)
            if name == 1:
                numbers = []
                for _ in range(16):
                    byte, place = _varying(event, place)
                    numbers.append(byte)
                source = bytes(numbers)
                continue
            value, place = _varying(event, place)
            if name == 2:
                number = -(value >> 1) - 1 if value & 1 else value >> 1
            elif name == 3:
                tag = event[place : place + value].decode("ascii")
                place += value
            elif name == 6:
                microseconds = value
                break  # what follows is not for us
        gtid = Gtid(str(uuid.UUID(bytes=source)), tag, number)
    except (IndexError, ValueError) as error:
        raise damaged("a tagged GTID event that cannot be read") from error
    if number < 1:
        raise damaged(f"a tagged GTID event with the number {number}")
    return MysqlBeginning(gtid, microseconds / 1e6)


def _varying(raw: bytes, place: int) -> tuple[int, int]:
    """A number whose first byte ends in as many ones as bytes follow."""
    first = raw[place]
    more = 0
    while more < 8 and first >> more & 1:
        more += 1
    value = int.from_bytes(raw[place : place + more + 1], "little")
    return value >> min(more + 1, 8), place + more + 1


STANDALONE: Final = 0x01  # one statement is the whole transaction; nothing ends it
_GROUP_COMMIT: Final = 0x02
TRANSACTIONAL: Final = 0x04
DDL: Final = 0x20
PREPARED_XA: Final = 0x40
COMPLETED_XA: Final = 0x80


@dataclass(frozen=True, slots=True)
class MariaBeginning:
    gtid: MariaGtid
    flags: int
    xid: bytes = b""  # of an XA transaction: its format, and its two parts with their lengths


def mariadb_gtid_event(event: bytes, end: int) -> MariaBeginning:
    """GTID: sequence u64, domain u32, flags u8, [group u64], [xid]; the server is in the header."""
    if end < 32:
        raise damaged("a GTID event cut short")
    flags = event[31]
    gtid = MariaGtid(
        int.from_bytes(event[27:31], "little"),
        int.from_bytes(event[5:9], "little"),
        int.from_bytes(event[19:27], "little"),
    )
    xid = b""
    if flags & (PREPARED_XA | COMPLETED_XA):
        place = 32 + (8 if flags & _GROUP_COMMIT else 0)
        xid = event[place : place + 6 + event[place + 4] + event[place + 5]]
    return MariaBeginning(gtid, flags, xid)


# -- names of XA transactions


def xid_key(text: str) -> str:
    """The name of an XA transaction, however it is written: X'61',X'62',1."""
    parts = [*text.split(","), "''", "1"] if text.count(",") == 0 else text.split(",")
    names = [part[1:].strip("'").lower() if part[:1] in "xX" else _hex(part) for part in parts[:2]]
    number = parts[2] if len(parts) > 2 else "1"
    return f"X'{names[0]}',X'{names[1]}',{number}"


def _hex(quoted: str) -> str:
    return quoted.strip("'").encode().hex()


def xid_text(raw: bytes) -> str:
    """The same from a MariaDB GTID event: format u32, two lengths, two parts."""
    number, first = int.from_bytes(raw[:4], "little"), raw[4]
    parts = raw[6:]
    return f"X'{parts[:first].hex()}',X'{parts[first:].hex()}',{number}"
